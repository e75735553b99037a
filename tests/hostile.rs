use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, answer, hostile, load};

const MODELS: &str = r#"
[models.toxic-bilstm]
source = "builtin:toxic-bilstm"
sessions = 1
"#;

/// A component that attacks by `attack`, on /NAME.
fn attacker(attack: &str, limits: &str) -> String {
    format!(
        "[components.{attack}]\nsource = {:?}\nroute = \"/{attack}\"\nmodels = {{ text = \"toxic-bilstm\" }}\n\
         settings = {{ attack = \"{attack}\" }}\nlimits = {{ {limits} }}\n",
        hostile()
    )
}

async fn attack(server: &Server, name: &str) -> (StatusCode, Value) {
    answer(server.post(&format!("/{name}")).json(&json!({ "input": "x" }))).await
}

/// What the guest said of its attack: the reason of its only gap.
fn told(body: &Value) -> &str {
    body["infer"]["degraded"][0]["reason"].as_str().unwrap_or_else(|| panic!("no reason in {body}"))
}

#[tokio::test]
async fn each_attack_is_stopped_and_the_next_request_is_served() {
    let stopped: [(&str, &str, StatusCode, &str); 10] = [
        ("loop", "guest_ms = 100", StatusCode::GATEWAY_TIMEOUT, "guest_time"),
        ("recurse", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("panic", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("hoard-tensors", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("hoard-handles", "", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("long-answer", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("many-dimensions", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("long-name", "tensor_bytes = 1048576", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("allocate", "", StatusCode::OK, "refused after"),
        ("log-flood", "log_lines = 3, tensor_bytes = 16777216", StatusCode::OK, "wrote 100000 lines"),
    ];
    let mut config = MODELS.to_owned() + &attacker("nothing", "");
    for (name, limits, ..) in stopped {
        config += &attacker(name, limits);
    }
    let server = Server::start(Arc::new(load(&config))).await;
    for (name, _, status, words) in stopped {
        let (found, body) = attack(&server, name).await;
        assert_eq!(found, status, "{name}: {body}");
        if status.is_success() {
            assert!(told(&body).starts_with(words), "{name}: {body}");
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
async fn what_wasi_nn_refuses_is_an_error_of_the_right_kind() {
    let cases = [
        ("foreign-model", "ErrorCode::NotFound"),
        ("load-bytes", "ErrorCode::Security"),
        ("bad-tensor", "ErrorCode::InvalidArgument"),
        ("overflow-dimensions", "ErrorCode::InvalidArgument"),
        ("zero-size", "ErrorCode::InvalidArgument"),
        ("wrong-input", "ErrorCode::InvalidArgument"),
    ];
    let config = cases.iter().fold(MODELS.to_owned(), |config, (name, _)| config + &attacker(name, ""));
    let server = Server::start(Arc::new(load(&config))).await;
    for (name, code) in cases {
        let (status, body) = attack(&server, name).await;
        assert_eq!(status, StatusCode::OK, "{name}: {body}");
        for answer in told(&body).split("; no model") {
            assert!(answer.contains(code) || answer.starts_with(" `"), "{name}: {body}");
        }
        assert!(!told(&body).contains("done"), "{name}: {body}");
    }
}

#[tokio::test]
async fn a_loop_costs_others_neither_their_answer_nor_their_slot() {
    let config = MODELS.to_owned() + &attacker("loop", "guest_ms = 300") + &attacker("nothing", "");
    let server = Arc::new(Server::start(Arc::new(load(&config))).await);
    let loops: Vec<_> = (0..4)
        .map(|_| {
            let server = server.clone();
            tokio::spawn(async move { attack(&server, "loop").await.0 })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    for _ in 0..10 {
        let (status, body) = attack(&server, "nothing").await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    for ended in loops {
        assert_eq!(ended.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
    }
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let config =
        format!("[server]\ninstances = 1\nwaiting = 0\n{MODELS}{}", attacker("loop", "guest_ms = 2000"));
    let server = Arc::new(Server::start(Arc::new(load(&config))).await);
    let first = tokio::spawn({
        let server = server.clone();
        async move { attack(&server, "loop").await.0 }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let response = server.post("/loop").json(&json!({ "input": "x" })).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["error"]["code"], "busy");
    assert_eq!(first.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn a_request_ends_at_its_deadline() {
    let config = format!("[server]\ndeadline_ms = 100\n{MODELS}{}", attacker("loop", "guest_ms = 10000"));
    let server = Server::start(Arc::new(load(&config))).await;
    let (status, body) = attack(&server, "loop").await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(body["error"]["code"], "deadline");
}
