use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, answer, load, photo, repository, skip};

/// Guests of the same contract in other languages, and their make targets.
const GUESTS: [(&str, &str); 2] = [("moderate-js", "guests-js"), ("moderate-py", "guests-py")];

/// Path of the component, if it was built; required if INFER_LANGUAGES is set.
fn built(name: &str, target: &str) -> Option<PathBuf> {
    let path = Path::new(env!("INFER_GUESTS")).join(format!("{name}.wasm"));
    if !path.is_file() {
        assert!(
            std::env::var_os("INFER_LANGUAGES").is_none(),
            "`{}` is missing: make {target}",
            path.display()
        );
        skip(&format!("{name} is not built: make {target}"));
        return None;
    }
    Some(path)
}

fn configured(source: &str, models: &str, settings: &str) -> String {
    // Runtimes of other languages need more memory than Rust guests, and more time per text.
    format!(
        "[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n[models.photos]\nsource = \"builtin:efficientnet-lite0-int8\"\n\
         [components.guest]\nsource = {source:?}\nroute = \"/moderate\"\n\
         models = {{ {models} }}\nsettings = {{ {settings} }}\nlimits = {{ memory_bytes = 268435456, table_elements = 100000, guest_ms = 60000 }}\n"
    )
}

async fn serve(source: &str, models: &str, settings: &str) -> Server {
    Server::start(load(&configured(source, models, settings)).into()).await
}

async fn judged(server: &Server, input: &Value) -> (StatusCode, Value) {
    answer(server.post("/moderate").json(&json!({ "input": input }))).await
}

fn inputs() -> Vec<Value> {
    let long = "a wonderful person said something stupid about it ".repeat(60);
    let part = |text: &str| json!({ "type": "text", "text": text });
    let split = std::fs::read_to_string(repository().join("guest-models/moderate/testdata/tokens.json"));
    let split: Vec<Value> = serde_json::from_str(&split.unwrap()).unwrap();
    let mut inputs: Vec<_> = split.into_iter().map(|case| case["text"].clone()).collect();
    inputs.extend([
        json!("You are a complete idiot."),
        json!("Thank you for fixing the article so quickly, it reads much better now."),
        json!(""),
        json!("!!! ??? 123"),
        json!("ΣΊΣΥΦΟΣ straße İstanbul 😀 naïve café"),
        json!("i will kill you\tand\nyour dog"),
        json!(long),
        json!([part("hello"), part("you stupid idiot")]),
    ]);
    inputs
}

/// Asserts that two answers agree in categories, scores, flags, and gaps.
fn assert_same(name: &str, input: &Value, found: &Value, expected: &Value) {
    let (one, other) = (&found["results"][0], &expected["results"][0]);
    assert_eq!(one["flagged"], other["flagged"], "{name}: {input}: {found}");
    assert_eq!(one["categories"], other["categories"], "{name}: {input}");
    for (category, score) in other["category_scores"].as_object().unwrap() {
        let (score, found) = (score.as_f64().unwrap(), one["category_scores"][category].as_f64().unwrap());
        assert!((score - found).abs() < 1e-6, "{name}: {input}: {category} is {found}, expected {score}");
    }
    assert_eq!(one["category_applied_input_types"], other["category_applied_input_types"], "{name}: {input}");
    assert_eq!(found["infer"]["degraded"], expected["infer"]["degraded"], "{name}: {input}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_judge_alike_in_every_language() {
    let text = "text = \"toxic-bilstm\"";
    let strict = "\"threshold.harassment\" = 0.001, \"threshold.hate/threatening\" = 0.9";
    for (name, target) in GUESTS {
        let Some(path) = built(name, target) else { continue };
        let source = path.display().to_string();
        for (models, settings) in [(text, ""), (text, strict), ("", "")] {
            let server = serve(&source, models, settings).await;
            let reference = serve("builtin:moderate", models, settings).await;
            for input in inputs() {
                let (status, found) = judged(&server, &input).await;
                assert_eq!(status, StatusCode::OK, "{name}: {input}: {found}");
                let (status, expected) = judged(&reference, &input).await;
                assert_eq!(status, StatusCode::OK, "{expected}");
                assert_same(name, &input, &found, &expected);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_fail_alike_in_every_language() {
    let text = "text = \"toxic-bilstm\"";
    let idle = json!("a few words");
    let endless = json!("you are so stupid ".repeat(4_000));
    let cases = [
        (text, "\"threshold.hate\" = \"high\"", &idle),
        (text, "\"threshold.hate\" = \"0x10\"", &idle),
        (text, "\"threshold.hate\" = \"1_0\"", &idle),
        (text, "\"threshold.hate\" = \" 0.5 \"", &idle),
        (text, "\"text.max_windows\" = 0", &idle),
        (text, "\"text.max_windows\" = \"1.0\"", &idle),
        (text, "", &endless),
        ("text = \"photos\"", "", &idle),
    ];
    for (name, target) in GUESTS {
        let Some(path) = built(name, target) else { continue };
        let source = path.display().to_string();
        for (models, settings, input) in cases {
            let (status, found) = judged(&serve(&source, models, settings).await, input).await;
            let (expected, reference) =
                judged(&serve("builtin:moderate", models, settings).await, input).await;
            assert!(!expected.is_success(), "{reference}");
            assert_eq!(
                (status, &found["error"]["code"]),
                (expected, &reference["error"]["code"]),
                "{name}: {found}"
            );
        }
        // The photo was not judged, and the answer reports it.
        let server = serve(&source, text, "").await;
        let photo = base64(&photo("coffee.jpg"));
        let image = json!([{ "type": "image_url", "image_url": { "url": format!("data:image/jpeg;base64,{photo}") } }]);
        let (status, found) = judged(&server, &image).await;
        assert_eq!(status, StatusCode::OK, "{name}: {found}");
        assert_eq!(found["infer"]["degraded"].as_array().unwrap().len(), 13, "{name}: {found}");
        assert_eq!(found["infer"]["degraded"][0]["reason"], "this guest judges no images", "{name}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers_in_every_language_use_models() {
    let Some(path) = built("handler-js", "guests-js") else { return };
    let config = configured(&path.display().to_string(), "text = \"toxic-bilstm\"", "");
    let server = Server::start(load(&config.replace("\"/moderate\"", "\"/handler/...\"")).into()).await;
    let reference = serve("builtin:moderate", "text = \"toxic-bilstm\"", "").await;
    for text in ["You are a complete idiot.", "Thank you for the swift reply.", ""] {
        let (status, found) = answer(server.post("/handler/judge").body(text)).await;
        assert_eq!(status, StatusCode::OK, "{found}");
        let (_, expected) = judged(&reference, &json!(text)).await;
        assert_eq!(found["flagged"], expected["results"][0]["flagged"], "{text}");
        for (category, score) in found["scores"].as_object().unwrap() {
            let expected = expected["results"][0]["category_scores"][category].as_f64().unwrap();
            assert!((score.as_f64().unwrap() - expected).abs() < 1e-6, "{text}: {category}: {score}");
        }
    }
    let refused = server.get("/handler").send().await.unwrap();
    assert_eq!(
        (refused.status(), &refused.headers()["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
