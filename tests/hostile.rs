use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, answer, eventually, hostile, load, repository, request_arrives, words_section};

/// The model of the attackers, which takes tensors.
fn models() -> String {
    words_section() + "sessions = 1\n"
}

/// A component that runs `attack`, on the route of the same name.
fn attacker(attack: &str, limits: &str) -> String {
    format!(
        "[components.{attack}]\nsource = {:?}\nroute = \"/{attack}\"\nmodels = {{ text = \"words\" }}\n\
         settings = {{ attack = \"{attack}\" }}\nlimits = {{ {limits} }}\n",
        hostile()
    )
}

async fn attack(server: &Server, name: &str) -> (StatusCode, Value) {
    answer(server.post(&format!("/{name}")).json(&json!({ "input": "x" }))).await
}

/// The guest's report of its attack: the reason of its only gap.
fn reported(body: &Value) -> &str {
    body["infer"]["degraded"][0]["reason"].as_str().unwrap_or_else(|| panic!("no reason in {body}"))
}

#[tokio::test]
async fn attacks_are_stopped_and_service_continues() {
    let stopped: [(&str, &str, StatusCode, &str); 14] = [
        ("loop", "guest_ms = 100", StatusCode::GATEWAY_TIMEOUT, "guest_time"),
        ("recurse", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("panic", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("hoard-tensors", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("hoard-handles", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("long-answer", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("many-dimensions", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("long-name", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("hoard-contexts", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("long-key", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("long-line", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("drip", "compute_ms = 50", StatusCode::OK, "after"),
        ("allocate", "", StatusCode::OK, "refused after"),
        ("log-flood", "log_lines = 3, tensor_bytes = 16777216", StatusCode::OK, "wrote 100000 lines"),
    ];
    let mut config = models() + &attacker("nothing", "");
    for (name, limits, ..) in stopped {
        config += &attacker(name, limits);
    }
    let server = Server::start(Arc::new(load(&config))).await;
    for (name, _, status, words) in stopped {
        let (found, body) = attack(&server, name).await;
        assert_eq!(found, status, "{name}: {body}");
        if status.is_success() {
            assert!(reported(&body).starts_with(words), "{name}: {body}");
        } else {
            assert_eq!(body["error"]["code"], words, "{name}: {body}");
            let message = body["error"]["message"].as_str().unwrap();
            assert!(
                !message.contains("wasm") && !message.contains("bytes"),
                "{name} leaks internals: {message}"
            );
        }
        let (status, body) = attack(&server, "nothing").await;
        assert_eq!(status, StatusCode::OK, "after {name}: {body}");
    }
}

#[tokio::test]
async fn wasi_nn_errors_have_their_kind() {
    let cases = [
        ("foreign-model", "ErrorCode::NotFound"),
        ("load-bytes", "ErrorCode::Security"),
        ("bad-tensor", "ErrorCode::InvalidArgument"),
        ("overflow-dimensions", "ErrorCode::InvalidArgument"),
        ("zero-size", "ErrorCode::InvalidArgument"),
        ("wrong-input", "ErrorCode::InvalidArgument"),
        ("twice-named", "ErrorCode::InvalidArgument"),
    ];
    let config = cases.iter().fold(models(), |config, (name, _)| config + &attacker(name, ""));
    let server = Server::start(Arc::new(load(&config))).await;
    for (name, code) in cases {
        let (status, body) = attack(&server, name).await;
        assert_eq!(status, StatusCode::OK, "{name}: {body}");
        for answer in reported(&body).split("; no model") {
            assert!(answer.contains(code) || answer.starts_with(" `"), "{name}: {body}");
        }
        assert!(!reported(&body).contains("done"), "{name}: {body}");
    }
}

#[tokio::test]
async fn all_computations_share_one_budget() {
    let config = models() + &attacker("drip", "compute_ms = 50, guest_ms = 5000");
    let server = Server::start(Arc::new(load(&config))).await;
    let (status, body) = attack(&server, "drip").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(reported(&body).contains("ErrorCode::Timeout"), "{body}");
}

#[tokio::test]
async fn calls_share_no_state() {
    let config = models() + &attacker("remember", "");
    let server = Server::start(Arc::new(load(&config))).await;
    for _ in 0..64 {
        let (status, body) = attack(&server, "remember").await;
        assert_eq!((status, reported(&body)), (StatusCode::OK, "called 0 times before"), "{body}");
    }
}

#[tokio::test]
async fn nan_and_infinity_reach_the_model() {
    let identity = repository().join("host/engine/tests/data/identity-f32");
    let config = format!("[models.words]\nsource = {identity:?}\n") + &attacker("not-a-number", "");
    let server = Server::start(Arc::new(load(&config))).await;
    let (status, body) = attack(&server, "not-a-number").await;
    assert_eq!((status, reported(&body)), (StatusCode::OK, "they returned unchanged"), "{body}");
}

#[tokio::test]
async fn disconnected_client_leaks_nothing() {
    let config = format!("[server]\ninstances = 2\nwaiting = 0\n{}", models())
        + &attacker("loop", "guest_ms = 60000")
        + &attacker("drip", "compute_ms = 60000, guest_ms = 60000")
        + &attacker("nothing", "");
    let server = Server::start(Arc::new(load(&config))).await;
    for name in ["loop", "drip"] {
        let asked = tokio::time::timeout(Duration::from_millis(200), attack(&server, name)).await;
        assert!(asked.is_err(), "{name} answered: {asked:?}");
        // The instance is free at once, although its own limits would last a minute.
        eventually(async || attack(&server, "nothing").await.0 == StatusCode::OK).await;
        for _ in 0..2 {
            let (status, body) = attack(&server, "nothing").await;
            assert_eq!(status, StatusCode::OK, "after {name}: {body}");
        }
    }
}

#[tokio::test]
async fn usage_of_stopped_guests_is_reported() {
    let config = models() + &attacker("loop", "guest_ms = 100") + &attacker("hoard-tensors", "");
    let server = Server::start(Arc::new(load(&config))).await;
    for name in ["loop", "hoard-tensors"] {
        attack(&server, name).await;
    }
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    let sum = |metric: &str, labels: &str| -> f64 {
        let start = format!("infer_{metric}_sum{{{labels}}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no `{start}` in {metrics}")).parse().unwrap()
    };
    // The time to create the instance counts against its 100 ms too.
    assert!(sum("component_stage_seconds", "component=\"loop\",stage=\"guest\"") >= 0.05, "{metrics}");
    assert!(sum("component_memory_bytes", "component=\"loop\"") >= 65_536.0, "{metrics}");
    let tensors = sum("component_tensor_bytes", "component=\"hoard-tensors\"");
    assert!((1e6..=33_554_432.0).contains(&tensors), "{tensors}");
    for (name, cause) in [("loop", "guest_time"), ("hoard-tensors", "tensor_bytes")] {
        let line = format!("infer_component_calls_total{{component=\"{name}\",outcome=\"{cause}\"}} 1");
        assert!(metrics.contains(&line), "no `{line}` in {metrics}");
    }
}

#[tokio::test]
async fn looping_guest_harms_no_other_request() {
    let config = models() + &attacker("loop", "guest_ms = 300") + &attacker("nothing", "");
    let app = Arc::new(load(&config));
    let server = Arc::new(Server::start(app.clone()).await);
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { attack(&server, "loop").await.0 })
        })
        .collect();
    request_arrives(&app).await;
    for _ in 0..10 {
        let (status, body) = attack(&server, "nothing").await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    for ended in loops {
        assert_eq!(ended.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
    }
}

#[tokio::test]
async fn full_server_sends_retry_after() {
    let config =
        format!("[server]\ninstances = 1\nwaiting = 0\n{}{}", models(), attacker("loop", "guest_ms = 2000"));
    let app = Arc::new(load(&config));
    let server = Arc::new(Server::start(app.clone()).await);
    let first = tokio::spawn({
        let server = server.clone();
        async move { attack(&server, "loop").await.0 }
    });
    request_arrives(&app).await;
    let response = server.post("/loop").json(&json!({ "input": "x" })).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "busy");
    assert_eq!(first.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn request_ends_at_its_deadline() {
    let config = format!("[server]\ndeadline_ms = 100\n{}{}", models(), attacker("loop", "guest_ms = 10000"));
    let server = Server::start(Arc::new(load(&config))).await;
    let (status, body) = attack(&server, "loop").await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(body["error"]["code"], "deadline");
}

/// Collects every Rust source file below `folder`, with its text.
fn sources(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

/// docs/SECURITY.md names a test for every attack; each must exist, in the file of its module.
#[test]
fn threat_model_names_existing_tests() {
    let document = std::fs::read_to_string(repository().join("docs/SECURITY.md")).unwrap();
    let mut files = Vec::new();
    for folder in ["tests", "host", "guest-models"] {
        sources(&repository().join(folder), &mut files);
    }
    let mut named = 0;
    for name in document.split('`').skip(1).step_by(2).filter(|name| name.contains("::")) {
        let (module, function) = name.rsplit_once("::").unwrap();
        let function = format!("fn {function}(");
        let is_of = |path: &Path, part: &str| {
            path.file_stem().is_some_and(|stem| stem == part) || path.iter().any(|folder| folder == part)
        };
        let found = files.iter().any(|(path, text)| {
            let mut parts = module.split("::").filter(|part| *part != "tests");
            text.contains(&function) && parts.all(|part| is_of(path, part))
        });
        assert!(found, "docs/SECURITY.md names `{name}`, which is no test");
        named += 1;
    }
    assert!(named > 30, "{named} tests are named");
}
