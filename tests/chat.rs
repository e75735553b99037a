use std::sync::Arc;

use infer::app::App;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, answer, eventually, load};

const TINY: &str = "[models.tiny]\nsource = \"tests/data/language/qwen2-q6_k.gguf\"\nthreads = 1\npacked_cache = false\n\
     [models.classifier]\nsource = \"builtin:toxic-bilstm\"\nsessions = 1\n";

const CHAT: &str = "/v1/chat/completions";

async fn tiny() -> Server {
    Server::start(Arc::new(load(TINY))).await
}

/// A chat of one turn, with `more` members.
#[expect(clippy::needless_pass_by_value, reason = "a json! literal at every call")]
fn chat(more: Value) -> Value {
    let mut body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Name a colour." }],
        "max_tokens": 8, "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The events of a stream: objects, and whether the last said that it is done.
async fn events(request: RequestBuilder) -> (Vec<Value>, bool) {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.text().await.unwrap();
    let mut lines: Vec<_> =
        text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
    let done = lines.pop_if(|last| *last == "[DONE]").is_some();
    (lines.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect(), done)
}

#[tokio::test]
async fn a_chat_is_answered_at_once_and_as_a_stream_alike() {
    let server = tiny().await;
    let (status, whole) =
        answer(server.post(CHAT).json(&chat(json!({ "logprobs": true, "top_logprobs": 2 })))).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let told = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(told.len() as u64, whole["usage"]["completion_tokens"].as_u64().unwrap());
    for token in told {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["logprob"]), (2, &token["logprob"]), "greedy takes the likeliest");
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
    let stream = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let (events, done) = events(server.post(CHAT).json(&chat(stream))).await;
    assert!(done);
    let delta =
        |event: &Value| event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned();
    assert_eq!(events.iter().map(delta).collect::<String>(), text);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let reasons: Vec<_> =
        events.iter().filter_map(|event| event["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons, [whole["choices"][0]["finish_reason"].as_str().unwrap()]);
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], whole["usage"]["completion_tokens"]);
    // The first answer computed the prompt.
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0, "{usage}");
}

#[tokio::test]
async fn a_text_is_continued() {
    let server = tiny().await;
    let body =
        json!({ "model": "tiny", "prompt": "Once upon", "max_tokens": 5, "temperature": 0, "logprobs": 1 });
    let (status, whole) = answer(server.post("/v1/completions").json(&body)).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    let choice = &whole["choices"][0];
    let tokens = choice["logprobs"]["tokens"].as_array().unwrap().len();
    assert_eq!(tokens as u64, whole["usage"]["completion_tokens"].as_u64().unwrap());
    assert_eq!(choice["logprobs"]["text_offset"][0], 0);
    let mut streamed = body.clone();
    streamed["stream"] = true.into();
    let (events, done) = events(server.post("/v1/completions").json(&streamed)).await;
    let text: String =
        events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned()).collect();
    assert!(done);
    assert_eq!(text, choice["text"].as_str().unwrap());
}

#[tokio::test]
async fn seeds_decide_the_draws() {
    let server = tiny().await;
    let say = async |seed: i64| {
        let body = chat(json!({ "temperature": 2, "max_tokens": 24, "seed": seed }));
        answer(server.post(CHAT).json(&body)).await.1["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(say(7).await, say(7).await);
    assert_ne!(say(7).await, say(8).await);
}

#[tokio::test]
async fn what_is_wrong_is_named_before_a_stream_begins() {
    let server = tiny().await;
    let long = "word ".repeat(20_000);
    let cases = [
        (
            json!({ "model": "classifier" }),
            StatusCode::NOT_FOUND,
            "there is no model `classifier` here; expected one of `tiny`",
        ),
        (json!({ "temperature": -1 }), StatusCode::BAD_REQUEST, "`temperature` is -1"),
        (json!({ "max_tokens": 0 }), StatusCode::BAD_REQUEST, "`max_tokens` is 0"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), StatusCode::BAD_REQUEST, "expected at most 20"),
        (json!({ "messages": [{ "role": "user", "content": long }] }), StatusCode::BAD_REQUEST, "context"),
        (json!({ "messages": [] }), StatusCode::BAD_REQUEST, "expected one turn at least"),
    ];
    for (members, expected, sentence) in cases {
        for stream in [false, true] {
            let mut body = chat(members.clone());
            body["stream"] = stream.into();
            let (status, told) = answer(server.post(CHAT).json(&body)).await;
            let message = told["error"]["message"].as_str().unwrap_or_default();
            assert!(status == expected && message.contains(sentence), "{members}: {status} {told}");
        }
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_frees_what_it_held() {
    // A model that takes seconds for such an answer, and has memory for one of them.
    let config = "[models.smollm2]\nsource = \"builtin:smollm2\"\nthreads = 1\nkv_bytes = 25165824\n";
    let app: Arc<App> = Arc::new(load(config));
    let model = app.models["smollm2"].clone();
    let server = Server::start(app).await;
    let body = json!({ "model": "smollm2", "messages": [{ "role": "user", "content": "Tell me a very long story." }],
        "max_tokens": 480, "seed": 1, "stream": true });
    let mut response = server.post(CHAT).json(&body).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    eventually(async || model.stats().skipped == 1).await;
    assert_eq!(model.stats().computed, 0);
}
