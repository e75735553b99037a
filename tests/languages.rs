use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use infer_control::component::component_hash;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, answer, load, photo, repository, skip};
use crate::reload::{edit, version};

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

/// Text model of the shipped weights.
const ONE: &str = "text = \"toxic-bilstm\"";

/// Beside it, a model with other categories, one that labels spans, and one for images.
const FOUR: &str = "text = \"toxic-bilstm\", text2 = \"second\", names = \"names\", image = \"photos\"";

/// Sections of the models `second` and `names`, whose folders stay until the tests end.
static SECTIONS: LazyLock<String> = LazyLock::new(|| {
    static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let second = version(FOLDER.path(), "second");
    let insult = "[categories.insult]\nmax = [\"insult\"]";
    edit(&second.join("card.toml"), insult, "[categories.violence]\nsum = [\"insult\", \"threat\"]");
    let names = token_classifier(&FOLDER.path().join("names"));
    format!("[models.second]\nsource = {second:?}\n[models.names]\nsource = {names:?}\n")
});

/// A folder with a small model of random weights that labels spans.
fn token_classifier(folder: &Path) -> PathBuf {
    let export = repository().join("tests/data/text-models/bert-ner");
    fs::create_dir_all(folder).unwrap();
    fs::copy(export.join("onnx/model.onnx"), folder.join("model.onnx")).unwrap();
    fs::copy(export.join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    fs::write(folder.join("labels.txt"), "O\nB-PER\nI-PER\nB-EMAIL\nI-EMAIL\nB-PHONE\nI-PHONE\n").unwrap();
    let file = |name: &str, role: &str| {
        let bytes = fs::read(folder.join(name)).unwrap();
        let (size, sha256) = (bytes.len(), component_hash(&bytes));
        format!("[[files]]\npath = {name:?}\nrole = {role:?}\nbytes = {size}\nsha256 = {sha256:?}\n")
    };
    let input = |name: &str| {
        let shape = "[\"N\", { name = \"T\", max = 64 }]";
        format!("[[inputs]]\nname = {name:?}\ndtype = \"i64\"\nshape = {shape}\n")
    };
    let card = [
        "name = \"names\"\ntask = \"token-classification\"\nformat = \"onnx\"\ndescription = \"random\"\n\
         license = \"Apache-2.0\"\nsource = \"tests/text_models\"\nlabels = \"labels.txt\"\nbatch_axis = 0\n"
            .to_owned(),
        file("model.onnx", "model"),
        file("labels.txt", "labels"),
        file("tokenizer.json", "tokenizer"),
        "[text]\nmax_tokens = 64\nstride = 16\n".to_owned(),
        input("input_ids"),
        input("attention_mask"),
        input("token_type_ids"),
        "[[outputs]]\nname = \"logits\"\ndtype = \"f32\"\nshape = [\"N\", \"T\", 7]\n".to_owned(),
        "[categories.personal-data]\nmax = [\"B-PER\", \"B-EMAIL\", \"B-PHONE\"]\n".to_owned(),
    ];
    fs::write(folder.join("card.toml"), card.concat()).unwrap();
    folder.to_owned()
}

fn configured(source: &str, models: &str, settings: &str) -> String {
    let sections = if models == FOUR { SECTIONS.as_str() } else { "" };
    // Runtimes of other languages need more memory than Rust guests, and more time per text.
    format!(
        "[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n[models.photos]\nsource = \"builtin:efficientnet-lite0-int8\"\n{sections}\
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
    vec![
        json!("You are a complete idiot."),
        json!("Thank you for fixing the article so quickly, it reads much better now."),
        json!(""),
        json!("!!! ??? 123"),
        json!("ΣΊΣΥΦΟΣ straße İstanbul 😀 naïve café"),
        json!("i will kill \"you\"\tand\r\n\\your\0 dog\u{2028}you\u{200b}idiot"),
        json!(long),
        json!([part("hello"), part("you stupid idiot"), part("write to john@example.com")]),
    ]
}

/// True if two values differ at most in the last bits of their numbers.
fn agree(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len()
                && found.iter().zip(expected).all(|(found, expected)| agree(found, expected))
        }
        (Value::Object(found), Value::Object(expected)) => {
            let same = |(key, found): (&String, &Value)| {
                expected.get(key).is_some_and(|expected| agree(found, expected))
            };
            found.len() == expected.len() && found.iter().all(same)
        }
        (Value::Number(_), Value::Number(_)) => {
            (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < 1e-6
        }
        _ => found == expected,
    }
}

/// Asserts that two answers agree in categories, scores, flags, gaps, and spans.
fn assert_same(name: &str, input: &Value, found: &Value, expected: &Value) {
    let (one, other) = (&found["results"], &expected["results"]);
    assert!(agree(one, other), "{name}: {input}: {one}, expected {other}");
    for member in ["degraded", "categories", "spans"] {
        let (one, other) = (&found["infer"][member], &expected["infer"][member]);
        assert!(agree(one, other), "{name}: {input}: `{member}` is {one}, expected {other}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_judge_alike_in_every_language() {
    let strict =
        "\"threshold.harassment\" = 0.001, \"threshold.hate/threatening\" = 0.9, \"threshold.insult\" = 0.1";
    let chosen = "\"category.harassment\" = \"text2\", \"category.hate\" = \"min(toxic, insult)\", \
                  \"category.sexual\" = \"text2: not(toxic)\"";
    let cases = [(ONE, ""), (ONE, strict), ("", ""), ("text = \"photos\"", ""), (FOUR, ""), (FOUR, chosen)];
    for (name, target) in GUESTS {
        let Some(path) = built(name, target) else { continue };
        let source = path.display().to_string();
        for (models, settings) in cases {
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
    let idle = json!("a few words");
    let endless = json!("you are so stupid ".repeat(4_000));
    let cases = [
        (ONE, "\"threshold.hate\" = \"high\"", &idle),
        (ONE, "\"threshold.hate\" = \"0x10\"", &idle),
        (ONE, "\"threshold.hate\" = \"1_0\"", &idle),
        (ONE, "\"threshold.hate\" = \" 0.5 \"", &idle),
        (ONE, "\"category.hate\" = \"text9\"", &idle),
        (ONE, "\"category.hate\" = \"all(toxic)\"", &idle),
        (ONE, "\"category.hate\" = \"text: max(rude)\"", &idle),
        (ONE, "\"category.violence\" = \"text\"", &idle),
        (ONE, "", &endless),
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
        let server = serve(&source, ONE, "").await;
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
    let config = configured(&path.display().to_string(), ONE, "");
    let server = Server::start(load(&config.replace("\"/moderate\"", "\"/handler/...\"")).into()).await;
    let reference = serve("builtin:moderate", ONE, "").await;
    for text in ["You are a complete idiot.", "Thank you for the swift reply.", ""] {
        let (status, found) = answer(server.post("/handler/judge").body(text)).await;
        assert_eq!(status, StatusCode::OK, "{found}");
        let (_, expected) = judged(&reference, &json!(text)).await;
        assert_eq!(found["flagged"], expected["results"][0]["flagged"], "{text}");
        for (category, score) in found["scores"].as_object().unwrap() {
            let further = &expected["infer"]["categories"][0][category]["score"];
            let openais = expected["results"][0]["category_scores"].get(category);
            let expected = openais.unwrap_or(further);
            assert!(agree(score, expected), "{text}: {category}: {score}, expected {expected}");
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
