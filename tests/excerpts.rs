use std::fs::{self, File};
use std::process::Stdio;
use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Process, Server, eventually, free_address, infer, ready};

/// Size of the longest texts in bodies, in bytes.
const LONG: usize = 3 << 20;

/// Size of the longest texts in a request's head, in bytes.
const LONG_HEAD: usize = 30_000;

/// Maximum size of an error response and of its headers, in bytes.
const MAX: usize = 4096;

/// An invalid request.
struct Wrong {
    method: Method,
    target: String,
    header: Option<(&'static str, String)>,
    body: String,
}

#[expect(clippy::needless_pass_by_value, reason = "bodies are written in place")]
fn post(target: &str, body: impl ToString) -> Wrong {
    Wrong { method: Method::POST, target: target.to_owned(), header: None, body: body.to_string() }
}

fn get(target: String) -> Wrong {
    Wrong { method: Method::GET, target, header: None, body: String::new() }
}

/// Requests with a long text in each place that an error could quote.
fn wrong() -> Vec<Wrong> {
    let (long, head) = ("x".repeat(LONG), "x".repeat(LONG_HEAD));
    let with = |key: &str, value: Value| {
        let mut object = serde_json::Map::new();
        object.insert(key.to_owned(), value);
        Value::Object(object)
    };
    let axes = vec!["2"; 1_500_000].join(",");
    let infer = "/v2/models/moderation-encoder/infer";
    let input = |name: &str, datatype: &str, shape: &str| {
        format!(r#"{{"inputs":[{{"name":"{name}","datatype":"{datatype}","shape":[{shape}],"data":[1]}}]}}"#)
    };
    let chat = |key: &str, value: Value| {
        let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "a" }] });
        body.as_object_mut().unwrap().insert(key.to_owned(), value);
        body
    };
    let turn = |turn: Value| json!({ "model": "m", "messages": [turn] });
    let analyze = "/v1alpha1/comments:analyze";
    let mut wrong = vec![
        post("/moderate", &long),
        post("/moderate", with(&long, json!(1))),
        post("/moderate", json!({ "input": 1, "model": 1, "infer": long })),
        post("/moderate", json!({ "input": "a", "infer": with(&long, json!(1)) })),
        post("/moderate", json!({ "input": "a", "infer": { "on_timeout": long } })),
        post("/moderate", json!({ "input": "a", "infer": { "deadline_ms": long } })),
        post("/moderate", json!({ "input": "a", "infer": { "thresholds": with(&long, json!(0.5)) } })),
        post("/moderate", json!({ "input": "a", "infer": { "thresholds": with(&long, json!(long)) } })),
        post("/moderate", json!({ "input": [{ "type": long }] })),
        post("/moderate", json!({ "input": [{ "type": "image_url", "image_url": { "url": long } }] })),
        post(
            "/moderate",
            json!({ "input": [{ "type": "image_url", "image_url": { "url": format!("data:{long}") } }] }),
        ),
        post("/v1/moderations", json!({ "input": "a", "model": long })),
        post(&format!("/moderate?mode={head}"), json!({ "input": "a" })),
        post(&format!("/moderate?{head}=1"), json!({ "input": "a" })),
        post(&format!("/classify?top={head}"), ""),
        post("/v1/chat/completions", with(&long, json!(1))),
        post("/v1/chat/completions", chat("model", json!(long))),
        post("/v1/chat/completions", chat(&long, json!(1))),
        post("/v1/chat/completions", chat("stream", json!(long))),
        post("/v1/chat/completions", chat("stop", json!({ "x": long }))),
        post("/v1/chat/completions", turn(json!({ "role": "user", "content": with(&long, json!(1)) }))),
        post(
            "/v1/chat/completions",
            turn(json!({ "role": "user", "content": [{ "type": long, "text": "a" }] })),
        ),
        post("/v1/chat/completions", turn(with(&long, json!(1)))),
        post("/v1/completions", json!({ "model": long, "prompt": "a" })),
        post("/v1/completions", json!({ "model": "m", "prompt": { "x": long } })),
        post("/v1/completions", json!({ "model": "m", "prompt": [long, 1] })),
        post(infer, &long),
        post(infer, input(&long, "INT32", "1")),
        post(infer, input("ids", &long, "1")),
        post(infer, input("ids", "INT32", &axes)),
        post(infer, input(&long, "INT64", "1,1")),
        post(infer, json!({ "inputs": [], "outputs": [{ "name": long }] })),
        post(infer, json!({ "inputs": long })),
        post(analyze, json!({ "comment": { "text": "a", "type": "x".repeat(100_000) } })),
        post(
            analyze,
            json!({ "comment": { "text": "a" }, "requestedAttributes": with(&"x".repeat(100_000), json!({})) }),
        ),
        post(
            analyze,
            json!({ "comment": { "text": "a" }, "requestedAttributes": { "TOXICITY": { "scoreType": "x".repeat(100_000) } } }),
        ),
        post(
            analyze,
            json!({ "comment": { "text": "a" }, "requestedAttributes": { "TOXICITY": {} }, "languages": vec!["x".repeat(20_000); 7] }),
        ),
        post(analyze, json!({ "comment": { "text": "a" }, "requestedAttributes": long })),
        get(format!("/{head}")),
        get(format!("/v1/models/{head}")),
        get(format!("/v2/models/{head}")),
        get(format!("/v2/models/moderation-encoder/versions/{head}")),
        Wrong { method: Method::from_bytes(head.as_bytes()).unwrap(), ..get("/moderate".to_owned()) },
    ];
    for (name, path) in [
        ("content-type", "/classify"),
        ("content-type", "/moderate"),
        ("content-encoding", "/moderate"),
        ("content-encoding", infer),
        ("inference-header-content-length", infer),
        ("idempotency-key", "/v1/moderations"),
        ("x-request-id", "/nothing"),
        ("traceparent", "/nothing"),
        ("authorization", "/moderate"),
    ] {
        wrong.push(Wrong { header: Some((name, head.clone())), ..post(path, "{}") });
    }
    wrong
}

async fn send(client: &Client, url: &str, wrong: &Wrong) -> reqwest::Response {
    let mut request = client.request(wrong.method.clone(), format!("{url}{}", wrong.target));
    if let Some((name, value)) = &wrong.header {
        request = request.header(*name, value);
    }
    request.body(wrong.body.clone()).send().await.unwrap()
}

#[tokio::test]
async fn long_text_is_cut_in_errors() {
    let server = Server::builtin().await;
    let (client, url) = (Client::new(), format!("http://{}", server.address()));
    for (index, wrong) in wrong().iter().enumerate() {
        let response = send(&client, &url, wrong).await;
        let (status, header) = (response.status(), wrong.header.as_ref().map(|(name, _)| *name));
        let shown = format!(
            "{index}: {:.20} {:.40} {header:?} {:.60} is {status}",
            wrong.method.as_str(),
            wrong.target,
            wrong.body
        );
        assert!(status.is_client_error(), "{shown}");
        let headers: usize =
            response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        assert!(headers < MAX, "{shown} with {headers} bytes of headers");
        let body = response.bytes().await.unwrap();
        assert!(body.len() < MAX, "{shown} with {} bytes", body.len());
    }
}

#[tokio::test]
async fn log_lines_are_bounded_and_json_stays_json() {
    let folder = tempfile::tempdir().unwrap();
    for format in ["text", "json"] {
        let address = free_address();
        let config = infer_config::CONFIG.replace("127.0.0.1:8080", &address);
        fs::write(folder.path().join("infer.toml"), config).unwrap();
        let log = folder.path().join(format);
        let mut command = infer(folder.path());
        command.args(["serve", "--log", "debug", "--log-format", format]);
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let _process = Process::new(command);
        let client = Client::new();
        eventually(async || ready(&client, &address).await).await;
        let wrong: Vec<_> = wrong().into_iter().filter(|wrong| wrong.body.len() < 1 << 20).collect();
        for wrong in &wrong {
            send(&client, &format!("http://{address}"), wrong).await;
        }
        eventually(async || fs::read_to_string(&log).unwrap().matches("answered").count() >= wrong.len())
            .await;
        for line in fs::read_to_string(&log).unwrap().lines() {
            assert!(line.len() < MAX, "{} bytes: {line:.100}", line.len());
            if format == "json" {
                let line: Value = serde_json::from_str(line).unwrap();
                assert!(
                    line["timestamp"].is_string() && line["level"].is_string() && line["target"].is_string()
                );
                if line["message"] == "answered" {
                    assert!(line["status"].is_u64() && line["span"]["path"].is_string(), "{line}");
                    assert_eq!(line["span"], line["spans"][0]);
                }
            }
        }
    }
}

/// The status of the answer, or `None` after a generous timeout.
async fn status(client: &Client, address: &str, path: &str) -> Option<StatusCode> {
    let request = client.get(format!("http://{address}{path}")).timeout(Duration::from_secs(30));
    request.send().await.ok().map(|response| response.status())
}

#[tokio::test]
async fn unread_log_stops_neither_answers_nor_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    fs::write(folder.path().join("infer.toml"), format!("[server]\nlisten = \"{address}\"\n")).unwrap();
    let mut command = infer(folder.path());
    command.args(["serve", "--log", "trace"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let client = Client::new();
    eventually(async || ready(&client, &address).await).await;
    // A pipe holds 64 KiB, which some hundred lines fill.
    for _ in 0..2_000 {
        assert_eq!(status(&client, &address, "/healthz").await, Some(StatusCode::OK));
    }
    let metrics = client.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("\ninfer_log_lines_dropped_total "), "{metrics}");
    assert!(std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
    let mut ended = None;
    eventually(async || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert!(ended.unwrap().success(), "{ended:?}");
}
