//! The exports of tests/data/text-models, imported and run on both backends, against the scores of
//! Python's onnxruntime and tokenizers in golden.json.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use infer_engine::{DType, Model, ModelOptions, Onnxruntime, Runtime, RuntimeOptions, Tensor, Weights};
use infer_models::builtin::onnxruntime_folders;
use infer_models::import::{Imported, Request, import};
use serde_json::{Value, json};

use crate::harness::{repository, skip};

pub(crate) fn exports() -> PathBuf {
    repository().join("tests/data/text-models")
}

fn golden() -> Value {
    serde_json::from_slice(&fs::read(exports().join("golden.json")).unwrap()).unwrap()
}

/// rten, and ONNX Runtime if this machine has it.
fn runtimes() -> Vec<Runtime> {
    let runtime = |onnxruntime| Runtime::new(&RuntimeOptions { onnxruntime }).unwrap();
    let auto = runtime(Onnxruntime::Auto { search: onnxruntime_folders() });
    if auto.backend() == "rten" {
        skip("ONNX Runtime is not installed");
        return vec![auto];
    }
    vec![auto, runtime(Onnxruntime::Off)]
}

/// An imported export.
struct Folder {
    scratch: tempfile::TempDir,
    card: String,
    imported: Imported,
}

impl Folder {
    fn import(name: &str, file: &str, runtime: &Runtime) -> anyhow::Result<Self> {
        let scratch = tempfile::tempdir()?;
        let (folder, destination) = (exports().join(name), scratch.path().join("imported"));
        let file = format!("{file}.onnx");
        let request = Request {
            folder: &folder,
            file: Some(&file),
            labels: None,
            name,
            source: None,
            destination: &destination,
        };
        let imported = import(&request, runtime)?;
        let card = fs::read_to_string(destination.join("card.toml"))?;
        Ok(Folder { scratch, card, imported })
    }

    /// Loads the model with replaced parts of its card.
    fn load(&self, runtime: &Runtime, edits: &[(&str, &str)]) -> Model {
        let mut card = self.card.clone();
        for (from, to) in edits {
            assert!(card.contains(from), "{from}: {card}");
            card = card.replacen(from, to, 1);
        }
        let folder = self.scratch.path().join("imported");
        fs::write(folder.join("card.toml"), card).unwrap();
        let weights = Weights::read(&folder, None).unwrap();
        let options = ModelOptions { sessions: Some(1), ..ModelOptions::default() };
        Model::load(runtime, "text", weights, &options).unwrap()
    }
}

/// Outputs of the model for JSON `texts`.
async fn run(model: &Model, texts: &Value, params: &Value) -> Vec<(String, Tensor)> {
    let tensor = |value: &Value| {
        let bytes = serde_json::to_vec(value).unwrap();
        Tensor::new(DType::U8, vec![bytes.len()], bytes).unwrap()
    };
    let inputs = vec![("texts".to_owned(), tensor(texts)), ("params".to_owned(), tensor(params))];
    model.run(inputs, Instant::now() + Duration::from_secs(60)).await.unwrap().outputs
}

async fn numbers(model: &Model, text: &Value, output: &str) -> Vec<f32> {
    let outputs = run(model, &json!([text]), &json!({})).await;
    let found = outputs.into_iter().find(|(name, _)| name == output).unwrap().1;
    found.to_vec::<f32>().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// Largest difference between `found` and the numbers in `expected`.
fn difference(found: &[f32], expected: &Value) -> f64 {
    let expected: Vec<_> = list(expected).iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(&expected)
        .map(|(found, expected)| (f64::from(*found) - expected).abs())
        .fold(0.0, f64::max)
}

/// Removes the stride, so that longer texts are truncated as in the golden scores.
const TRUNCATED: (&str, &str) = ("stride = 32\nmax_windows = 64\n", "");

/// Message of a failed import.
fn rejection(name: &str, file: &str, runtime: &Runtime) -> String {
    match Folder::import(name, file, runtime) {
        Ok(_) => panic!("{name} {file} is imported"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn classifier_scores_equal_the_reference() {
    let golden = golden();
    let texts = list(&golden["texts"]);
    for runtime in &runtimes() {
        for (name, model) in golden["models"].as_object().unwrap() {
            for (file, expected) in model["scores"].as_object().into_iter().flatten() {
                // rten has no f16 outputs, and some processors saturate its sums of 8-bit weights.
                if (runtime.backend(), name.as_str()) == ("rten", "roberta") && file != "model" {
                    continue;
                }
                let folder = Folder::import(name, file, runtime).unwrap();
                let labels: Vec<_> =
                    list(&model["labels"]).iter().map(|label| label.as_str().unwrap()).collect();
                assert_eq!(folder.imported.card.labels, labels, "{name}");
                assert_eq!(
                    folder.imported.card.batch_axis.is_none(),
                    file.ends_with("quantized"),
                    "{name} {file}"
                );
                let loaded = folder.load(runtime, &[TRUNCATED]);
                let mut largest: f64 = 0.0;
                for (text, expected) in texts.iter().zip(list(expected)) {
                    largest = largest.max(difference(&numbers(&loaded, text, "scores").await, expected));
                }
                let tolerance = match file.as_str() {
                    "model" => 1e-4,
                    "model_fp16" => 2e-3,
                    _ => 0.02,
                };
                println!("{} {name} {file}: {largest:.2e}", runtime.backend());
                assert!(largest <= tolerance, "{} {name} {file}: {largest}", runtime.backend());
            }
        }
    }
}

#[tokio::test]
async fn batches_score_as_single_texts() {
    let golden = golden();
    for runtime in &runtimes() {
        for name in ["distilbert", "roberta", "xlm-roberta", "deberta-v2", "modernbert", "wordlevel"] {
            let folder = Folder::import(name, "model", runtime).unwrap();
            let loaded = folder.load(runtime, &[TRUNCATED]);
            let scores = numbers_of_all(&loaded, &golden["texts"]).await;
            let labels = folder.imported.card.labels.len();
            let expected = list(&golden["models"][name]["scores"]["model"]);
            let rows = scores.chunks_exact(labels).zip(expected);
            let largest = rows.map(|(row, expected)| difference(row, expected)).fold(0.0, f64::max);
            println!("{} {name}: {largest:.2e}", runtime.backend());
            assert!(largest <= 1e-4, "{} {name}: {largest}", runtime.backend());
        }
    }
}

async fn numbers_of_all(model: &Model, texts: &Value) -> Vec<f32> {
    run(model, texts, &json!({})).await.swap_remove(0).1.to_vec::<f32>().unwrap()
}

#[tokio::test]
async fn windows_combine_as_in_the_reference() {
    let golden = golden();
    for runtime in &runtimes() {
        for (name, model) in golden["models"].as_object().unwrap() {
            let Some(windows) = model["windows"]["long"].as_array() else { continue };
            let folder = Folder::import(name, "model", runtime).unwrap();
            let size = ("max_tokens = 128\nstride = 32", "max_tokens = 32\nstride = 8");
            let max = folder.load(runtime, &[size]);
            let mean = folder.load(runtime, &[size, ("combine = \"max\"", "combine = \"mean\"")]);
            for (text, expected) in list(&golden["long"]).iter().zip(windows) {
                let found = numbers(&max, text, "scores").await;
                let largest = difference(&found, &expected["max"]);
                // The reference has the plain mean; the engine weights windows by their tokens.
                let (mut plain, mut weighted, mut tokens) =
                    (vec![0.0; found.len()], vec![0.0; found.len()], 0.0);
                let ids = list(&expected["ids"]);
                for window in ids.iter().map(list) {
                    let inner = json!([&window[1..window.len() - 1]]);
                    let scores = numbers_of_all(&max, &inner).await;
                    for (index, score) in scores.iter().enumerate() {
                        plain[index] += score / ids.len() as f32;
                        weighted[index] += score * window.len() as f32;
                    }
                    tokens += window.len() as f32;
                }
                let largest = largest.max(difference(&plain, &expected["mean"]));
                weighted.iter_mut().for_each(|score| *score /= tokens);
                let found = numbers(&mean, text, "scores").await;
                let largest = largest.max(difference(&found, &json!(weighted)));
                println!("{} {name}: {largest:.2e}", runtime.backend());
                assert!(largest <= 1e-4, "{} {name}: {largest}", runtime.backend());
            }
        }
    }
}

#[tokio::test]
async fn pairs_score_as_in_the_reference() {
    let golden = golden();
    for runtime in &runtimes() {
        let folder = Folder::import("cross-encoder", "model", runtime).unwrap();
        let model = folder.load(runtime, &[]);
        let expected = list(&golden["models"]["cross-encoder"]["pairs"]);
        for (key, params) in [("sigmoid", json!({})), ("logit", json!({ "raw": true }))] {
            let outputs = run(&model, &golden["pairs"], &params).await;
            let found = outputs[0].1.to_vec::<f32>().unwrap();
            let expected: Vec<_> = expected.iter().map(|pair| &pair[key]).collect();
            let largest = difference(&found, &json!(expected));
            println!("{} {key}: {largest:.2e}", runtime.backend());
            assert!(largest <= 1e-4, "{} {key}: {largest}", runtime.backend());
        }
    }
}

#[tokio::test]
async fn embeddings_equal_the_reference() {
    let golden = golden();
    let expected = &golden["models"]["minilm-embedding"]["embeddings"];
    let texts = list(&golden["texts"]);
    for runtime in &runtimes() {
        let folder = Folder::import("minilm-embedding", "model", runtime).unwrap();
        assert!(folder.card.contains("pooling = \"mean\"\nnormalize = true"), "{}", folder.card);
        let model = folder.load(runtime, &[]);
        let found = numbers_of_all(&model, &golden["texts"]).await;
        let rows = found.chunks_exact(32).zip(list(&expected["normalized_mean"]));
        let mut largest = rows.map(|(row, expected)| difference(row, expected)).fold(0.0, f64::max);
        for pooling in ["mean", "cls", "last"] {
            for normalize in [false, true] {
                let edit = format!("pooling = \"{pooling}\"\nnormalize = {normalize}");
                let model = folder.load(runtime, &[("pooling = \"mean\"\nnormalize = true", &edit)]);
                let expected = if normalize { &expected["normalized"][pooling] } else { &expected[pooling] };
                for (index, expected) in list(&golden["models"]["minilm-embedding"]["embeddings"]["indices"])
                    .iter()
                    .zip(list(expected))
                {
                    let text = &texts[index.as_u64().unwrap() as usize];
                    largest = largest.max(difference(&numbers(&model, text, "embeddings").await, expected));
                }
            }
        }
        println!("{}: {largest:.2e}", runtime.backend());
        assert!(largest <= 1e-4, "{}: {largest}", runtime.backend());
    }
}

#[tokio::test]
async fn spans_equal_the_reference() {
    let golden = golden();
    let expected = list(&golden["models"]["bert-ner"]["spans"]);
    for runtime in &runtimes() {
        let folder = Folder::import("bert-ner", "model", runtime).unwrap();
        let model = folder.load(runtime, &[TRUNCATED]);
        let mut largest: f64 = 0.0;
        for (text, expected) in list(&golden["texts"]).iter().zip(expected) {
            let outputs = run(&model, &json!([text]), &json!({})).await;
            let spans = &outputs.iter().find(|(name, _)| name == "spans").unwrap().1;
            let spans: Value = serde_json::from_slice(spans.data()).unwrap();
            let found: Vec<_> =
                list(&spans[0]).iter().map(|s| json!([s["label"], s["start"], s["end"]])).collect();
            let places: Vec<_> = list(expected).iter().map(|s| json!([s[0], s[2], s[3]])).collect();
            assert_eq!(found, places, "{} {text}", runtime.backend());
            for (found, expected) in list(&spans[0]).iter().zip(list(expected)) {
                let difference = found["score"].as_f64().unwrap() - expected[1].as_f64().unwrap();
                largest = largest.max(difference.abs());
            }
        }
        println!("{}: {largest:.2e}", runtime.backend());
        assert!(largest <= 1e-4, "{}: {largest}", runtime.backend());
    }
}

#[test]
fn rten_rejects_half_outputs_with_remedy() {
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Off }).unwrap();
    let error = rejection("roberta", "model_fp16", &runtime);
    let expected = "not supported by rten: output `logits` is f16, expected one of f32, i32, i64, u8; install ONNX Runtime";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn rten_names_an_unknown_operator() {
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: Onnxruntime::Off }).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json"] {
        fs::copy(exports().join("wordlevel").join(file), scratch.path().join(file)).unwrap();
    }
    // An operator of the same length that no library has.
    let mut model = fs::read(exports().join("wordlevel/onnx/model.onnx")).unwrap();
    let at = model.windows(6).position(|bytes| bytes == b"MatMul").unwrap();
    let count =
        (at..model.len() - 6).filter(|&at| model[at - 2..at + 6] == *b"\x22\x06MatMul").collect::<Vec<_>>();
    count.iter().for_each(|&at| model[at..at + 6].copy_from_slice(b"MatMux"));
    fs::write(scratch.path().join("model.onnx"), model).unwrap();
    let destination = scratch.path().join("out");
    let request = Request {
        folder: scratch.path(),
        file: None,
        labels: None,
        name: "a",
        source: None,
        destination: &destination,
    };
    let error = format!("{:#}", import(&request, &runtime).unwrap_err());
    assert!(error.contains("MatMux") && error.contains("install ONNX Runtime"), "{error}");
}

#[test]
fn card_of_an_import_is_complete() {
    let runtime = &runtimes()[0];
    let folder = Folder::import("roberta", "model", runtime).unwrap();
    let card = &folder.imported.card;
    let text = card.text.as_ref().unwrap();
    assert_eq!((text.max_tokens, text.stride), (128, Some(32)));
    assert_eq!((card.license.as_str(), card.source.as_str()), ("unknown", "unknown"));
    assert_eq!(card.tests.len(), 1);
    assert!(card.categories.values().all(|category| category.proposed && category.threshold == Some(0.5)));
    assert!(card.unused_labels().is_empty());
    let names: Vec<_> = fs::read_dir(folder.scratch.path().join("imported")).unwrap().collect();
    assert_eq!((names.len(), card.files.len()), (4, 3));
    // Nothing but the result is left.
    assert_eq!(fs::read_dir(folder.scratch.path()).unwrap().count(), 1);
    assert!(Path::new(&folder.scratch.path().join("imported/labels.txt")).is_file());
}
