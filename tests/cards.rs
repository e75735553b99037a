use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_sdk::image::{Filter, Recipe};
use guest_sdk::settings::Settings;
use infer_config::{Config, Origin};
use infer_control::{component::card_facts, registry::Registry};
use infer_engine::{Card, ImageSpec, RunError};
use infer_sandbox::types::{NamedTensor, TensorType};
use infer_sandbox::{CallError, Request};
use reqwest::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::harness::{Server, answer, infer, repository};

const IMAGE: &str = include_str!("../weights/efficientnet-lite0-int8/card.toml");

/// The facts that a guest reads from the card IMAGE.
const FACTS: [(&str, &str); 8] = [
    ("dtype", "f32"),
    ("layout", "NCHW"),
    ("shape", "N,3,224,224"),
    ("image.color", "RGB"),
    ("image.crop", "0.875"),
    ("image.filter", "bicubic"),
    ("image.mean", "127"),
    ("image.std", "128"),
];

/// True if the SDK accepts the facts with `value` at `key`.
fn sdk_takes(key: &str, value: &str) -> bool {
    let fact = |(known, fact): (&str, &str)| {
        (format!("models.image.input.{known}"), if known == key { value } else { fact }.to_owned())
    };
    let mut pairs = FACTS.map(fact).to_vec();
    pairs.push(("models.image.task".to_owned(), "image-classification".to_owned()));
    let settings = Settings::from_pairs(pairs);
    Recipe::from_card(&settings.card("image").unwrap()).is_ok()
}

/// True if the card parses with `from` replaced by `value`, in TOML.
fn card_is_read(from: &str, value: &str) -> bool {
    assert!(IMAGE.contains(from), "the card has no {from}");
    Card::parse(&IMAGE.replacen(from, value, 1)).is_ok()
}

#[test]
fn cards_and_sdk_accept_the_same_recipes() {
    assert_eq!(ImageSpec::FILTERS, Filter::NAMED.map(|(name, _)| name));
    let text = |key, from: &'static str, values: &[&'static str]| {
        values
            .iter()
            .map(|value| (key, from, format!("\"{value}\""), (*value).to_owned()))
            .collect::<Vec<_>>()
    };
    let numbers = |key, from: &'static str, values: &[&'static str]| {
        let toml = |value: &str| if value.contains(',') { format!("[{value}]") } else { value.to_owned() };
        values.iter().map(|value| (key, from, toml(value), (*value).to_owned())).collect::<Vec<_>>()
    };
    let shape = |fact: &str| {
        let axis =
            |axis: &str| if axis.parse::<u32>().is_ok() { axis.to_owned() } else { format!("{axis:?}") };
        format!("[{}]", fact.split(',').map(axis).collect::<Vec<_>>().join(", "))
    };
    let channels = [
        "0",
        "127.5",
        "-3",
        "1e-40",
        "123.7,116.3,103.5",
        "0,1,2",
        "1,2",
        "1,2,3,4",
        "nan",
        "inf",
        "1,nan,1",
    ];
    let cases = [
        text(
            "image.filter",
            "\"bicubic\"",
            &["nearest", "bilinear", "bicubic", "lanczos", "lanczos3", "Bicubic", "box", ""],
        ),
        text("image.color", "\"RGB\"", &["RGB", "BGR", "rgb", "GRAY", ""]),
        text("layout", "\"NCHW\"", &["NCHW", "NHWC", "nchw", "CHW", ""]),
        text("dtype", "\"f32\"", &["f32", "u8", "f16", "i64"]),
        numbers("image.crop", "0.875", &["1.0", "0.5", "0.0", "1.5", "-1.0", "nan"]),
        numbers("image.mean", "127.0", &channels),
        numbers("image.std", "128.0", &channels),
        ["N,3,8,8", "N,1,8,8", "N,3,8", "N,8,8,3", "N,3,8,8,1", "N,3,H,8", "N,C,8,8"]
            .map(|fact| ("shape", "[\"N\", 3, 224, 224]", shape(fact), fact.to_owned()))
            .to_vec(),
    ];
    for (key, from, toml, fact) in cases.into_iter().flatten() {
        assert_eq!(card_is_read(from, &toml), sdk_takes(key, &fact), "{key} = {fact}");
    }
}

/// Writes the built-in image model into `folder`, with `changes` to its card and without
/// self-tests.
fn image_model(folder: &Path, changes: &[(&str, &str)]) {
    let mut card = IMAGE.split("# Asked before").next().unwrap().to_owned();
    for (from, to) in changes {
        assert!(card.contains(from), "the card has no {from}");
        card = card.replacen(from, to, 1);
    }
    std::fs::write(folder.join("card.toml"), card).unwrap();
    for file in ["model.onnx", "labels.txt"] {
        std::fs::copy(repository().join("weights/efficientnet-lite0-int8").join(file), folder.join(file))
            .unwrap();
    }
}

fn registry(config: &str) -> Registry {
    let config = Config::parse(config, &Origin::File(repository().join("infer.toml"))).unwrap();
    Registry::load(config).unwrap()
}

#[test]
fn means_of_each_channel_reach_guests() {
    let folder = tempfile::tempdir().unwrap();
    let changes =
        [("127.0", "[123.7, 116.25, 103.5]"), ("128.0", "[58.5, 57, 57.25]"), ("\"bicubic\"", "\"lanczos\"")];
    image_model(folder.path(), &changes);
    let registry =
        registry(&format!("[server]\nonnxruntime = \"off\"\n[models.m]\nsource = {:?}\n", folder.path()));
    let settings = Settings::from_pairs(card_facts("image", &registry.models["m"]));
    let recipe = Recipe::from_card(&settings.card("image").unwrap()).unwrap();
    assert_eq!((recipe.mean, recipe.std), ([123.7, 116.25, 103.5], [58.5, 57.0, 57.25]));
    assert_eq!(recipe.filter, Filter::Lanczos);
}

#[test]
fn check_reports_batching_of_each_model() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("apart")).unwrap();
    image_model(&folder.path().join("apart"), &[("batch_axis = 0\n", "")]);
    let data = repository().join("host/engine/tests/data/fixed-batch");
    let config = format!(
        "[server]\nonnxruntime = \"off\"\n[models.apart]\nsource = \"apart\"\n[models.fixed]\nsource = {data:?}\n\
         [models.together]\nsource = \"builtin:toxic-bilstm\"\nmax_batch = 4\n"
    );
    std::fs::write(folder.path().join("infer.toml"), config).unwrap();
    let output = infer(folder.path()).arg("check").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    let found: Vec<_> = text.lines().filter(|line| line.starts_with("  batches ")).collect();
    let expected = [
        "  batches      none: its card has no `batch_axis = 0`, so rows of axis 0 may depend on each other",
        "  batches      none: axis 0 of input `x` is always 1",
        "  batches      up to 4 rows of all requests",
    ];
    assert_eq!(found, expected, "{text}");
}

#[test]
fn gguf_is_detected_by_its_magic_number() {
    let folder = tempfile::tempdir().unwrap();
    let model = repository().join("tests/data/language/llama-q4_1.gguf");
    std::fs::copy(model, folder.path().join("blob")).unwrap();
    std::fs::write(folder.path().join("other"), "ONNX, perhaps").unwrap();
    let check = |source: &str| {
        let config = format!(
            "[server]\nonnxruntime = \"off\"\n[models.m]\nsource = {source:?}\npacked_cache = false\n"
        );
        std::fs::write(folder.path().join("infer.toml"), config).unwrap();
        let output = infer(folder.path()).arg("check").output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (loaded, said) = check("blob");
    assert!(loaded, "{said}");
    let (loaded, said) = check("other");
    let expected =
        "is neither a folder with a card.toml nor a GGUF file, which begins with `GGUF`; expected a path";
    assert!(!loaded && said.contains(expected), "{said}");
    let (loaded, said) = check("missing");
    assert!(!loaded && said.contains("does not exist"), "{said}");
}

/// Both requests and guests: a size over its limit is rejected before it is queued.
#[tokio::test]
async fn axes_are_bounded_for_requests_and_guests() {
    let config = "[server]\nonnxruntime = \"off\"\n[models.rows]\nsource = \"host/engine/tests/data/identity-f32\"\n\
                  [components.predict]\nsource = \"builtin:predict\"\nmodels = { rows = \"rows\" }\n";
    let registry = Arc::new(registry(config));
    let expected = "input `x`: axis 0 (`N`) is 129, expected at most 128; split the rows into several jobs";

    let server = Server::start(registry.clone()).await;
    let input = json!({ "name": "x", "datatype": "FP32", "shape": [129, 3], "data": vec![0.5; 387] });
    let (status, body) =
        answer(server.post("/v2/models/rows/infer").json(&json!({ "inputs": [input] }))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert!(body.to_string().contains(expected), "{body}");

    let input = NamedTensor {
        name: "x".into(),
        dimensions: vec![129, 3],
        ty: TensorType::Fp32,
        data: vec![0; 1_548],
    };
    let request = Request::new(Arc::from("test"), Instant::now() + Duration::from_secs(60));
    let outcome = registry.components["predict"].component.predict(&request, "rows", &[input]).await;
    match outcome.result {
        Err(CallError::Fault { model: Some(RunError::InvalidInput { message, .. }), .. }) => {
            assert_eq!(message, expected);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(registry.models["rows"].stats().computed, 0);
}

#[test]
fn lock_pins_external_data() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    let data = repository().join("host/engine/tests/data/identity-f32");
    std::fs::copy(data.join("model.onnx"), model.join("model.onnx")).unwrap();
    let card = std::fs::read_to_string(data.join("card.toml")).unwrap();
    let write = |content: &str| {
        std::fs::write(model.join("weights.bin"), content).unwrap();
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        let file = format!(
            "[[files]]\npath = \"weights.bin\"\nrole = \"data\"\nbytes = {}\nsha256 = \"{digest}\"\n\n[[inputs]]",
            content.len()
        );
        std::fs::write(model.join("card.toml"), card.replacen("[[inputs]]", &file, 1)).unwrap();
    };
    write("one");
    let config = "[server]\nonnxruntime = \"off\"\n[models.m]\nsource = \"model\"\n";
    std::fs::write(folder.path().join("infer.toml"), config).unwrap();
    let run = |command: &str| {
        let output = infer(folder.path()).arg(command).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run("lock"), (true, String::new()));
    assert!(run("check").0);
    write("two");
    let (loaded, said) = run("check");
    assert!(!loaded && said.contains("model `m` has sha256 ") && said.contains("pins "), "{said}");
    std::fs::write(model.join("weights.bin"), "one").unwrap();
    let (loaded, said) = run("check");
    assert!(!loaded && said.contains("weights.bin` has sha256 "), "{said}");
}
