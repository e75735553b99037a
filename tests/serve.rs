use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{BUILTIN, Server, answer, hostile, load};

#[tokio::test]
async fn health_models_and_unknown_paths() {
    let server = Server::builtin().await;
    assert_eq!(answer(server.get("/healthz")).await, (StatusCode::OK, json!({ "status": "ok" })));
    assert_eq!(answer(server.get("/readyz")).await, (StatusCode::OK, json!({ "status": "ready" })));
    let (status, body) = answer(server.get("/nothing")).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::NOT_FOUND, &json!("not_found")));
    let (status, body) = answer(server.get("/moderate")).await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (StatusCode::METHOD_NOT_ALLOWED, &json!("method_not_allowed"))
    );
}

#[tokio::test]
async fn models_lists_what_is_loaded() {
    let server = Server::builtin().await;
    let (status, body) = answer(server.get("/v1/models")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["object"], "list");
    let entry = |id: &str| {
        let data = body["data"].as_array().unwrap();
        data.iter().find(|entry| entry["id"] == id).unwrap_or_else(|| panic!("no `{id}` in {body}")).clone()
    };
    let model = entry("toxic-bilstm");
    assert_eq!(model["kind"], "model");
    assert_eq!(model["hash"], BUILTIN.models["toxic-bilstm"].hash());
    assert_eq!(entry("classify")["route"], "/classify");
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let server = Server::builtin().await;
    let id = |response: &reqwest::Response| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let kept = server.get("/healthz").header("x-request-id", "abc-123").send().await.unwrap();
    assert_eq!(id(&kept), "abc-123");
    let made = [server.get("/healthz").send().await.unwrap(), server.get("/nothing").send().await.unwrap()];
    assert_ne!(id(&made[0]), id(&made[1]));
    let refused = server.get("/healthz").header("x-request-id", "x".repeat(200)).send().await.unwrap();
    assert_eq!(id(&refused).len(), 32);
}

#[tokio::test]
async fn a_body_past_the_limit_is_refused() {
    let server = Server::start(Arc::new(load(
        "[server]\nmax_body_bytes = 1000\n[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
         models = { text = \"toxic-bilstm\" }\n",
    )))
    .await;
    let (status, body) = server.moderate(&json!({ "input": "a".repeat(2000) })).await;
    assert_eq!((status, &body["error"]["code"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large")));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let server = Server::start(Arc::new(load(
        "[server]\ndeadline_ms = 100\n[components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n",
    )))
    .await;
    let mut connection = TcpStream::connect(server.address()).await.unwrap();
    let head = "POST /moderate HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{\"input\"";
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(std::str::from_utf8(&status).unwrap(), "HTTP/1.1 408");
}

#[tokio::test]
async fn a_stopping_server_finishes_what_is_under_way() {
    let config = format!(
        "[components.loop]\nsource = {:?}\nroute = \"/loop\"\nsettings = {{ attack = \"loop\" }}\n\
         limits = {{ guest_ms = 2000 }}\n",
        hostile()
    );
    let mut server = Server::start(Arc::new(load(&config))).await;
    let under_way = tokio::spawn(answer(server.post("/loop").json(&json!({ "input": "x" }))));
    tokio::time::sleep(Duration::from_millis(500)).await;
    server.stop();
    let (status, body): (StatusCode, Value) = under_way.await.unwrap();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::GATEWAY_TIMEOUT, &json!("guest_time")));
    server.stopped().await.unwrap();
}
