use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::harness::{BUILTIN, Server, answer, eventually, hostile, load, request_arrives};

/// Generous timeout for a busy machine; only a failing test reaches it.
const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn health_models_and_unknown_paths_answer() {
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
async fn models_route_lists_loaded_models() {
    let server = Server::builtin().await;
    let (status, body) = answer(server.get("/v1/models")).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["object"], "list");
    let entry = |id: &str| {
        let data = body["data"].as_array().unwrap();
        data.iter().find(|entry| entry["id"] == id).unwrap_or_else(|| panic!("no `{id}` in {body}")).clone()
    };
    let model = entry("moderation-encoder");
    assert_eq!(model["kind"], "model");
    assert_eq!(model["hash"], BUILTIN.models["moderation-encoder"].hash());
    assert_eq!(entry("classify")["route"], "/classify");
}

#[tokio::test]
async fn request_id_is_propagated_or_generated() {
    let server = Server::builtin().await;
    let id = |response: &reqwest::Response| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let propagated = server.get("/healthz").header("x-request-id", "abc-123").send().await.unwrap();
    assert_eq!(id(&propagated), "abc-123");
    let made = [server.get("/healthz").send().await.unwrap(), server.get("/nothing").send().await.unwrap()];
    assert_ne!(id(&made[0]), id(&made[1]));
    let refused = server.get("/healthz").header("x-request-id", "x".repeat(200)).send().await.unwrap();
    assert_eq!(id(&refused).len(), 32);
}

#[tokio::test]
async fn body_above_the_limit_is_413() {
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
async fn body_that_stalls_times_out() {
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
async fn shutdown_finishes_requests_in_flight() {
    let app = Arc::new(load(&endless("", 2_000)));
    let mut server = Server::start(app.clone()).await;
    let under_way = tokio::spawn(answer(server.post("/loop").json(&json!({ "input": "x" }))));
    request_arrives(&app).await;
    server.stop();
    let (status, body): (StatusCode, Value) = under_way.await.unwrap();
    assert_eq!((status, &body["error"]["code"]), (StatusCode::GATEWAY_TIMEOUT, &json!("guest_time")));
    server.stopped().await.unwrap();
}

/// An endless guest on /loop, limited to `guest_ms`.
fn endless(server: &str, guest_ms: u32) -> String {
    format!(
        "[server]\n{server}\n[components.loop]\nsource = {:?}\nroute = \"/loop\"\nsettings = {{ attack = \"loop\" }}\n\
         limits = {{ guest_ms = {guest_ms} }}\n",
        hostile()
    )
}

#[tokio::test]
async fn shutdown_ends_at_the_drain_time() {
    let app = Arc::new(load(&endless("drain_ms = 200\ndeadline_ms = 3600000", 600_000)));
    let mut server = Server::start(app.clone()).await;
    let pending = server.post("/loop").json(&json!({ "input": "x" })).send();
    let pending = tokio::spawn(pending);
    request_arrives(&app).await;
    server.stop();
    timeout(LONG, server.stopped()).await.expect("the server stops").unwrap();
    assert!(pending.await.unwrap().is_err(), "a request that was dropped has no answer");
}

#[tokio::test]
async fn idle_connection_does_not_delay_shutdown() {
    let mut server = Server::start(Arc::new(load("[server]\ndrain_ms = 600000\nidle_ms = 600000"))).await;
    let mut idle = TcpStream::connect(server.address()).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut status = [0; 12];
    idle.read_exact(&mut status).await.unwrap();
    let silent = TcpStream::connect(server.address()).await.unwrap();
    server.stop();
    timeout(LONG, server.stopped()).await.expect("the server stops").unwrap();
    drop((idle, silent));
}

#[tokio::test]
async fn full_queue_is_unready_until_it_recovers() {
    let limits = "instances = 1\nwaiting = 2\nqueue_ms = 60000\ndeadline_ms = 60000";
    let server = Server::start(Arc::new(load(&endless(limits, 2_000)))).await;
    let ask = || answer(server.post("/loop").json(&json!({ "input": "x" })));
    let requests = std::array::from_fn::<_, 3, _>(|_| tokio::spawn(ask()));
    eventually(async || {
        let (status, body) = answer(server.get("/readyz")).await;
        status == StatusCode::SERVICE_UNAVAILABLE
            && body["error"]["message"].as_str().unwrap().contains("queue stays full")
    })
    .await;
    assert_eq!(answer(server.get("/healthz")).await.0, StatusCode::OK, "it lives");
    let (status, body) = ask().await;
    assert!(
        status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::GATEWAY_TIMEOUT,
        "{status} {body}"
    );
    for request in requests {
        assert_eq!(request.await.unwrap().0, StatusCode::GATEWAY_TIMEOUT);
    }
    eventually(async || answer(server.get("/readyz")).await.0 == StatusCode::OK).await;
}

#[tokio::test]
async fn overloaded_server_sheds_excess_requests() {
    let server = Server::start(Arc::new(load(
        "[server]\ninstances = 2\nwaiting = 4\n[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
         models = { text = \"toxic-bilstm\" }\n",
    )))
    .await;
    let text = "a post of some length, which takes a while to judge ".repeat(40);
    let mut requests = JoinSet::new();
    for _ in 0..200 {
        requests.spawn(server.post("/moderate").json(&json!({ "input": text })).send());
    }
    let (mut served, mut shed) = (0, 0);
    while let Some(response) = requests.join_next().await {
        let response = response.unwrap().unwrap();
        match response.status() {
            StatusCode::OK => served += 1,
            StatusCode::TOO_MANY_REQUESTS => {
                assert_eq!(response.headers()["retry-after"], "1");
                shed += 1;
            }
            other => panic!("{other}: {}", response.text().await.unwrap()),
        }
    }
    assert!(served >= 6 && shed >= 6, "{served} served, {shed} shed");
    eventually(async || server.moderate(&json!({ "input": text })).await.0 == StatusCode::OK).await;
}

#[tokio::test]
async fn metrics_count_requests_and_calls() {
    let server = Server::start(Arc::new(load(infer_config::CONFIG))).await;
    for (input, expected) in [(json!("hello"), StatusCode::OK), (json!(7), StatusCode::BAD_REQUEST)] {
        assert_eq!(server.moderate(&json!({ "input": input })).await.0, expected);
    }
    assert_eq!(server.get("/nothing").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let response = server.get("/metrics").send().await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let text = response.text().await.unwrap();
    for line in [
        "infer_requests_total{route=\"/moderate\",status=\"200\"} 1",
        "infer_requests_total{route=\"/moderate\",status=\"400\"} 1",
        "infer_requests_total{route=\"none\",status=\"404\"} 1",
        "infer_request_seconds_count{route=\"/moderate\"} 2",
        "infer_component_calls_total{component=\"moderate\",outcome=\"ok\"} 1",
        "infer_component_stage_seconds_count{component=\"moderate\",stage=\"compute\"} 1",
        "infer_model_jobs_total{model=\"moderation-encoder\",kind=\"computed\"} 1",
        "infer_model_queue_jobs{model=\"moderation-encoder\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "`{line}` is not in\n{text}");
    }
    let resident = text.lines().find_map(|line| line.strip_prefix("infer_resident_bytes ")).unwrap();
    assert!(resident.parse::<f64>().unwrap() > 1e7, "{resident}");
    assert!(text.ends_with("# EOF\n"));
}
