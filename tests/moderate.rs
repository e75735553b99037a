use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use infer_server::routes::CATEGORIES;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{BILSTM, BUILTIN, Server, answer, golden, photo};

const INSULT: &str = "You are so dumb and stupid!";
const CLEAN: &str = "Thank you for fixing the article so quickly, it reads much better now.";

fn image_part(bytes: &[u8]) -> Value {
    json!({ "type": "image_url", "image_url": { "url": format!("data:image/jpeg;base64,{}", STANDARD.encode(bytes)) } })
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn text_gets_every_openai_category() {
    let server = Server::builtin().await;
    let (status, body) = server.moderate(&json!({ "input": INSULT })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let result = &body["results"][0];
    assert_eq!(result["flagged"], true);
    assert_eq!(result["categories"]["harassment"], true);
    assert_eq!(result["category_applied_input_types"]["harassment"], json!(["text"]));
    for member in ["categories", "category_scores", "category_applied_input_types"] {
        assert_eq!(keys(&result[member]), CATEGORIES, "{member}");
    }
    assert_eq!(body["model"], "moderate");
}

#[tokio::test]
async fn unjudged_categories_score_zero_and_are_named() {
    let server = Server::builtin().await;
    let (_, body) = server.moderate(&json!({ "input": CLEAN })).await;
    let result = &body["results"][0];
    assert_eq!(result["flagged"], false);
    let degraded: Vec<_> = body["infer"]["degraded"]
        .as_array()
        .unwrap()
        .iter()
        .map(|gap| gap["category"].as_str().unwrap())
        .collect();
    for category in CATEGORIES {
        let judged = !result["category_applied_input_types"][category].as_array().unwrap().is_empty();
        assert_ne!(judged, degraded.contains(&category), "{category} is judged or degraded, not both");
        if !judged {
            assert_eq!(result["category_scores"][category], 0.0, "{category}");
        }
    }
    assert!(degraded.contains(&"violence") && !degraded.contains(&"harassment"), "{degraded:?}");
}

#[tokio::test]
async fn answer_names_models_and_stage_times() {
    let server = Server::builtin().await;
    let (_, body) = server.moderate(&json!({ "input": INSULT })).await;
    let facts = &body["infer"];
    let policy = &BUILTIN.components["moderate"];
    assert_eq!(facts["component"], json!({ "name": "moderate", "hash": policy.hash }));
    let (name, text) = ("moderation-encoder", BUILTIN.models["moderation-encoder"].hash());
    assert!(facts["models"].as_array().unwrap().contains(&json!({ "name": name, "hash": text })));
    let stage = |name: &str| facts["timings"][name].as_f64().unwrap();
    assert!(stage("compute_ms") > 0.0 && stage("guest_ms") > 0.0 && stage("instantiate_ms") > 0.0, "{facts}");
    // Not their sum: a model may start on one core before the guest that called it has left the
    // other.
    assert!(stage("total_ms") >= stage("compute_ms").max(stage("guest_ms")), "{facts}");
}

#[tokio::test]
async fn scores_match_an_independent_run() {
    let server = Server::start(BILSTM.clone()).await;
    let golden = golden();
    let cases = golden["text"]["cases"].as_array().unwrap();
    // A text with more words than the model's context is judged in windows, and one whose words
    // invisible characters may separate is judged twice, unlike in a single run of the model.
    let is_single = |case: &&Value| {
        case["text"].as_str().unwrap().split(' ').count() <= 100 && case["name"] != "control characters"
    };
    let cases: Vec<_> = cases.iter().filter(is_single).collect();
    assert!(cases.len() >= 10);
    let texts: Vec<_> = cases.iter().map(|case| &case["text"]).collect();
    let (status, body) = server.moderate(&json!({ "input": texts })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let labels: Vec<_> =
        golden["text"]["labels"].as_array().unwrap().iter().map(|label| label.as_str().unwrap()).collect();
    let tolerance = golden["text"]["tolerance"].as_f64().unwrap();
    for (case, result) in cases.iter().zip(body["results"].as_array().unwrap()) {
        let label = |name: &str| {
            let index = labels.iter().position(|label| *label == name).unwrap();
            case["probs"][index].as_f64().unwrap()
        };
        let harassment =
            ["toxic", "severe_toxic", "obscene", "insult"].map(label).into_iter().fold(0.0, f64::max);
        let expected = [
            ("harassment", harassment),
            ("harassment/threatening", label("threat")),
            ("hate", label("identity_hate")),
            ("hate/threatening", label("identity_hate").min(label("threat"))),
        ];
        for (category, expected) in expected {
            let found = result["category_scores"][category].as_f64().unwrap();
            assert!(
                (found - expected).abs() <= tolerance,
                "{}: {category} {found}, expected {expected}",
                case["name"]
            );
        }
    }
}

#[tokio::test]
async fn insult_at_either_end_is_found() {
    let server = Server::start(BILSTM.clone()).await;
    let filler = "the weather is lovely and the garden is full of flowers today ".repeat(40);
    for text in [format!("{INSULT} {filler}"), format!("{filler} {INSULT}")] {
        let (_, body) = server.moderate(&json!({ "input": text })).await;
        assert_eq!(body["results"][0]["categories"]["harassment"], true, "{body}");
    }
    let (_, body) = server.moderate(&json!({ "input": filler })).await;
    assert_eq!(body["results"][0]["flagged"], false, "{body}");
}

#[tokio::test]
async fn oversized_text_is_rejected_whole_or_split() {
    let server = Server::start(BILSTM.clone()).await;
    let words = "nice ".repeat(5_000);
    let parts = vec![json!({ "type": "text", "text": "nice ".repeat(900) }); 9];
    for (input, windows) in [
        (json!(words), "99 windows of 100 tokens, expected at most 64"),
        (json!(parts), "153 windows of 100 tokens, expected at most 128"),
    ] {
        let (status, body) = server.moderate(&json!({ "input": input })).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(windows), "{body}");
    }
}

/// Asserts that both texts of each pair get the same scores, and the same answer in gate mode.
async fn assert_twins(twins: &[(String, String)]) {
    let server = Server::start(BILSTM.clone()).await;
    for twins in twins.chunks(32) {
        let texts: Vec<_> = twins.iter().flat_map(|(text, twin)| [text, twin]).collect();
        let (status, body) = server.moderate(&json!({ "input": texts })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        for (results, (text, twin)) in body["results"].as_array().unwrap().chunks(2).zip(twins) {
            let score = |index: usize| results[index]["category_scores"]["harassment"].as_f64().unwrap();
            assert!(score(1) > 0.7, "{twin:?} is no insult: {}", score(1));
            assert!(
                (score(0) - score(1)).abs() < 0.05,
                "{text:?} scores {}, {twin:?} {}",
                score(0),
                score(1)
            );
            assert_eq!(results[0]["categories"], results[1]["categories"], "{text:?}");
        }
    }
    for (text, _) in twins {
        let gate = server.post("/moderate?mode=gate").json(&json!({ "input": text })).send().await.unwrap();
        assert_eq!(gate.status(), StatusCode::FORBIDDEN, "{text:?}");
    }
}

fn twins(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(text, twin)| (text.to_owned(), twin.to_owned())).collect()
}

#[tokio::test]
async fn crlf_scores_as_lf() {
    assert_twins(&twins(&[
        ("You are an idiot\r\n", "You are an idiot\n"),
        ("You are an\r\nidiot\r\nreally", "You are an\nidiot\nreally"),
        ("You are an idiot\r", "You are an idiot\n"),
    ]))
    .await;
}

#[tokio::test]
async fn every_separator_scores_as_its_ascii_twin() {
    // Separators, and the ASCII character at which the model's tokeniser splits in their place.
    let kinds = [
        ("\r\u{b}\u{c}\u{85}\u{2028}\u{2029}", "\n"),
        ("\u{a0}\u{1680}\u{2002}\u{2003}\u{2007}\u{2009}\u{200a}\u{202f}\u{205f}\u{3000}", " "),
        ("“”„‟«»‹›「」『』〝〟＂", "\""),
        ("‐‑‒–—―⸺−﹣－", "-"),
        ("…‥·•‧。．", "."),
        ("，、；：！？¡¿", ","),
        ("（）［］｛｝【】《》", "("),
        ("→⇒►★☆♥❤☠☎✉©®°§¶†‡№€£¥×÷∞", "*"),
        ("😀🖕🤡💩🏳\u{1f1fa}", "*"),
        ("\u{fffc}\u{fffd}\u{2800}\u{e000}", " "),
    ];
    let mut pairs = Vec::new();
    for (separators, twin) in kinds {
        for separator in separators.chars() {
            let text = |by: &str| format!("You{by}are{by}an{by}idiot{by}");
            pairs.push((text(&separator.to_string()), text(twin)));
        }
    }
    assert_twins(&pairs).await;
}

#[tokio::test]
async fn folded_spellings_score_as_plain() {
    let plain = "You are an idiot";
    assert_twins(&twins(&[
        ("Ｙｏｕ　ａｒｅ　ａｎ　ｉｄｉｏｔ", plain),
        ("You are an 𝐢𝐝𝐢𝐨𝐭", plain),
        ("You are an ⓘⓓⓘⓞⓣ", plain),
        ("You are an 𝖎𝖉𝖎𝖔𝖙", plain),
        ("You are an ÎDÏÓT", plain),
        ("You are an i\u{334}\u{353}d\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}i\u{489}o\u{20dd}t", plain),
        ("You are an id\u{200b}iot", plain),
        ("You are\u{200b}an\u{200b}idiot", plain),
        ("You are an i\u{ad}d\u{200d}i\u{2060}o\u{fe0f}t\u{feff}", plain),
        ("You are an \u{202e}idiot\u{202c}", plain),
        ("You are an \u{e0001}i\u{e0064}diot", plain),
        ("You are an ‘idiot’", "You are an \"idiot\""),
        ("You are an 'idiot'", "You are an \"idiot\""),
        ("You’re an idiot, don’t deny", "You're an idiot, don't deny"),
        ("You are an id\0iot\u{7}", plain),
        ("You are an idiot™", plain),
        ("You are an 馬鹿idiot馬鹿", plain),
    ]))
    .await;
}

#[tokio::test]
async fn evasive_spelling_is_undone_and_explained() {
    let server = Server::start(BILSTM.clone()).await;
    let judge = async |text: &str| {
        let request = json!({ "input": text, "infer": { "explain": true } });
        let (status, body) = server.moderate(&request).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let notes = body["infer"]["explanations"][0]["notes"].clone();
        (body["results"][0]["category_scores"]["harassment"].as_f64().unwrap(), notes)
    };
    let (plain, notes) = judge(INSULT).await;
    assert_eq!(notes, Value::Null);
    let (evasive, notes) = judge("You are so d u m b and $tup1d!").await;
    assert!(evasive > plain - 1e-3, "{plain}, {evasive}");
    let [note] = &notes.as_array().unwrap()[..] else { panic!("{notes}") };
    let note = note.as_str().unwrap();
    assert!(note.starts_with("part 1: model `text` decides ") && note.contains("`insult`"), "{note}");
    assert!(note.ends_with(" by the reading `You are so dumb and stupid!`"), "{note}");
    assert_eq!(judge(CLEAN).await.1, Value::Null);
}

#[tokio::test]
async fn texts_are_judged_separately_in_order() {
    let server = Server::builtin().await;
    let texts: Vec<_> = (0..40).map(|index| if index % 3 == 0 { INSULT } else { CLEAN }).collect();
    let (status, body) = server.moderate(&json!({ "input": texts })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let flagged: Vec<_> =
        body["results"].as_array().unwrap().iter().map(|result| result["flagged"] == true).collect();
    let expected: Vec<_> = (0..40).map(|index| index % 3 == 0).collect();
    assert_eq!(flagged, expected);
}

#[tokio::test]
async fn parts_are_judged_by_their_models() {
    let server = Server::builtin().await;
    let parts = json!([{ "type": "text", "text": INSULT }, image_part(&photo("coffee.jpg"))]);
    let (status, body) = server.moderate(&json!({ "input": parts })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(body["results"].as_array().unwrap().len(), 1);
    let result = &body["results"][0];
    assert_eq!(result["category_applied_input_types"]["harassment"], json!(["text"]));
    assert_eq!(result["category_applied_input_types"]["sexual"], json!(["image"]));
    assert!(result["category_scores"]["sexual"].as_f64().unwrap() < 0.5, "{body}");
    assert_eq!(result["categories"]["harassment"], true);
}

#[tokio::test]
async fn invalid_request_names_its_problem() {
    let server = Server::builtin().await;
    let many: Vec<_> = (0..200).map(|_| "a").collect();
    let cases = [
        (json!({}), StatusCode::BAD_REQUEST, "invalid_input", json!("input")),
        (json!({ "input": [] }), StatusCode::BAD_REQUEST, "invalid_input", json!("input")),
        (json!({ "input": many }), StatusCode::PAYLOAD_TOO_LARGE, "too_large", json!("input")),
        (
            json!({ "input": [image_part(b"this is text")] }),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media",
            json!("input"),
        ),
        (
            json!({ "input": [{ "type": "image_url", "image_url": { "url": "http://localhost/a.png" } }] }),
            StatusCode::BAD_REQUEST,
            "invalid_input",
            json!("input[0].image_url.url"),
        ),
    ];
    for (body, status, code, param) in cases {
        let (found, error) = server.moderate(&body).await;
        assert_eq!(found, status, "{error}");
        assert_eq!(error["error"]["code"], code, "{error}");
        assert_eq!(error["error"]["param"], param, "{error}");
        assert_eq!(error["error"]["type"], "invalid_request_error");
        assert!(error["error"]["message"].as_str().unwrap().len() > 10);
    }
    let (status, error) = answer(server.post("/moderate").body("{")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(error["error"]["message"].as_str().unwrap().contains("not JSON"), "{error}");
}
