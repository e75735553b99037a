use std::process::Command;
use std::sync::Arc;

use infer_config::keys::KeyHash;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Server, answer, eventually, load};

const MODELS: &str = "[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\nsessions = 1\n\
    [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
    models = { text = \"toxic-bilstm\" }\n\
    [components.other]\nsource = \"builtin:moderate\"\nroute = \"/other\"\n\
    models = { text = \"toxic-bilstm\" }\n";

async fn configured(config: &str) -> Server {
    Server::start(Arc::new(load(&format!("{config}\n{MODELS}")))).await
}

/// A `[keys.NAME]` section whose key equals its name.
fn key(name: &str, allowed: &str) -> String {
    format!("[keys.{name}]\nhash = \"{}\"\n{allowed}\n", KeyHash::of(name))
}

fn judge(server: &Server, path: &str) -> RequestBuilder {
    server.post(path).json(&json!({ "input": "hello" }))
}

fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap()
}

#[tokio::test]
async fn key_is_required_except_for_health() {
    let server = configured(&key("alice", "")).await;
    let none = judge(&server, "/moderate").send().await.unwrap();
    assert_eq!(none.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(none.headers()["www-authenticate"], "Bearer");
    assert_eq!(code(&none.json().await.unwrap()), "missing_api_key");
    for header in ["Basic alice", "alice", "Bearer", "Bearer ", "Bearer alic", "Bearer alice alice"] {
        let (status, body) = answer(judge(&server, "/moderate").header("authorization", header)).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{header}: {body}");
        assert!(!body.to_string().contains("alic"), "what was sent is not repeated: {body}");
    }
    for header in ["Bearer alice", "bearer  alice"] {
        let (status, body) = answer(judge(&server, "/moderate").header("authorization", header)).await;
        assert_eq!(status, StatusCode::OK, "{header}: {body}");
    }
    assert_eq!(answer(server.get("/v1/models")).await.0, StatusCode::UNAUTHORIZED);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(answer(server.get(path)).await.0, StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn key_sees_only_its_components() {
    let server = configured(&key("alice", "components = [\"moderate\"]\nmodels = []")).await;
    let (status, body) = answer(judge(&server, "/other").bearer_auth("alice")).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "not_allowed"));
    assert_eq!(answer(judge(&server, "/moderate").bearer_auth("alice")).await.0, StatusCode::OK);
    let (_, list) = answer(server.get("/v1/models").bearer_auth("alice")).await;
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|entry| &entry["id"]).collect();
    assert_eq!(ids, ["moderate"]);
}

#[tokio::test]
async fn rate_limited_key_gets_retry_after() {
    let server = configured(&(key("alice", "rate = 1\nburst = 2") + &key("bob", ""))).await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(judge(&server, "/moderate").bearer_auth("alice").send().await.unwrap());
    }
    let last = statuses.pop().unwrap();
    assert!(statuses.iter().all(|response| response.status() == StatusCode::OK), "{statuses:?}");
    assert_eq!(last.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(last.headers()["retry-after"], "1");
    assert_eq!(code(&last.json().await.unwrap()), "rate_limited");
    assert_eq!(answer(judge(&server, "/moderate").bearer_auth("bob")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn concurrency_of_a_key_is_limited() {
    let limits = "[server]\ndeadline_ms = 60000\nbody_ms = 60000\n";
    let server = configured(&(limits.to_owned() + &key("alice", "concurrency = 1"))).await;
    let body = json!({ "input": "hello" }).to_string();
    let mut half = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST /moderate HTTP/1.1\r\nhost: test\r\nauthorization: Bearer alice\r\ncontent-length: {}\r\n\r\n{}",
        body.len(),
        &body[..5]
    );
    half.write_all(head.as_bytes()).await.unwrap();
    let ask = || answer(judge(&server, "/moderate").bearer_auth("alice"));
    eventually(async || {
        let (status, body) = ask().await;
        status == StatusCode::TOO_MANY_REQUESTS && code(&body) == "too_many_at_once"
    })
    .await;
    half.write_all(&body.as_bytes()[5..]).await.unwrap();
    let mut status = [0; 12];
    half.read_exact(&mut status).await.unwrap();
    assert_eq!(std::str::from_utf8(&status).unwrap(), "HTTP/1.1 200");
    eventually(async || ask().await.0 == StatusCode::OK).await;
}

#[tokio::test]
async fn address_rate_applies_before_keys() {
    let limits = "[server]\nrate_per_ip = 1\nburst_per_ip = 2\n";
    let server = configured(&(limits.to_owned() + &key("alice", ""))).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        codes.push(code(&answer(judge(&server, "/moderate")).await.1).to_owned());
    }
    assert_eq!(codes, ["missing_api_key", "missing_api_key", "rate_limited"]);
}

#[tokio::test]
async fn generated_key_works() {
    let output = Command::new(env!("CARGO_BIN_EXE_infer")).args(["key", "new", "alice"]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let made = printed.lines().find_map(|line| line.strip_prefix("# infer_")).unwrap();
    // The printed section is used unchanged.
    let server = configured(&printed).await;
    let (status, body) = answer(judge(&server, "/moderate").bearer_auth(format!("infer_{made}"))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(
        !printed.split("[keys.alice]").nth(1).unwrap().contains(made),
        "the section holds the hash alone"
    );
}

#[test]
fn remote_listener_requires_keys() {
    let folder = tempfile::tempdir().unwrap();
    let run = |config: &str, arguments: &[&str]| {
        std::fs::write(folder.path().join("infer.toml"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        let output =
            command.current_dir(&folder).args(arguments).env_remove("INFER_CONFIG").output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let open = "[server]\nlisten = \"0.0.0.0:0\"\n";
    let refused = [
        (open.to_owned(), &["check"][..], "`listen` is `0.0.0.0:0`"),
        (String::new(), &["serve", "--listen", "[::]:0"][..], "`--listen` is `[::]:0`"),
        (
            format!("[server]\nadmin_listen = \"0.0.0.0:0\"\n{}", key("alice", "")),
            &["check"][..],
            "`admin_listen`",
        ),
        ("[keys.alice]\nhash = \"infer_secret\"\n".to_owned(), &["check"][..], "expected `sha256:`"),
        (key("alice", "components = [\"none\"]"), &["check"][..], "component `none`"),
        (key("alice", "burst = 3"), &["check"][..], "`burst` requires `rate`"),
        (key("a", "") + &key("a", "").replace("keys.a", "keys.b"), &["check"][..], "same hash as key `a`"),
    ];
    for (config, arguments, words) in refused {
        let (success, error) = run(&config, arguments);
        assert!(!success && error.contains(words), "{config}: no `{words}` in {error}");
        assert!(!error.contains("infer_secret"), "a key is not repeated: {error}");
    }
    for config in [format!("{open}trusted_network = true\n"), format!("{open}{}", key("alice", ""))] {
        assert!(run(&config, &["check"]).0, "{config}");
    }
}

#[tokio::test]
async fn keys_neither_share_nor_evict_cached_answers() {
    let server = configured(&(key("alice", "") + &key("bob", ""))).await;
    let ask = async |who: &str, name: &str| {
        let request = judge(&server, "/moderate").bearer_auth(who).header("idempotency-key", name);
        let (status, body) = answer(request).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["id"].as_str().unwrap().to_owned()
    };
    let alices = ask("alice", "k").await;
    assert_ne!(ask("bob", "k").await, alices, "an answer is its key's own");
    for index in 0..1_100 {
        ask("bob", &format!("k{index}")).await;
    }
    assert_eq!(ask("alice", "k").await, alices, "what others keep costs no other client an answer");
}

#[tokio::test]
async fn cached_answer_requires_current_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("infer.toml");
    let write = |config: &str| std::fs::write(&path, config).unwrap();
    let with = |allowed: &str| format!("{}{MODELS}", key("alice", allowed));
    write(&with(""));
    let read = {
        let path = path.clone();
        move || infer_config::Config::load(Some(&path)).map_err(anyhow::Error::from)
    };
    let registry = Arc::new(infer_control::registry::Registry::load(read().unwrap()).unwrap());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listeners = infer_server::serve::Listeners::from(listener);
    let service =
        infer_server::service::Service::new(registry, listeners.admin_address(), Some(Box::new(read)));
    let live = service.live().clone();
    let server = Server::of(service, listeners);
    let ask = async |path: &str| {
        answer(judge(&server, path).bearer_auth("alice").header("idempotency-key", "k")).await
    };
    let moderations = "/v1/moderations";
    let (status, first) = ask(moderations).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    assert_eq!(ask(moderations).await.1, first);
    write(&with("components = [\"other\"]"));
    live.reload().await.unwrap();
    let (status, body) = ask(moderations).await;
    assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "not_allowed"));
    // The permission returns, and the component has not changed.
    write(&with(""));
    live.reload().await.unwrap();
    assert_eq!(ask(moderations).await.1, first);
    // A new version of the component does not reuse stored answers.
    write(&format!("{}[components.moderate.limits]\nlog_lines = 7\n", with("")));
    live.reload().await.unwrap();
    assert_ne!(ask(moderations).await.1["id"], first["id"]);
}

#[tokio::test]
async fn model_names_are_shown_to_permitted_keys() {
    let server =
        configured(&(key("alice", "components = [\"moderate\"]\nmodels = []") + &key("bob", ""))).await;
    let ask = async |who: &str, name: &str| {
        answer(server.get(&format!("/v1/models/{name}")).bearer_auth(who)).await
    };
    let (status, model) = ask("bob", "toxic-bilstm").await;
    assert_eq!(
        (status, &model["object"], &model["id"]),
        (StatusCode::OK, &json!("model"), &json!("toxic-bilstm"))
    );
    let (_, list) = answer(server.get("/v1/models").bearer_auth("bob")).await;
    assert!(list["data"].as_array().unwrap().contains(&model), "as in the list: {model}");
    for (who, name, expected) in [
        ("alice", "moderate", StatusCode::OK),
        ("alice", "toxic-bilstm", StatusCode::NOT_FOUND),
        ("alice", "other", StatusCode::NOT_FOUND),
        ("bob", "nothing", StatusCode::NOT_FOUND),
        ("eve", "moderate", StatusCode::UNAUTHORIZED),
    ] {
        let (status, body) = ask(who, name).await;
        assert_eq!(status, expected, "{who} {name}: {body}");
        if status == StatusCode::NOT_FOUND {
            assert_eq!((code(&body), &body["error"]["param"]), ("model_not_found", &json!("model")));
            assert!(who != "alice" || !body.to_string().contains("bilstm`, `"), "{body}");
        }
    }
}
