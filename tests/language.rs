use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use infer::routes::CATEGORIES;
use serde_json::{Value, json};

use crate::harness::{Server, load};

/// SmolLM2 cannot moderate: what it says is not tested, but that it is asked, and how.
const CASCADE: &str = r#"
    [models.toxic-bilstm]
    source = "builtin:toxic-bilstm"
    [models.smollm2]
    source = "builtin:smollm2"
    [components.moderate]
    source = "builtin:moderate"
    route = "/moderate"
    models = { text = "toxic-bilstm", language = "smollm2" }
    settings = { "cascade.low" = 0.0, "cascade.high" = 1000 }
    limits = { compute_ms = 60000 }
    [server]
    deadline_ms = 120000
"#;

fn infer(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.args(arguments).env_remove("INFER_CONFIG").env_remove("INFER_LOG").output().unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn second_request_computes_none_of_the_policy_again() {
    let server = Server::start(Arc::new(load(CASCADE))).await;
    let (status, first) = server.moderate(&json!({ "input": "They lost again." })).await;
    assert!(status.is_success(), "{first}");
    let (_, second) = server.moderate(&json!({ "input": "An entirely different text, and a longer one." })).await;
    let (first, second) = (&first["infer"]["tokens"], &second["infer"]["tokens"]);
    assert_eq!(first["cached_tokens"], 0);
    let number = |value: &Value| value.as_u64().unwrap();
    let fresh = number(&second["prompt_tokens"]) - number(&second["cached_tokens"]);
    assert!(number(&second["cached_tokens"]) > 400, "{second}");
    assert!(fresh < 30, "{second}: more than the user's turn was computed");
}

#[tokio::test]
async fn verdict_says_which_tier_decided() {
    let server = Server::start(Arc::new(load(CASCADE))).await;
    let (_, body) = server.moderate(&json!({ "input": "You are so dumb and stupid!" })).await;
    assert_eq!(body["infer"]["tiers"]["harassment"], json!(["language"]), "{body}");
    assert_eq!(body["infer"]["tiers"]["sexual"], json!(["classifier"]), "{body}");
    assert_eq!(body["results"][0]["categories"].as_object().unwrap().len(), CATEGORIES.len());
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
        "score", "--model", "smollm2", "-o", "json", "--raw", "The capital of France is", "--choices", " Paris, banana",
    ]);
    let report = json_of(&output);
    let probability = |index: usize| report["choices"][index]["probability"].as_f64().unwrap();
    assert!(probability(0) > 0.99, "{report}");
    assert!((probability(0) + probability(1) - 1.0).abs() < 1e-6, "{report}");
}

#[test]
fn model_that_is_no_language_model_is_refused() {
    for (model, expected) in [
        ("toxic-bilstm", "model `toxic-bilstm` is for text-classification, expected a language model"),
        ("nothing", "no model `nothing` in the built-in configuration; expected one of"),
    ] {
        let output = infer(&["score", "--model", model, "x", "--choices", "a,b"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{stderr}");
    }
}

#[test]
fn damaged_model_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.gguf");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/language/qwen2-q5_0.gguf");
    let bytes = std::fs::read(data).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let output = infer(&["score", "--model", path.to_str().unwrap(), "x", "--choices", "a,b"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("tensor `"), "{stderr}");
}
