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
    assert!(!valid && text.contains("the setting `threshold.harassment` is also in `"), "{text}");
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

#[test]
fn language_budget_fits_the_cascade() {
    let folder = tempfile::tempdir().unwrap();
    let model = repository().join("tests/data/language/qwen2-q6_k.gguf");
    let component = format!(
        "[models.text]\nsource = \"builtin:toxic-bilstm\"\n[models.tiny]\nsource = {model:?}\nthreads = 1\n\
         packed_cache = false\n[components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
         models = {{ text = \"text\", language = \"tiny\" }}\n"
    );
    let policy = |choices: &str, further: &str| {
        let own = r#""policy.text" = "Be kind.", "policy.max_bytes" = 256"#;
        format!("settings = {{ {own}, \"policy.choices\" = \"{choices}\"{further} }}\n")
    };
    let calibrate = |arguments: &[&str]| {
        let all = ["calibrate", "--data", "labelled.jsonl", "--format", "json"];
        run(folder.path(), &[&all[..], arguments].concat())
    };
    // Insults of which one in four is uncertain, and harmless texts of which the last four have
    // unknown words.
    let lines: Vec<_> = (0..40)
        .map(|index| {
            let text = match index % 8 {
                0..=2 => "You are a complete idiot",
                3 => "what a bunch of losers, honestly, these women",
                _ => "The river is calm this morning",
            };
            let strange = if index >= 36 { " qzxv wrtpl bnmkq vvxz qqwr zzkj wqpx xxvk" } else { "" };
            let labels = json!({ "harassment": index % 8 < 4 });
            json!({ "text": format!("{text} {index}{strange}"), "labels": labels }).to_string()
        })
        .collect();
    fs::write(folder.path().join("labelled.jsonl"), lines.join("\n")).unwrap();
    // The answers of a random model are better than chance in one order of the choices.
    let mut fitted = Vec::new();
    for choices in ["x, y", "y, x"] {
        configure(folder.path(), &format!("{component}{}", policy(choices, "")));
        let output = calibrate(&["--language-budget", "0.5"]);
        match output.status.success() {
            true => fitted.push((choices, output)),
            false => assert!(printed(&output).contains("no better than chance"), "{}", printed(&output)),
        }
    }
    assert_eq!(fitted.len(), 1);
    let (choices, output) = fitted.remove(0);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", printed(&output)));
    let cascade = &report["cascade"];
    let number = |name: &str| cascade[name].as_f64().unwrap_or_else(|| panic!("{name}: {report}"));
    assert!(number("triggered") > 0.0 && number("triggered") <= number("reached"), "{report}");
    assert!(number("reached") <= 0.5 && number("high") >= number("low"), "{report}");
    assert!(cascade["triggers"]["unknown-words"].as_u64().unwrap() >= 3, "{report}");
    let ranking = &cascade["categories"]["harassment"];
    assert_eq!((&ranking["examples"], &ranking["positive"]), (&json!(40), &json!(20)));
    assert!(ranking["cascade"].as_f64() >= ranking["classifier"].as_f64(), "{report}");
    assert!(ranking["language"].as_f64().unwrap() != ranking["classifier"].as_f64().unwrap(), "{report}");

    let check = |further: &str| {
        let settings = policy(choices, further);
        configure(folder.path(), &format!("{component}thresholds = \"thresholds.toml\"\n{settings}"));
        let output = run(folder.path(), &["check"]);
        (output.status.success(), printed(&output))
    };
    let (valid, text) = check("");
    assert!(valid, "{text}");
    let (valid, text) = check(r#", "cascade.low" = 0.5"#);
    assert!(!valid && text.contains("the setting `cascade.low` is also in `"), "{text}");
    let (valid, text) = check(r#", "policy.question" = "Is it rude?""#);
    assert!(!valid && text.contains("--data labelled.jsonl --language-budget 0.5 -o"), "{text}");

    configure(folder.path(), &format!("{component}{}", policy(choices, "")));
    let output = calibrate(&["--language-budget", "0.01"]);
    let text = printed(&output);
    assert!(!output.status.success() && text.contains("triggers alone send"), "{text}");
    let text = printed(&calibrate(&["--max-fpr", "0.05"]));
    assert!(text.contains("or the use of the language model with `--language-budget`"), "{text}");
}
