mod faults;
mod guards;
mod scripted;

use std::sync::Arc;

use infer_config::keys::KeyHash;
use infer_control::registry::Registry;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, answer, eventually, load};
use scripted::{Reply, Scripted, completion, event_stream, json_response, reply};

const CHAT: &str = "/v1/chat/completions";

/// The section of an upstream at `address` whose model `remote` is `there`.
fn section(address: &str, more: &str) -> String {
    format!("[upstreams.u]\nurl = \"http://{address}/v1\"\nmodels = {{ remote = \"there\" }}\n{more}\n")
}

/// A gateway in front of `upstream`, and its registry.
async fn gateway(upstream: &Scripted, more: &str) -> (Server, Arc<Registry>) {
    let registry = Arc::new(load(&section(&upstream.address, more)));
    (Server::start(registry.clone()).await, registry)
}

fn chat(more: &Value) -> Value {
    let mut body = json!({ "model": "remote", "messages": [{ "role": "user", "content": "Hi" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn metrics(server: &Server) -> String {
    server.get("/metrics").send().await.unwrap().text().await.unwrap()
}

/// Waits until a request holds nothing any more.
async fn nothing_is_held(registry: &Registry) {
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
}

#[tokio::test]
async fn second_server_answers_through_the_first() {
    let tiny = "[models.there]\nsource = \"tests/data/language/qwen2-q6_k.gguf\"\nthreads = 1\npacked_cache = false\n";
    let key = format!("[keys.gateway]\nhash = \"{}\"\n", KeyHash::of("secret"));
    let upstream = Server::start(Arc::new(load(&format!("{tiny}{key}")))).await;
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("key");
    std::fs::write(&key_file, "secret\n").unwrap();
    let more = format!("key_file = {key_file:?}\ninput_price = 500000.0\noutput_price = 1000000.0");
    let registry = Arc::new(load(&section(upstream.address(), &more)));
    let server = Server::start(registry.clone()).await;

    let request = |model: &str, more: &Value| {
        let mut body = chat(&json!({ "model": model, "max_tokens": 6, "temperature": 0 }));
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let without_id = |mut body: Value| {
        body["id"] = Value::Null;
        body["created"] = Value::Null;
        // The second request finds the prompt of the first one in the cache.
        body["usage"]["prompt_tokens_details"] = Value::Null;
        body["infer"]["timings"] = Value::Null;
        body
    };
    let (_, expected) =
        answer(upstream.post(CHAT).bearer_auth("secret").json(&request("there", &json!({})))).await;
    let (status, found) = answer(server.post(CHAT).json(&request("remote", &json!({})))).await;
    assert_eq!((status, without_id(found.clone())), (StatusCode::OK, without_id(expected)));

    let members = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let response = server.post(CHAT).json(&request("remote", &members)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut events: Vec<_> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    assert_eq!(events.pop(), Some("[DONE]"), "{text}");
    let events: Vec<Value> = events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let delta = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    let streamed: String = events.iter().filter_map(delta).collect();
    assert_eq!(found["choices"][0]["message"]["content"], *streamed);

    let completion = json!({ "model": "remote", "prompt": "Once upon", "max_tokens": 3, "temperature": 0 });
    let (status, body) = answer(server.post("/v1/completions").json(&completion)).await;
    assert_eq!((status, body["object"].as_str()), (StatusCode::OK, Some("text_completion")), "{body}");

    // An error of the request is explained by the upstream.
    let (status, body) = answer(server.post(CHAT).json(&request("remote", &json!({ "n": 2 })))).await;
    assert_eq!((status, body["error"]["param"].as_str()), (StatusCode::BAD_REQUEST, Some("n")), "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("upstream `u`: `n` is 2"), "{message}");

    let (_, list) = answer(server.get("/v1/models")).await;
    assert_eq!(list["data"][0]["id"], "remote", "{list}");
    assert_eq!((&list["data"][0]["kind"], &list["data"][0]["upstream"]), (&json!("upstream"), &json!("u")));

    let usage = |body: &Value| {
        let count = |name: &str| body["usage"][name].as_u64().unwrap();
        [count("prompt_tokens"), count("completion_tokens")]
    };
    let all = [usage(&found), usage(events.last().unwrap()), usage(&body_or(&server, &completion).await)];
    let text = metrics(&server).await;
    let [input, output] = [0, 1].map(|kind| all.iter().map(|usage| usage[kind]).sum::<u64>() + all[2][kind]);
    let cost = 0.5 * input as f64 + output as f64;
    for line in [
        "infer_upstream_requests_total{upstream=\"u\",key=\"\",outcome=\"ok\"} 4".to_owned(),
        "infer_upstream_requests_total{upstream=\"u\",key=\"\",outcome=\"rejected\"} 1".to_owned(),
        format!("infer_upstream_tokens_total{{upstream=\"u\",key=\"\",kind=\"input\"}} {input}"),
        format!("infer_upstream_tokens_total{{upstream=\"u\",key=\"\",kind=\"output\"}} {output}"),
        format!("infer_upstream_cost_total{{upstream=\"u\",key=\"\"}} {cost:?}"),
        "infer_upstream_breaker_state{upstream=\"u\"} 0".to_owned(),
        "infer_upstream_first_byte_seconds_count{upstream=\"u\"} 5".to_owned(),
    ] {
        assert!(text.contains(&line), "no `{line}` in {text}");
    }
    nothing_is_held(&registry).await;
}

/// The answer to a completion, which is the same each time.
async fn body_or(server: &Server, completion: &Value) -> Value {
    answer(server.post("/v1/completions").json(completion)).await.1
}

#[tokio::test]
async fn only_allowed_headers_and_all_members_are_forwarded() {
    let mut response = json_response("200 OK", &completion());
    let headers = b"x-request-id: theirs\r\nset-cookie: a=b\r\nserver: theirs\r\n";
    let at = response.windows(2).position(|pair| pair == b"\r\n").unwrap() + 2;
    response.splice(at..at, headers.iter().copied());
    let upstream = Scripted::start(vec![Reply::Keep(response)]).await;
    let registry = load(&format!(
        "{}[keys.alice]\nhash = \"{}\"\n",
        section(&upstream.address, ""),
        KeyHash::of("alices-key")
    ));
    let server = Server::start(Arc::new(registry)).await;
    let body = "{ \"tools\": [{\"type\":\"function\"}],\"n\":2.0, \"model\" : \"remote\",\n\"made_up\":[1,  2],\"stream\":false}";
    let response = server
        .post(CHAT)
        .bearer_auth("alices-key")
        .header("cookie", "session=1")
        .header("x-forwarded-for", "192.0.2.1")
        .header("x-custom", "1")
        .header("x-request-id", "ours")
        .body(body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut names: Vec<_> = response.headers().keys().map(|name| name.as_str().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["content-length", "content-type", "date", "x-request-id", "x-upstream-request-id"]);
    assert_eq!(response.headers()["x-upstream-request-id"], "theirs");
    assert_eq!(response.text().await.unwrap(), completion());
    let sent = upstream.requests().remove(0);
    let (head, sent_body) = sent.split_once("\r\n\r\n").unwrap();
    assert_eq!(sent_body, body.replace("\"remote\"", "\"there\""));
    let mut lines: Vec<_> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/chat/completions HTTP/1.1");
    let mut names: Vec<_> = lines.iter().map(|line| line.split(':').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "content-length", "content-type", "host", "user-agent"]);
}

#[tokio::test]
async fn key_permits_models_of_upstreams() {
    let upstream = Scripted::start(vec![Reply::Keep(json_response("200 OK", &completion()))]).await;
    let key = |name: &str, models: &str| {
        format!("[keys.{name}]\nhash = \"{}\"\nmodels = {models}\n", KeyHash::of(name))
    };
    let config = section(&upstream.address, "") + &key("alice", "[\"remote\"]") + &key("bob", "[]");
    let server = Server::start(Arc::new(load(&config))).await;
    let ask = |key: &'static str| answer(server.post(CHAT).bearer_auth(key).json(&chat(&json!({}))));
    assert_eq!(ask("alice").await.0, StatusCode::OK);
    let (status, body) = ask("bob").await;
    assert_eq!((status, body["error"]["code"].as_str()), (StatusCode::NOT_FOUND, Some("model_not_found")));
    let (_, list) = answer(server.get("/v1/models").bearer_auth("bob")).await;
    assert_eq!(list["data"], json!([]));
    let unknown = chat(&json!({ "model": "other" }));
    let (_, body) = answer(server.post(CHAT).bearer_auth("alice").json(&unknown)).await;
    assert!(body["error"]["message"].as_str().unwrap().contains("expected one of `remote`"), "{body}");
    assert_eq!(upstream.requests().len(), 1);
    assert!(metrics(&server).await.contains("key=\"alice\",outcome=\"ok\"} 1"));
}

#[tokio::test]
async fn connections_are_kept_and_limited() {
    let whole = Reply::Keep(json_response("200 OK", &completion()));
    let stream =
        Reply::Keep(event_stream(&["data: {\"choices\":[]}\n\n", ": hello\n\n", "data: [DONE]\n\n"]));
    let upstream = Scripted::start(vec![whole.clone(), stream, whole, Reply::Hang(Vec::new())]).await;
    let (server, registry) = gateway(&upstream, "connections = 1").await;
    assert_eq!(answer(server.post(CHAT).json(&chat(&json!({})))).await.0, StatusCode::OK);
    let response = server.post(CHAT).json(&chat(&json!({ "stream": true }))).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "data: {\"choices\":[]}\n\ndata: [DONE]\n\n");
    eventually(async || answer(server.post(CHAT).json(&chat(&json!({})))).await.0 == StatusCode::OK).await;
    assert_eq!(upstream.connections(), 1, "the connection was kept");
    // The only connection is in use.
    let hanging = tokio::spawn(server.post(CHAT).json(&chat(&json!({}))).send());
    eventually(async || upstream.requests().len() == 4).await;
    let (status, body) = answer(server.post(CHAT).json(&chat(&json!({})))).await;
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (StatusCode::TOO_MANY_REQUESTS, Some("upstream_busy"))
    );
    // A client that goes away cancels the upstream's request, and frees the connection.
    hanging.abort();
    upstream.closed(1).await;
    nothing_is_held(&registry).await;
    assert!(metrics(&server).await.contains("outcome=\"cancelled\"} 1"));
}

#[tokio::test]
async fn client_that_leaves_a_stream_closes_the_upstream() {
    let first =
        reply("200 OK", "text/event-stream", "transfer-encoding: chunked\r\n", "b\r\ndata: {}\r\n\r\n\r\n");
    let upstream = Scripted::start(vec![Reply::Hang(first)]).await;
    let (server, registry) = gateway(&upstream, "").await;
    let mut response = server.post(CHAT).json(&chat(&json!({ "stream": true }))).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "data: {}\n\n");
    drop(response);
    upstream.closed(1).await;
    nothing_is_held(&registry).await;
}

#[tokio::test]
async fn failed_attempts_are_retried_within_the_budget() {
    let unavailable =
        reply("503 Service Unavailable", "text/plain", "retry-after: 0\r\ncontent-length: 0\r\n", "");
    let ok = Reply::Keep(json_response("200 OK", &completion()));
    let replies = vec![Reply::Keep(unavailable.clone()), Reply::Close(Vec::new()), ok];
    let upstream = Scripted::start(replies).await;
    let (server, _) = gateway(&upstream, "retries = 2\nbreaker_failures = 100").await;
    let (status, body) = answer(server.post(CHAT).json(&chat(&json!({})))).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(upstream.requests().len(), 3);
    assert!(metrics(&server).await.contains("infer_upstream_retries_total{upstream=\"u\"} 2"));

    // A budget of 0 % permits none.
    let upstream = Scripted::start(vec![Reply::Keep(unavailable)]).await;
    let (server, _) = gateway(&upstream, "retries = 2\nretry_percent = 0.0").await;
    let response = server.post(CHAT).json(&chat(&json!({}))).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((upstream.requests().len(), &response.headers()["retry-after"]), (1, &"1".parse().unwrap()));

    // A wait beyond the request's deadline is not begun.
    let later =
        reply("429 Too Many Requests", "text/plain", "retry-after: 7000\r\ncontent-length: 0\r\n", "");
    let upstream = Scripted::start(vec![Reply::Keep(later)]).await;
    let (server, _) = gateway(&upstream, "").await;
    let response = server.post(CHAT).json(&chat(&json!({}))).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(
        (upstream.requests().len(), &response.headers()["retry-after"]),
        (1, &"7000".parse().unwrap())
    );
}

#[tokio::test]
async fn breaker_fails_fast_and_recovers() {
    let failing = Reply::Keep(reply("500 Internal Server Error", "text/plain", "content-length: 0\r\n", ""));
    let upstream = Scripted::start(vec![failing.clone()]).await;
    let (server, _) = gateway(&upstream, "breaker_failures = 3\nbreaker_ms = 3600000").await;
    for _ in 0..3 {
        assert_eq!(answer(server.post(CHAT).json(&chat(&json!({})))).await.0, StatusCode::BAD_GATEWAY);
    }
    let response = server.post(CHAT).json(&chat(&json!({}))).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((3_000..=3_600).contains(&seconds), "{seconds}");
    let body: Value = response.json().await.unwrap();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("upstream `u` has failed several times in a row; it is tried again in 3"),
        "{body}"
    );
    assert_eq!(upstream.requests().len(), 3);
    assert!(metrics(&server).await.contains("infer_upstream_breaker_state{upstream=\"u\"} 2"));

    let ok = Reply::Keep(json_response("200 OK", &completion()));
    let upstream = Scripted::start(vec![failing, ok]).await;
    let (server, _) = gateway(&upstream, "breaker_failures = 1\nbreaker_ms = 1").await;
    assert_eq!(answer(server.post(CHAT).json(&chat(&json!({})))).await.0, StatusCode::BAD_GATEWAY);
    eventually(async || answer(server.post(CHAT).json(&chat(&json!({})))).await.0 == StatusCode::OK).await;
    assert!(metrics(&server).await.contains("infer_upstream_breaker_state{upstream=\"u\"} 0"));
}
