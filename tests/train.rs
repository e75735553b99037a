//! `infer train` and `infer calibrate`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{infer, repository};
use crate::text_models::exports;

/// Runs `infer` in `folder` with the configuration `infer.toml` there, and with rten.
fn run(folder: &Path, arguments: &[&str]) -> Output {
    infer(folder).args(arguments).output().unwrap()
}

fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

/// Writes a configuration that begins with the choice of rten.
fn configure(folder: &Path, text: &str) {
    fs::write(folder.join("infer.toml"), format!("[server]\nonnxruntime = \"off\"\n{text}")).unwrap();
}

/// An encoder in the folder `encoder`, which knows some hundred words.
fn encoder(folder: &Path) {
    configure(folder, "");
    let export = exports().join("minilm-embedding").display().to_string();
    let output = run(folder, &["import", &export, "-o", "encoder"]);
    assert!(output.status.success(), "{}", printed(&output));
}

/// Texts about two subjects, labelled by subject.
fn posts(count: usize) -> String {
    let mut lines = String::new();
    for index in 0..count {
        let spam = index % 2 == 0;
        let text = if spam { "win a prize now, call us" } else { "the river is calm this morning" };
        writeln!(lines, "{}", json!({"text": format!("{text} {index}"), "label": spam, "id": index}))
            .unwrap();
    }
    lines
}

/// Trains a head for spam on posts.jsonl.
fn train(folder: &Path, further: &[&str]) -> Output {
    let arguments = ["train", "--encoder", "encoder", "--data", "posts.jsonl", "--category", "spam"];
    run(folder, &[&arguments, further].concat())
}

#[test]
fn equal_data_train_equal_heads() {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path());
    fs::write(folder.path().join("posts.jsonl"), posts(40)).unwrap();
    let train = |output: &str| train(folder.path(), &["-o", output, "--format", "json"]);
    let (one, other) = (train("heads/one"), train("heads/other"));
    assert!(one.status.success() && other.status.success(), "{}{}", printed(&one), printed(&other));
    let read = |name: &str| fs::read_to_string(folder.path().join("heads").join(name)).unwrap();
    assert_eq!(read("one.toml"), read("other.toml"));
    let report: Value = serde_json::from_slice(&one.stdout).unwrap();
    assert_eq!((&report["head"], &report["data"]["labelled"]), (&json!("heads/one.toml"), &json!(40)));
    assert!(report["out_of_fold"]["auroc"].as_f64().unwrap() > 0.9, "{report}");
    assert_eq!(report["out_of_fold"]["calibration_error"], Value::Null, "40 examples are too few");

    let config = "[models.encoder]\nsource = \"encoder\"\nheads = [\"heads/one.toml\"]\n[components.moderate]\n\
                  source = \"builtin:moderate\"\nroute = \"/moderate\"\nmodels = { text = \"encoder\" }\n";
    configure(folder.path(), config);
    let score = |text: &str| {
        let output = run(folder.path(), &["moderate", "-o", "json", text]);
        let verdict: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", printed(&output)));
        let spam = &verdict["infer"]["categories"][0]["spam"];
        (spam["score"].as_f64().unwrap(), spam["flagged"].as_bool().unwrap())
    };
    let (spam, calm) = (score("win a prize now, call us 8"), score("the river is calm this morning 9"));
    assert!(spam.1 && !calm.1 && spam.0 > calm.0, "{spam:?} {calm:?}");
}

#[test]
fn unfit_data_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path());
    let arguments =
        ["train", "--encoder", "encoder", "--data", "d.jsonl", "--category", "spam", "-o", "head"];
    for (data, words) in [
        (posts(10), "has 10 examples of `spam` to train on, 5 of them positive; expected at least 16"),
        (posts(40).replace("true", "false"), "0 of them positive"),
        (posts(20).replace("\"label\":true", "\"label\":NaN"), "d.jsonl:1: expected value"),
    ] {
        fs::write(folder.path().join("d.jsonl"), data).unwrap();
        let output = run(folder.path(), &arguments);
        assert!(!output.status.success() && printed(&output).contains(words), "{}", printed(&output));
        assert!(!folder.path().join("head.toml").exists());
    }
}

#[test]
fn language_model_labels_are_asked_for_once() {
    let folder = tempfile::tempdir().unwrap();
    encoder(folder.path());
    let config = format!(
        "[models.tiny]\nsource = {:?}\nthreads = 1\npacked_cache = false\n[components.moderate]\nsource = \"builtin:moderate\"\n\
         models = {{ language = \"tiny\" }}\nsettings = {{ \"policy.text\" = \"Be kind.\", \"policy.choices\" = \"x, y\" }}\n",
        repository().join("tests/data/language/qwen2-q6_k.gguf")
    );
    configure(folder.path(), &config);
    // Sixteen lines have labels, and eight have none.
    let unlabelled = (0..8).map(|index| format!("{}\n", json!({"text": format!("a post {index}")})));
    fs::write(folder.path().join("posts.jsonl"), posts(16) + &unlabelled.collect::<String>()).unwrap();
    let ask = || {
        let output =
            train(folder.path(), &["-o", "head", "--from-language-model", "tiny", "--format", "json"]);
        let report: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", printed(&output)));
        report["language_model"].clone()
    };
    let first = ask();
    assert_eq!((&first["labels"], &first["compared"], &first["reused"]), (&json!(8), &json!(16), &json!(0)));
    let second = ask();
    assert_eq!((&second["reused"], &second["kappa"]), (&json!(24), &first["kappa"]));
    let labelled = fs::read_to_string(folder.path().join("posts.labelled.jsonl")).unwrap();
    assert_eq!(labelled.lines().count(), 24);
}

/// Labelled texts of which the shipped text model flags those with a label.
fn labelled(count: usize) -> String {
    let mut lines = String::new();
    for index in 0..count {
        let harassment = index % 8 == 0;
        let text = if harassment { "You are a complete idiot" } else { "The river is calm this morning" };
        let line = json!({"text": format!("{text} {index}"), "labels": {"harassment": harassment}, "language": "en"});
        writeln!(lines, "{line}").unwrap();
    }
    lines
}

#[test]
fn calibrated_thresholds_hold_for_their_versions() {
    let folder = tempfile::tempdir().unwrap();
    let component = "[models.text]\nsource = \"builtin:toxic-bilstm\"\n[components.moderate]\nsource = \"builtin:moderate\"\n\
                     route = \"/moderate\"\nmodels = { text = \"text\" }\n";
    configure(folder.path(), component);
    let calibrate = |extra: &[&str]| {
        let arguments =
            ["calibrate", "--component", "moderate", "--data", "labelled.jsonl", "--max-fpr", "0.05"];
        run(folder.path(), &[&arguments[..], extra].concat())
    };
    fs::write(folder.path().join("labelled.jsonl"), labelled(40)).unwrap();
    let small = calibrate(&[]);
    let text = printed(&small);
    assert!(
        !small.status.success() && text.contains("too small: 35 examples could be errors, needs at least 59"),
        "{text}"
    );
    assert!(!folder.path().join("thresholds.toml").exists());

    fs::write(folder.path().join("labelled.jsonl"), labelled(160)).unwrap();
    let output = calibrate(&["--format", "json"]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", printed(&output)));
    let harassment = &report["categories"][0];
    assert_eq!((&harassment["category"], &harassment["positive"]), (&json!("harassment"), &json!(20)));
    assert!(harassment["guarantee"]["upper"].as_f64().unwrap() <= 0.05, "{report}");
    assert!(harassment["languages"]["en"]["guarantee"].is_object(), "{report}");

    let check = |text: &str| {
        configure(folder.path(), &format!("{component}thresholds = \"thresholds.toml\"\n{text}"));
        let output = run(folder.path(), &["check"]);
        (output.status.success(), printed(&output))
    };
    let (valid, text) = check("");
    assert!(valid, "{text}");
    let (valid, text) = check("settings = { \"threshold.harassment\" = 0.5 }\n");
    assert!(!valid && text.contains("the setting `threshold.harassment` and `"), "{text}");
    let (valid, text) = check("settings = { \"image.max_count\" = 3 }\n");
    assert!(!valid && text.contains("thresholds.toml` is stale: the set of other settings has"), "{text}");
    assert!(
        text.contains("run `infer calibrate --component moderate --data labelled.jsonl --max-fpr 0.05"),
        "{text}"
    );
    // A stale file does not prevent its renewal.
    assert!(calibrate(&[]).status.success());
    let (valid, text) = check("settings = { \"image.max_count\" = 3 }\n");
    assert!(valid, "{text}");
}
