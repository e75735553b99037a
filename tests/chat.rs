use std::sync::Arc;

use infer_control::registry::Registry;
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, answer, eventually, load};

const TINY: &str = "[models.tiny]\nsource = \"tests/data/language/qwen2-q6_k.gguf\"\nthreads = 1\npacked_cache = false\n\
     [models.classifier]\nsource = \"builtin:toxic-bilstm\"\nsessions = 1\n";

const CHAT: &str = "/v1/chat/completions";

async fn tiny() -> Server {
    Server::start(Arc::new(load(TINY))).await
}

/// A chat request with one turn and the members of `more`.
#[expect(clippy::needless_pass_by_value, reason = "a json! literal at every call")]
fn chat(more: Value) -> Value {
    let mut body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Name a colour." }],
        "max_tokens": 8, "temperature": 0 });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The events of a stream, and whether it ended with `[DONE]`.
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
async fn streamed_chat_equals_the_whole_answer() {
    let server = tiny().await;
    let (status, whole) =
        answer(server.post(CHAT).json(&chat(json!({ "logprobs": true, "top_logprobs": 2 })))).await;
    assert_eq!(status, StatusCode::OK, "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let reply = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(reply.len() as u64, whole["usage"]["completion_tokens"].as_u64().unwrap());
    for token in reply {
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
    // The first answer filled the prefix cache.
    assert!(usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0, "{usage}");
}

#[tokio::test]
async fn text_is_continued() {
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
async fn seed_determines_the_answer() {
    let server = tiny().await;
    let say = async |seed: i64| {
        let body = chat(json!({ "temperature": 2, "max_tokens": 24, "seed": seed }));
        answer(server.post(CHAT).json(&body)).await.1["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(say(7).await, say(7).await);
    assert_ne!(say(7).await, say(8).await);
}

#[tokio::test]
async fn errors_precede_the_stream() {
    let server = tiny().await;
    let long = "word ".repeat(20_000);
    let cases = [
        (
            json!({ "model": "classifier" }),
            StatusCode::NOT_FOUND,
            "unknown model `classifier`; expected one of `tiny`",
        ),
        (json!({ "temperature": -1 }), StatusCode::BAD_REQUEST, "`temperature` is -1"),
        (json!({ "max_tokens": 0 }), StatusCode::BAD_REQUEST, "`max_tokens` is 0"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), StatusCode::BAD_REQUEST, "expected at most 20"),
        (json!({ "messages": [{ "role": "user", "content": long }] }), StatusCode::BAD_REQUEST, "context"),
        (json!({ "messages": [] }), StatusCode::BAD_REQUEST, "expected at least one turn"),
    ];
    for (members, expected, sentence) in cases {
        for stream in [false, true] {
            let mut body = chat(members.clone());
            body["stream"] = stream.into();
            let (status, reply) = answer(server.post(CHAT).json(&body)).await;
            let message = reply["error"]["message"].as_str().unwrap_or_default();
            assert!(status == expected && message.contains(sentence), "{members}: {status} {reply}");
        }
    }
}

#[tokio::test]
async fn received_turns_may_be_sent_back() {
    let server = tiny().await;
    let (status, first) = answer(server.post(CHAT).json(&chat(json!({})))).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    let mut own = first["choices"][0]["message"].clone();
    own["content"] = "blue".into();
    let turn = |more: Value| {
        let mut turn = json!({ "role": "assistant", "content": "blue" });
        turn.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        turn
    };
    // Turns as clients send them: OpenAI's package and its parsed answers, LiteLLM, OpenRouter,
    // DeepSeek.
    let openai = json!({ "refusal": null, "annotations": [], "audio": null, "function_call": null, "tool_calls": null });
    let litellm = json!({ "tool_calls": null, "function_call": null, "provider_specific_fields": { "refusal": null },
        "thinking_blocks": [], "images": [] });
    let turns = [
        own,
        turn(json!({ "refusal": null })),
        turn(openai),
        turn(json!({ "parsed": null, "refusal": null, "tool_calls": [] })),
        turn(litellm),
        turn(json!({ "reasoning": null, "reasoning_details": [], "reasoning_content": "It is blue." })),
        turn(json!({ "name": "assistant", "some_later_member": null })),
        turn(json!({ "content": [{ "type": "text", "text": "blue", "annotations": [] }] })),
        turn(json!({ "content": null, "refusal": "blue" })),
        turn(json!({ "content": [{ "type": "refusal", "refusal": "blue" }] })),
    ];
    let ask = async |turn: &Value| {
        let messages = json!([{ "role": "user", "content": "Name a colour." }, turn, { "role": "user", "content": "Another?" }]);
        answer(server.post(CHAT).json(&chat(json!({ "messages": messages })))).await
    };
    let (_, expected) = ask(&turn(json!({}))).await;
    let text = |body: &Value| body["choices"][0]["message"]["content"].clone();
    for turn in &turns {
        let (status, body) = ask(turn).await;
        assert_eq!((status, text(&body)), (StatusCode::OK, text(&expected)), "{turn}: {body}");
    }
    let call = json!([{ "id": "1", "type": "function", "function": { "name": "f", "arguments": "{}" } }]);
    for (turn, words) in [
        (turn(json!({ "tool_calls": call })), "`messages[1].tool_calls` is `["),
        (turn(json!({ "audio": { "id": "a" } })), "`messages[1].audio`"),
        (json!({ "role": "user", "content": null }), "`messages[1].content` is missing or null"),
        (json!({ "role": "tool", "tool_call_id": "1", "content": "a" }), "`messages[1].tool_call_id`"),
        (turn(json!({ "unknown": 1 })), "unknown field `unknown`"),
        (turn(json!({ "content": [{ "type": "image_url", "image_url": {} }] })), "has the type `image_url`"),
    ] {
        let (status, body) = ask(&turn).await;
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && message.contains(words), "{turn}: {status} {body}");
    }
}

#[tokio::test]
async fn defaults_that_clients_send_are_accepted() {
    let server = tiny().await;
    let text = |body: &Value| body["choices"][0]["message"]["content"].clone();
    let (_, expected) = answer(server.post(CHAT).json(&chat(json!({})))).await;
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": {} } });
    let cases = [
        json!({ "tools": null, "tool_choice": null, "response_format": null, "functions": null, "function_call": null }),
        json!({ "tools": [], "tool_choice": "auto", "functions": [], "function_call": "auto" }),
        json!({ "tools": [tool], "tool_choice": "none" }),
        json!({ "response_format": { "type": "text" } }),
        json!({ "n": 1, "stop": null, "logit_bias": {}, "user": "u", "metadata": {}, "store": false }),
        json!({ "n": null, "stop": [], "logit_bias": null, "user": null, "metadata": null, "store": null }),
        json!({ "service_tier": "auto", "stream_options": null, "seed": null, "frequency_penalty": 0, "presence_penalty": 0.0 }),
        json!({ "stream": null, "stream_options": { "include_usage": null }, "logprobs": null, "top_logprobs": null }),
        json!({ "parallel_tool_calls": true, "modalities": ["text"], "audio": null, "prediction": null }),
        json!({ "reasoning_effort": "medium", "verbosity": "medium", "web_search_options": null }),
        json!({ "max_tokens": null, "max_completion_tokens": 8, "top_p": null, "top_k": -1, "min_p": 0, "repetition_penalty": 1.0 }),
        json!({ "messages": [{ "role": "user", "content": "Name a colour.", "name": null, "refusal": null, "tool_calls": [] }] }),
        json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "Name a colour.", "cache_control": {} }] }] }),
        json!({ "a_later_member": null }),
    ];
    for members in cases {
        let (status, body) = answer(server.post(CHAT).json(&chat(members.clone()))).await;
        assert_eq!((status, text(&body)), (StatusCode::OK, text(&expected)), "{members}: {body}");
    }
    let system = |role: &str| json!({ "messages": [{ "role": role, "content": "Be brief." }, { "role": "user", "content": "Hi" }] });
    let (status, body) = answer(server.post(CHAT).json(&chat(system("developer")))).await;
    let (_, expected) = answer(server.post(CHAT).json(&chat(system("system")))).await;
    assert_eq!((status, text(&body)), (StatusCode::OK, text(&expected)), "{body}");
    let plain = json!({ "model": "tiny", "prompt": "Once upon", "max_tokens": 3, "temperature": 0, "best_of": 1, "echo": false,
        "suffix": null, "logprobs": null, "logit_bias": null, "n": 1, "user": "u", "stream_options": null });
    let (status, body) = answer(server.post("/v1/completions").json(&plain)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn answers_have_the_requested_format() {
    let server = tiny().await;
    let schema = json!({ "type": "object", "additionalProperties": false, "required": ["label"],
        "properties": { "label": { "enum": ["safe", "unsafe"] } } });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "verdict", "schema": schema } });
    let request = json!({ "response_format": format, "max_tokens": 100, "temperature": 1, "logprobs": true });
    for _ in 0..4 {
        let (status, body) = answer(server.post(CHAT).json(&chat(request.clone()))).await;
        assert_eq!(
            (status, &body["choices"][0]["finish_reason"]),
            (StatusCode::OK, &json!("stop")),
            "{body}"
        );
        let text = body["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap();
        assert!(value == json!({ "label": "safe" }) || value == json!({ "label": "unsafe" }), "{text}");
    }
    let colours = json!({ "response_format": { "type": "enum", "enum": ["red", "blue"] } });
    let (_, body) = answer(server.post(CHAT).json(&chat(colours))).await;
    assert!(["red", "blue"].contains(&body["choices"][0]["message"]["content"].as_str().unwrap()), "{body}");
    let wrong =
        json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "type": "x" } } } });
    let (status, body) = answer(server.post(CHAT).json(&chat(wrong))).await;
    let message = body["error"]["message"].as_str().unwrap_or_default();
    assert!(
        status == StatusCode::BAD_REQUEST && message.contains("the format of the answer"),
        "{status} {body}"
    );
}

#[tokio::test]
async fn unsupported_members_are_rejected() {
    let server = tiny().await;
    let tool = json!({ "type": "function", "function": { "name": "f" } });
    let cases = [
        (json!({ "tools": [tool] }), "tools", "the models call no tools"),
        (json!({ "tool_choice": "required" }), "tool_choice", "`none` or `auto`"),
        (json!({ "functions": [{}] }), "functions", "the models call no tools"),
        (json!({ "function_call": { "name": "f" } }), "function_call", "`none` or `auto`"),
        (json!({ "logit_bias": { "5": -100 } }), "logit_bias", "no bias"),
        (json!({ "modalities": ["text", "audio"] }), "modalities", "only text"),
        (json!({ "audio": { "voice": "alloy" } }), "audio", "only text"),
        (json!({ "web_search_options": {} }), "web_search_options", "has no web search"),
        (json!({ "reasoning_effort": "high" }), "reasoning_effort", "do not reason"),
        (json!({ "verbosity": "low" }), "verbosity", "`medium`"),
        (json!({ "best_of": 2 }), "best_of", "expected 1"),
        (json!({ "echo": true }), "echo", "expected false"),
        (json!({ "suffix": "x" }), "suffix", "only at their end"),
        (json!({ "min_p": 0.1 }), "min_p", "expected 0"),
        (json!({ "repetition_penalty": 1.1 }), "repetition_penalty", "expected 1"),
        (json!({ "n": 2 }), "n", "expected 1"),
        (json!({ "top_k": -2 }), "top_k", "is -2"),
        (json!({ "temperature": "hot" }), "temperature", "invalid type: string"),
    ];
    for (members, param, words) in cases {
        let (status, body) = answer(server.post(CHAT).json(&chat(members.clone()))).await;
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && message.contains(words), "{members}: {status} {body}");
        assert_eq!(body["error"]["param"], param, "{members}: {body}");
    }
}

#[tokio::test]
async fn disconnected_client_frees_its_slot() {
    // A model that takes seconds for this answer, with memory for one session.
    let config = "[models.smollm2]\nsource = \"builtin:smollm2\"\nthreads = 1\nkv_bytes = 25165824\n";
    let registry: Arc<Registry> = Arc::new(load(config));
    let model = registry.models["smollm2"].clone();
    let server = Server::start(registry).await;
    let body = json!({ "model": "smollm2", "messages": [{ "role": "user", "content": "Tell me a very long story." }],
        "max_tokens": 480, "seed": 1, "stream": true });
    let mut response = server.post(CHAT).json(&body).send().await.unwrap();
    assert!(response.chunk().await.unwrap().is_some());
    drop(response);
    eventually(async || model.stats().skipped == 1).await;
    assert_eq!(model.stats().computed, 0);
}

#[tokio::test]
async fn absent_language_model_is_explained() {
    let server = Server::builtin().await;
    let (status, reply) = answer(server.post(CHAT).json(&chat(json!({ "model": "gpt" })))).await;
    let message = reply["error"]["message"].as_str().unwrap_or_default();
    assert!(
        status == StatusCode::NOT_FOUND && message.contains("no language model is configured; "),
        "{reply}"
    );
    assert!(message.contains("[models.NAME]") && message.contains("infer pull"), "{reply}");
}
