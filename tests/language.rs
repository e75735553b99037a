use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn infer(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.args(arguments).env_remove("INFER_CONFIG").env_remove("INFER_LOG").output().unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn generated_text_is_the_same_each_time() {
    let arguments = ["generate", "--model", "smollm2", "-o", "json", "--max-tokens", "12", "Name a colour."];
    let (first, second) = (json_of(&infer(&arguments)), json_of(&infer(&arguments)));
    assert_eq!(first["text"], second["text"]);
    assert_eq!(first["usage"]["generated_tokens"], first["tokens"].as_array().unwrap().len());
    assert_eq!(first["dummy"], false);
}

#[test]
fn likelier_choice_scores_higher() {
    let output = infer(&[
        "score",
        "--model",
        "smollm2",
        "-o",
        "json",
        "--raw",
        "The capital of France is",
        "--choices",
        " Paris, banana",
    ]);
    let report = json_of(&output);
    let probability = |index: usize| report["choices"][index]["probability"].as_f64().unwrap();
    assert!(probability(0) > 0.99, "{report}");
    assert!((probability(0) + probability(1) - 1.0).abs() < 1e-6, "{report}");
}

#[test]
fn model_of_another_kind_is_rejected() {
    for (model, expected) in [
        ("toxic-bilstm", "model `toxic-bilstm` is for text-classification, expected a language model"),
        ("nothing", "no model `nothing` in built-in configuration; expected one of"),
    ] {
        let output = infer(&["score", "--model", model, "x", "--choices", "a,b"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn damaged_model_is_rejected_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/language/qwen2-q5_0.gguf");
    let bytes = std::fs::read(data).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let output = infer(&["score", "--model", path.to_str().unwrap(), "x", "--choices", "a,b"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("tensor `"), "{stderr}");
}
