use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, load, repository, skip};
use crate::store::pulled;

/// A server that reads texts in images, with `settings`; `None` without the models.
async fn reading(settings: &str) -> Option<Server> {
    for (model, file) in [("ppocr-det", "PP-OCRv6_det_small.onnx"), ("ppocr-rec", "PP-OCRv6_rec_small.onnx")]
    {
        if !pulled(model).join(file).is_file() {
            skip(&format!("{model} is not in the cache folder: infer pull {model}"));
            return None;
        }
    }
    let config = format!(
        "[server]\ndeadline_ms = 60000\n\
         [models.text]\nsource = \"builtin:toxic-bilstm\"\n\
         [models.image]\nsource = \"builtin:nsfwjs-mobilenet_v2-int8\"\n\
         [models.detector]\nsource = \"builtin:ppocr-det\"\n\
         [models.reader]\nsource = \"builtin:ppocr-rec\"\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
         limits = {{ guest_ms = 30000, compute_ms = 60000 }}\nsettings = {{ {settings} }}\n\
         models = {{ text = \"text\", image = \"image\", detector = \"detector\", reader = \"reader\" }}\n"
    );
    Some(Server::start(Arc::new(load(&config))).await)
}

fn data(file: &str) -> std::path::PathBuf {
    repository().join("tests/data/ocr").join(file)
}

/// The action and the body for parts of an input.
async fn judge(server: &Server, parts: Value) -> (String, Value) {
    let body = json!({ "input": parts, "infer": { "explain": true } });
    let response = server.post("/moderate").json(&body).send().await.unwrap();
    let action = response.headers()["x-infer-action"].to_str().unwrap().to_owned();
    let (status, body): (_, Value) = (response.status(), response.json().await.unwrap());
    assert_eq!(status, StatusCode::OK, "{body}");
    (action, body)
}

fn image(file: &str) -> Value {
    let bytes = std::fs::read(data(file)).unwrap();
    let url = format!("data:image/png;base64,{}", STANDARD.encode(bytes));
    json!({ "type": "image_url", "image_url": { "url": url } })
}

#[tokio::test]
async fn texts_and_boxes_match_an_independent_run() {
    let Some(server) = reading("").await else { return };
    let golden: Value = serde_json::from_slice(&std::fs::read(data("golden.json")).unwrap()).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let (_, body) = judge(&server, json!([image(file)])).await;
        let found = body["infer"]["explanations"][0]["image_texts"].as_array().cloned().unwrap_or_default();
        let expected = case["boxes"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{file}: {found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(found["text"], expected["text"], "{file}");
            let difference = (found["score"].as_f64().unwrap() - expected["score"].as_f64().unwrap()).abs();
            assert!(difference < 0.05, "{file}: {found}, expected {expected}");
            let side = |name: &str| found[name].as_i64().unwrap();
            let sides = [side("x"), side("y"), side("x") + side("width"), side("y") + side("height")];
            for (found, expected) in sides.iter().zip(expected["box"].as_array().unwrap()) {
                // One pixel of the map, and the roundings of two resizers.
                assert!(
                    (found - expected.as_i64().unwrap()).abs() <= 3,
                    "{file}: {sides:?}, expected {expected}"
                );
            }
        }
    }
}

#[tokio::test]
async fn insult_in_an_image_is_flagged() {
    let Some(server) = reading("").await else { return };
    let (action, body) = judge(&server, json!([image("insult.png")])).await;
    assert_eq!(action, "block", "{body}");
    assert_eq!(body["results"][0]["categories"]["harassment"], true);
    assert_eq!(body["results"][0]["category_applied_input_types"]["harassment"], json!(["text"]));
    let (action, body) = judge(&server, json!([image("no-text.png")])).await;
    assert_eq!(action, "allow", "{body}");
    // The second part of an input has its own index.
    let parts = json!([{ "type": "text", "text": "a lecture" }, image("photo.png")]);
    let (action, body) = judge(&server, parts).await;
    assert_eq!(action, "allow", "{body}");
    assert_eq!(body["infer"]["explanations"][0]["image_texts"][0]["part"], 1);
}

#[tokio::test]
async fn unread_texts_need_review() {
    let Some(server) = reading("\"ocr.max_boxes\" = 1").await else { return };
    let (action, body) = judge(&server, json!([image("two-lines.png")])).await;
    assert_eq!(action, "review", "{body}");
    let degraded = body["infer"]["degraded"].as_array().unwrap();
    let is_of_texts = |gap: &&Value| {
        gap["category"] == "harassment" && gap["input_types"].as_array().unwrap().contains(&json!("text"))
    };
    let reason = degraded.iter().find(is_of_texts).unwrap()["reason"].as_str().unwrap();
    assert!(reason.ends_with("image 1: 1 of 2 texts were read"), "{reason}");
}
