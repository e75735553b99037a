use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_sdk::image::{DEFAULT_MAX_PIXELS, Recipe, Viewer};
use guest_sdk::settings::Settings;
use infer_control::{component::card_facts, registry::Registry};
use infer_engine::{Model, Tensor};
use serde_json::Value;

use crate::harness::{BILSTM, BUILTIN, Server, bilstm, golden, load, photo, photo_names, skip};

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// The built-in models on each backend: the default one, which is ONNX Runtime in CI, and the
/// embedded one.
fn backends() -> [Arc<Registry>; 2] {
    let embedded = load(&bilstm().replace("[server]", "[server]\nonnxruntime = \"off\""));
    assert_eq!(embedded.runtime.backend(), "rten");
    if BUILTIN.runtime.backend() != "onnxruntime" {
        let reason = BUILTIN.runtime.describe();
        assert!(std::env::var_os("CI").is_none(), "ONNX Runtime is not tested: {reason}");
        skip(&format!("on ONNX Runtime: {reason}"));
    }
    [BILSTM.clone(), Arc::new(embedded)]
}

fn model<'a>(registry: &'a Registry, card: &str) -> &'a Arc<Model> {
    registry.models.values().find(|model| model.card().name == card).unwrap()
}

async fn scores(model: &Model, input: Tensor) -> Vec<f32> {
    let is_text = model.card().text.is_some();
    let name = if is_text { "text".to_owned() } else { model.card().inputs[0].name.clone() };
    let reply = model.run(vec![(name, input)], deadline()).await.unwrap();
    reply.outputs[0].1.to_vec().unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn assert_near(found: &[f32], expected: &[f32], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = f64::from((found - expected).abs());
        assert!(difference <= tolerance, "{what}: [{index}] is {found}, expected {expected} ± {tolerance}");
    }
}

#[tokio::test]
async fn text_model_matches_golden_values() {
    let golden = golden();
    let golden = &golden["text"];
    let tolerance = golden["tolerance"].as_f64().unwrap();
    let mut texts = 0;
    for registry in backends() {
        for case in golden["cases"].as_array().unwrap() {
            let ids: Vec<i32> =
                case["ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap() as i32).collect();
            let expected = numbers(&case["probs"]);
            let what = format!("{} on {}", case["name"], registry.runtime.backend());
            let ids = Tensor::from_slice(&[1, 100], &ids).unwrap();
            assert_near(&scores(&registry.models["words"], ids).await, &expected, tolerance, &what);
            // The reference reads the last hundred words, and knows no Unicode.
            let text = case["text"].as_str().unwrap();
            let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\n'));
            if is_plain && text.split_whitespace().count() <= 100 {
                let tensor = Tensor::from_slice(&[text.len()], text.as_bytes()).unwrap();
                assert_near(
                    &scores(&registry.models["toxic-bilstm"], tensor).await,
                    &expected,
                    tolerance,
                    &what,
                );
                texts += 1;
            }
        }
    }
    assert!(texts >= 20, "{texts}");
}

#[tokio::test]
async fn image_models_match_golden_values() {
    let golden = golden();
    for registry in backends() {
        for expected in golden["images"].as_array().unwrap() {
            let model = model(&registry, expected["model"].as_str().unwrap());
            let image = model.card().inputs[0].image.clone().unwrap();
            for tensor in expected["tensors"].as_array().unwrap() {
                let formula = tensor["formula"].as_str().unwrap();
                let value = |index: usize| match formula {
                    "noise" => index * 7919 % 256,
                    "bands" => index / 5 % 256,
                    _ => panic!("no formula `{formula}`"),
                };
                let values: Vec<_> = (0..3 * 224 * 224)
                    .map(|index| (value(index) as f32 - image.mean.0[0]) / image.std.0[0])
                    .collect();
                let found = scores(model, Tensor::from_slice(&[1, 3, 224, 224], &values).unwrap()).await;
                let what = format!("{formula} for {} on {}", model.name(), registry.runtime.backend());
                let tolerance = expected["tensor_tolerance"].as_f64().unwrap();
                assert_near(&found, &numbers(&tensor["probs"]), tolerance, &what);
            }
        }
    }
}

/// The guest's own preprocessing, compiled for this machine.
fn preprocess(model: &Model, file: &[u8]) -> Tensor {
    let settings = Settings::from_pairs(card_facts("image", model));
    let recipe = Recipe::from_card(&settings.card("image").unwrap()).unwrap();
    let mut pixels = Vec::new();
    let mut judge = |view: &[[u8; 3]]| {
        recipe.normalise(view, &mut pixels);
        Ok(())
    };
    Viewer::new(&recipe, DEFAULT_MAX_PIXELS, 1).show(file, &mut judge).unwrap();
    Tensor::from_slice(&[1, 3, 224, 224], &pixels).unwrap()
}

#[tokio::test]
async fn sandboxed_photos_equal_the_native_pipeline() {
    let server = Server::builtin().await;
    let model = &BUILTIN.models["efficientnet-lite0"];
    let names = photo_names();
    assert_eq!(names.len(), 10);
    for name in names {
        let native = scores(model, preprocess(model, &photo(&name))).await;
        let (status, body) = server.classify("?top=1000", photo(&name)).await;
        assert!(status.is_success(), "{name}: {body}");
        let labels = body["labels"].as_array().unwrap();
        assert_eq!(labels.len(), 1000, "{name}");
        let mut sandboxed = vec![f32::NAN; 1000];
        for label in labels {
            sandboxed[label["index"].as_u64().unwrap() as usize] = label["score"].as_f64().unwrap() as f32;
        }
        assert_near(&sandboxed, &native, 1e-3, &name);
    }
}

#[tokio::test]
async fn photos_get_labels_of_an_independent_pipeline() {
    let server = Server::builtin().await;
    let golden = golden();
    let expected = &golden["images"].as_array().unwrap()[0];
    assert_eq!(expected["model"], "efficientnet-lite0-int8");
    let tolerance = expected["photo_tolerance"].as_f64().unwrap();
    for photograph in expected["photos"].as_array().unwrap() {
        let name = photograph["file"].as_str().unwrap();
        let (_, body) = server.classify("?top=1000", photo(name)).await;
        let labels = body["labels"].as_array().unwrap();
        for top in photograph["top"].as_array().unwrap() {
            let found = labels.iter().find(|label| label["index"] == top["index"]).unwrap();
            assert_eq!(found["label"], top["name"], "{name}");
            let difference = (found["score"].as_f64().unwrap() - top["score"].as_f64().unwrap()).abs();
            assert!(difference <= tolerance, "{name}: {found}, expected {top}");
        }
    }
}
