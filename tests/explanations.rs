use std::time::Duration;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{BILSTM, Server, answer, load};

/// The built-in configuration, in which requests wait for a busy machine.
async fn patient() -> Server {
    let config = infer_config::CONFIG.replace("[server]", "[server]\nqueue_ms = 60000\ndeadline_ms = 60000");
    Server::start(load(&config).into()).await
}

/// Judges `input` with `infer`, and asks for spans.
async fn spans(server: &Server, input: &Value, thresholds: &Value) -> (Value, Vec<Value>) {
    let infer = json!({ "explain": "spans", "thresholds": thresholds });
    let (status, body) = server.moderate(&json!({ "input": input, "infer": infer })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let spans = body["infer"]["explanations"][0]["spans"].as_array().unwrap().clone();
    (body, spans)
}

/// The part of `text` between two characters.
fn part(text: &str, span: &Value) -> String {
    let (start, end) = (span["start"].as_u64().unwrap() as usize, span["end"].as_u64().unwrap() as usize);
    text.chars().skip(start).take(end - start).collect()
}

/// `text` without the part between two characters.
fn without(text: &str, span: &Value) -> String {
    let (start, end) = (span["start"].as_u64().unwrap() as usize, span["end"].as_u64().unwrap() as usize);
    let index = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(index, _)| index);
    [&text[..index(start)], &text[index(end)..]].concat()
}

#[tokio::test]
async fn insult_is_the_top_span() {
    let server = patient().await;
    for (text, insult) in [
        ("Thanks for the lovely article, you idiot, the garden looks nice.", "idiot"),
        ("Très bien 🌻🌻 the café is nice (moron)! See you in the garden.", "moron"),
        ("The weather is lovely today…\r\nand you are stupid.", "stupid"),
    ] {
        let (body, spans) = spans(&server, &json!(text), &json!({ "harassment": 0.5 })).await;
        assert_eq!(body["results"][0]["categories"]["harassment"], true, "{body}");
        let top = spans.iter().find(|span| span["category"] == "harassment").unwrap();
        assert_eq!((&top["text"], part(text, top).as_str()), (&json!(insult), insult), "{body}");
        assert_eq!(top["part"], 0);
        // Another request without the span has the score that was announced.
        let (_, again) = server.moderate(&json!({ "input": without(text, top) })).await;
        let (score, announced) = (
            again["results"][0]["category_scores"]["harassment"].as_f64().unwrap(),
            top["score_without"].as_f64().unwrap(),
        );
        assert!((score - announced).abs() < 1e-5, "{score}, announced {announced}");
        let contributions: Vec<_> = spans.iter().map(|span| span["contribution"].as_f64().unwrap()).collect();
        assert!(contributions.is_sorted_by(|one, other| one >= other), "{contributions:?}");
        assert!(contributions.iter().all(|contribution| *contribution >= 0.1), "{contributions:?}");
    }
}

#[tokio::test]
async fn spans_follow_parts_and_thresholds() {
    let server = patient().await;
    let parts = json!([{ "type": "text", "text": "The garden is full of flowers." },
        { "type": "text", "text": "🐷 You idiot!" }]);
    let (_, found) = spans(&server, &parts, &json!({})).await;
    let harassment: Vec<_> = found.iter().filter(|span| span["category"] == "harassment").collect();
    assert!(!harassment.is_empty() && harassment.iter().all(|span| span["part"] == 1), "{found:?}");
    assert_eq!((&harassment[0]["start"], &harassment[0]["end"]), (&json!(6), &json!(11)), "{found:?}");
    // `insult` is only reported, unless the request has a threshold for it.
    let text = json!("You idiot!");
    let of_insult = |found: Vec<Value>| found.iter().any(|span| span["category"] == "insult");
    assert!(!of_insult(spans(&server, &text, &json!({})).await.1));
    assert!(of_insult(spans(&server, &text, &json!({ "insult": 0.5 })).await.1));
    // Nothing is flagged: the category nearest to its threshold alone is explained.
    let thresholds = json!({ "harassment": 1.0, "hate": 1.0, "harassment/threatening": 1.0, "insult": 1.0 });
    let (body, found) = spans(&server, &text, &thresholds).await;
    assert_eq!(body["results"][0]["flagged"], false, "{body}");
    assert!(found.iter().all(|span| span["category"] == found[0]["category"]), "{found:?}");
}

#[tokio::test]
async fn requests_without_spans_have_none() {
    let server = patient().await;
    for explain in [json!(true), json!("rationale")] {
        let body = json!({ "input": "You idiot!", "infer": { "explain": explain } });
        let (_, body) = server.moderate(&body).await;
        let explanation = body["infer"]["explanations"][0].as_object().unwrap();
        assert!(!explanation.contains_key("spans"), "{explanation:?}");
    }
    for text in ["", " \n ", "!!!", "\u{200b}\u{feff}"] {
        assert_eq!(spans(&server, &json!(text), &json!({})).await.1, Vec::<Value>::new(), "{text:?}");
    }
}

#[tokio::test]
async fn long_texts_are_explained_within_bounds() {
    let server = patient().await;
    let filler = "the weather is lovely and the garden is full of flowers today ".repeat(40);
    let text = format!("{filler}you idiot {filler}");
    // A window of harmless words around the insult lowers its score.
    let (body, found) = spans(&server, &json!(text), &json!({ "harassment": 0.05 })).await;
    let top = found.iter().find(|span| span["category"] == "harassment");
    assert_eq!(top.map(|span| part(&text, span)).as_deref(), Some("idiot"), "{found:?} {body}");
}

#[tokio::test]
async fn hostile_texts_stay_within_bounds() {
    let server = Server::builtin().await;
    let limit = 256 << 10;
    let fill = |unit: &str| unit.repeat(limit / unit.len());
    let insult = |rest: String| format!("idiot {}", &rest[..rest.floor_char_boundary(limit - 6)]);
    for text in [
        fill("a"),
        insult(fill("!")),
        insult(fill("\n")),
        insult(fill("\u{301}")),
        insult(fill(&("x".repeat(4_095) + " "))),
        insult(fill(&("x".repeat(101) + " "))),
        fill("idiot "),
        fill("🖕"),
    ] {
        let start: String = text.chars().take(8).collect();
        let body = json!({ "input": text, "infer": { "explain": "spans" } });
        let request = server.post("/moderate").json(&body).timeout(Duration::from_secs(60));
        let (status, body) = answer(request).await;
        // Judged, with too many windows, or late on a busy machine.
        let answered = [StatusCode::OK, StatusCode::PAYLOAD_TOO_LARGE, StatusCode::GATEWAY_TIMEOUT];
        assert!(answered.contains(&status), "{start:?}: {status} {}", body["error"]);
        let found = body["infer"]["explanations"][0]["spans"].as_array().map_or(0, Vec::len);
        assert!(found <= 64, "{start:?}: {found} spans");
    }
    assert_eq!(spans(&server, &json!("You idiot!"), &json!({})).await.1[0]["text"], "idiot");
}

#[tokio::test]
async fn perspective_scores_each_sentence() {
    let server = Server::start(BILSTM.clone()).await;
    let text = "Schöner Garten 🌻! You are an idiot. The weather is lovely.";
    let request = |annotations: bool| {
        json!({ "comment": { "text": text }, "spanAnnotations": annotations,
            "requestedAttributes": { "TOXICITY": {}, "INSULT": {} } })
    };
    let analyze = async |annotations: bool| {
        let (status, body) =
            answer(server.post("/v1alpha1/comments:analyze").json(&request(annotations))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["attributeScores"].clone()
    };
    let (whole, split) = (analyze(false).await, analyze(true).await);
    for attribute in ["TOXICITY", "INSULT"] {
        assert_eq!(whole[attribute]["summaryScore"], split[attribute]["summaryScore"]);
        assert_eq!(whole[attribute]["spanScores"].as_array().unwrap().len(), 1);
        let spans = split[attribute]["spanScores"].as_array().unwrap();
        let sentence = |span: &Value| {
            let (begin, end) =
                (span["begin"].as_u64().unwrap() as usize, span["end"].as_u64().unwrap() as usize);
            text.chars().skip(begin).take(end - begin).collect::<String>()
        };
        let sentences: Vec<_> = spans.iter().map(sentence).collect();
        assert_eq!(sentences, ["Schöner Garten 🌻!", "You are an idiot.", "The weather is lovely."]);
        let score = |index: usize| spans[index]["score"]["value"].as_f64().unwrap();
        assert!(score(1) > 0.5 && score(0) < 0.2 && score(2) < 0.2, "{spans:?}");
        // The score of a sentence is that of a comment of its own.
        let alone =
            json!({ "comment": { "text": "You are an idiot." }, "requestedAttributes": { attribute: {} } });
        let (_, alone) = answer(server.post("/v1alpha1/comments:analyze").json(&alone)).await;
        let alone = alone["attributeScores"][attribute]["summaryScore"]["value"].as_f64().unwrap();
        assert!((alone - score(1)).abs() < 1e-5, "{alone}, {}", score(1));
    }
    // More sentences than are scored alone.
    let long = "Ok. ".repeat(1_000);
    let body = json!({ "comment": { "text": long }, "spanAnnotations": true, "requestedAttributes": { "INSULT": {} } });
    let (status, body) = answer(server.post("/v1alpha1/comments:analyze").json(&body)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let spans = body["attributeScores"]["INSULT"]["spanScores"].as_array().unwrap();
    assert_eq!(spans.len(), 64);
    assert_eq!(spans[63]["end"], long.trim_end().len());
}
