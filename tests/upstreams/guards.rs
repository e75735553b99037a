use reqwest::StatusCode;
use serde_json::{Value, json};

use super::scripted::{Reply, Scripted, completion, event_stream, json_response};
use super::{CHAT, chat, gateway, nothing_is_held};
use crate::harness::{answer, guest};

const REFUSAL: &str = "I cannot help with that.";

/// The section of a guard with a list of one phrase, for texts in `stages`.
fn guard(stages: &[&str], phrase: &str, more: &str) -> String {
    let stages: String = stages.iter().map(|stage| format!("{stage} = \"list\"\n")).collect();
    format!(
        "[chat.guard]\n{stages}hold_back_tokens = 8\nstride_tokens = 3\nwindow_tokens = 16\n{more}\n\
         [components.list]\nsource = \"{}\"\nsettings = {{ phrases = \"{phrase}\", category = \"words\" }}\n",
        guest("phrases")
    )
}

/// A stream of the words `w10` to `w59`, each in an event of its own.
fn words() -> Vec<u8> {
    let event = |word: u8| {
        let choice =
            json!({ "index": 0, "delta": { "content": format!("w{word} ") }, "finish_reason": null });
        format!("data: {}\n\n", json!({ "id": "x", "object": "chat.completion.chunk", "choices": [choice] }))
    };
    let last = json!({ "id": "x", "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let events: Vec<_> =
        (10..60).map(event).chain([format!("data: {last}\n\n"), "data: [DONE]\n\n".to_owned()]).collect();
    event_stream(&events.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test]
async fn planted_phrases_of_upstreams_are_never_streamed() {
    for start in (10..56).step_by(5) {
        let phrase = format!("{} w{} w{}", start % 10, start + 1, (start + 2) / 10);
        let clean: String = (10..start).map(|word| format!("w{word} ")).collect();
        for on_flag in ["block", "stop", "redact"] {
            let upstream = Scripted::start(vec![Reply::Keep(words())]).await;
            let config = guard(&["output"], &phrase, &format!("on_flag = \"{on_flag}\""));
            let (server, registry) = gateway(&upstream, &config).await;
            let response = server.post(CHAT).json(&chat(&json!({ "stream": true }))).send().await.unwrap();
            let text = response.text().await.unwrap();
            let events = text.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("{text}"));
            let events = events.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
            let events: Vec<Value> = events.map(|event| serde_json::from_str(event).unwrap()).collect();
            let delta = |event: &Value| {
                event["choices"][0]["delta"]["content"].as_str().unwrap_or_default().to_owned()
            };
            let streamed: String = events.iter().map(delta).collect();
            let sent = match on_flag {
                "block" => streamed.strip_suffix(REFUSAL).unwrap(),
                "stop" => &streamed,
                _ => streamed.split_once("[redacted]").unwrap().0,
            };
            // The phrase begins within the word `start`.
            let most = format!("{clean}w{}", start / 10);
            assert!(most.starts_with(sent), "{on_flag}, {phrase}: {streamed}");
            assert!(!streamed.contains(&phrase), "{on_flag}, {phrase}: {streamed}");
            let reasons: Vec<_> =
                events.iter().filter_map(|event| event["choices"][0]["finish_reason"].as_str()).collect();
            assert_eq!(reasons, [if on_flag == "redact" { "stop" } else { "content_filter" }], "{text}");
            let remark = &events.last().unwrap()["infer"]["guard"][0];
            assert_eq!((&remark["stage"], &remark["action"]), (&json!("output"), &json!(on_flag)), "{text}");
            assert_eq!(events.last().unwrap()["id"], "x");
            nothing_is_held(&registry).await;
        }
    }
}

#[tokio::test]
async fn each_choice_of_a_whole_answer_is_judged() {
    let choice = |index: u8, text: &str| json!({ "index": index, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" });
    let body = json!({ "id": "x", "made_up": 1.5, "choices": [choice(0, "all is well"), choice(1, "here is a red ship, far away")] });
    for (on_flag, content, reason) in [
        ("block", REFUSAL, "content_filter"),
        ("stop", "", "content_filter"),
        ("redact", "[redacted]", "stop"),
        ("annotate", "here is a red ship, far away", "stop"),
    ] {
        let upstream = Scripted::start(vec![Reply::Keep(json_response("200 OK", &body.to_string()))]).await;
        let (server, _) =
            gateway(&upstream, &guard(&["output"], "red ship", &format!("on_flag = \"{on_flag}\""))).await;
        let (status, found) = answer(server.post(CHAT).json(&chat(&json!({ "n": 2 })))).await;
        assert_eq!(status, StatusCode::OK, "{found}");
        assert_eq!(found["choices"][0], body["choices"][0], "{on_flag}");
        assert_eq!(
            (&found["choices"][1]["message"]["content"], &found["choices"][1]["finish_reason"]),
            (&json!(content), &json!(reason)),
            "{on_flag}"
        );
        assert_eq!((&found["id"], &found["made_up"]), (&json!("x"), &json!(1.5)));
        let remark = json!([{ "stage": "output", "action": on_flag, "categories": ["words"] }]);
        assert_eq!(found["infer"]["guard"], remark);
    }
    // A clean answer keeps its bytes.
    let upstream = Scripted::start(vec![Reply::Keep(json_response("200 OK", &completion()))]).await;
    let (server, _) = gateway(&upstream, &guard(&["input", "output"], "red ship", "")).await;
    let response = server.post(CHAT).json(&chat(&json!({}))).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), completion());
}

#[tokio::test]
async fn blocked_input_reaches_no_upstream() {
    let upstream = Scripted::start(vec![Reply::Keep(json_response("200 OK", &completion()))]).await;
    let (server, _) = gateway(&upstream, &guard(&["input"], "red ship", "")).await;
    let call =
        json!([{ "id": "c", "type": "function", "function": { "name": "find", "arguments": "a red ship" } }]);
    for message in [
        json!({ "role": "user", "content": "a Red Ship" }),
        json!({ "role": "user", "content": [{ "type": "text", "text": "a red ship" }] }),
        json!({ "role": "tool", "tool_call_id": "c", "content": "a red ship" }),
        json!({ "role": "assistant", "content": null, "tool_calls": call }),
    ] {
        let (status, found) = answer(server.post(CHAT).json(&chat(&json!({ "messages": [message] })))).await;
        assert_eq!(status, StatusCode::OK, "{found}");
        let choice = &found["choices"][0];
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (&json!(REFUSAL), &json!("content_filter"))
        );
        assert_eq!(found["model"], "remote");
        let body = chat(&json!({ "messages": [message], "stream": true }));
        let text = server.post(CHAT).json(&body).send().await.unwrap().text().await.unwrap();
        assert!(
            text.contains(REFUSAL) && text.contains("content_filter") && text.ends_with("data: [DONE]\n\n"),
            "{text}"
        );
    }
    let image =
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "data:," } }] }]);
    let (status, error) = answer(server.post(CHAT).json(&chat(&json!({ "messages": image })))).await;
    assert_eq!(
        (status, &error["error"]["param"]),
        (StatusCode::BAD_REQUEST, &json!("messages[0].content[0]"))
    );
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn redacted_input_is_what_the_upstream_reads() {
    let upstream = Scripted::start(vec![Reply::Keep(json_response("200 OK", &completion()))]).await;
    let (server, _) = gateway(&upstream, &guard(&["input"], "red ship", "on_flag = \"redact\"")).await;
    let messages =
        json!([{ "role": "user", "content": "a red ship" }, { "role": "user", "content": "Where?" }]);
    let (_, found) = answer(server.post(CHAT).json(&chat(&json!({ "messages": messages })))).await;
    assert_eq!(found["infer"]["guard"][0]["action"], "redact", "{found}");
    let requests = upstream.requests();
    let (_, body) = requests[0].split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        body["messages"],
        json!([{ "role": "user", "content": "[redacted]" }, { "role": "user", "content": "Where?" }])
    );
    assert_eq!(body["model"], "there");
}

#[tokio::test]
async fn several_streamed_answers_are_rejected() {
    let upstream = Scripted::start(vec![Reply::Keep(words())]).await;
    let (server, _) = gateway(&upstream, &guard(&["output"], "red ship", "")).await;
    let (status, error) = answer(server.post(CHAT).json(&chat(&json!({ "n": 2, "stream": true })))).await;
    assert_eq!((status, &error["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("n")), "{error}");
}

#[tokio::test]
async fn text_of_a_last_event_is_judged() {
    let events = |text: &str| {
        let choice = json!({ "index": 0, "delta": { "content": text }, "finish_reason": "length" });
        let usage = json!({ "prompt_tokens": 1, "completion_tokens": 2 });
        format!("data: {}\n\n", json!({ "id": "x", "choices": [choice], "usage": usage }))
    };
    for (text, reason) in [("all is well", "length"), ("a red ship", "content_filter")] {
        let stream = event_stream(&[&events(text), "data: [DONE]\n\n"]);
        let upstream = Scripted::start(vec![Reply::Keep(stream)]).await;
        let (server, _) = gateway(&upstream, &guard(&["output"], "red ship", "")).await;
        let response = server.post(CHAT).json(&chat(&json!({ "stream": true }))).send().await.unwrap();
        let found = response.text().await.unwrap();
        assert!(found.contains(&format!("\"finish_reason\":\"{reason}\"")), "{found}");
        assert_eq!(found.matches("\"finish_reason\":\"").count(), 1, "{found}");
        assert_eq!(
            (found.contains("all is well"), found.contains("\"usage\"")),
            (reason == "length", reason == "length")
        );
        assert!(!found.contains("red ship"), "{found}");
    }
}
