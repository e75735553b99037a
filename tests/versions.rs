use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Output;

use infer_config::Config;
use infer_control::live::Step;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{Process, answer, eventually, free_address, infer, ready};
use crate::reload::{Place, edit, moderator, version};

/// Byte range of embeddings in the model's file.
const EMBEDDINGS: Range<usize> = 1_000_000..3_000_000;

/// The moderator's model with a next version.
fn trying(next: &str) -> String {
    let next = format!("sessions = 1\nnext = {{ {next} }}");
    moderator("one", "").replace("sessions = 1", &next)
}

/// Changes the model of `folder`: clears the embeddings of half its vocabulary.
fn forget(folder: &Path) {
    let path = folder.join("model.onnx");
    let mut model = fs::read(&path).unwrap();
    let digest =
        |bytes: &[u8]| -> String { Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect() };
    let before = digest(&model);
    model[EMBEDDINGS].fill(0);
    fs::write(&path, &model).unwrap();
    let card = fs::read_to_string(folder.join("card.toml")).unwrap().replace(&before, &digest(&model));
    // The self-tests no longer match.
    let end = card.find("# Asked before").unwrap();
    fs::write(folder.join("card.toml"), &card[..end]).unwrap();
}

/// Texts with words from the whole vocabulary.
fn texts() -> Vec<String> {
    let file = fs::read_to_string(crate::harness::repository().join("weights/toxic-bilstm/tokenizer.json"));
    let file: Value = serde_json::from_str(&file.unwrap()).unwrap();
    let words = file["model"]["vocab"].as_object().unwrap().keys();
    let words: Vec<_> =
        words.filter(|word| word.bytes().all(|byte| byte.is_ascii_lowercase())).cloned().collect();
    words.chunks(80).take(100).map(|words| format!("you stupid {}", words[..8].join(" "))).collect()
}

async fn versions(place: &Place) -> Value {
    let (status, reply) = answer(Client::new().get(format!("{}/admin/versions", place.admin))).await;
    assert_eq!(status, StatusCode::OK, "{reply}");
    reply[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canary_answers_its_share() {
    let place = Place::new(&trying("source = \"two\", percent = 25")).await;
    let registry = place.live.registry();
    let next = registry.next_versions().next().unwrap().model.hash().to_owned();
    let current = registry.models["text"].hash().to_owned();
    drop(registry);
    let mut seen = BTreeMap::new();
    for _ in 0..400 {
        *seen.entry(place.hash().await).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
    // The draw is deterministic.
    assert!((70..=130).contains(&seen[&next]), "{seen:?}");
    let reply = versions(&place).await;
    assert_eq!((&reply["model"], &reply["trial"]["kind"]), (&json!("text"), &json!("canary")), "{reply}");
    assert_eq!(
        (&reply["current"]["hash"], &reply["next"]["hash"]),
        (&json!(current), &json!(next)),
        "{reply}"
    );
    let calls = &reply["trial"]["components"][0];
    assert_eq!(calls["current"]["answered"], seen[&current], "{reply}");
    assert_eq!(calls["next"], json!({ "answered": seen[&next], "flagged": 0, "failed": 0 }), "{reply}");
    let metrics = place.metrics().await;
    let line = format!(
        "infer_model_jobs_total{{model=\"text\",version=\"next\",kind=\"computed\"}} {}",
        seen[&next]
    );
    assert!(metrics.contains(&line), "no `{line}` in {metrics}");

    // A promoted version is not loaded again, and the counters of its trial have ended.
    let loaded = place.live.registry().next_versions().next().unwrap().model.clone();
    place.write(&moderator("two", ""));
    let report = place.live.reload().await.unwrap();
    assert!(report.applied && report.models.is_empty(), "{report:?}");
    assert!(std::sync::Arc::ptr_eq(&loaded, &place.live.registry().models["text"]));
    assert_eq!(place.hash().await, next);
    assert_eq!(versions(&place).await, Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shadow_is_compared_and_never_answers() {
    let place = Place::new(&moderator("one", "")).await;
    forget(&place.folder.path().join("two"));
    let current = place.hash().await;
    let ask = async |text: &str| {
        let (status, body) = place.server.moderate(&json!({ "input": text })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["infer"]["models"][0]["hash"], json!(current), "{body}");
        body["results"].clone()
    };
    let texts = texts();
    let mut alone = Vec::new();
    for text in &texts {
        alone.push(ask(text).await);
    }
    place.write(&trying("source = \"two\", shadow = true, tolerance = 1e-3"));
    let report = place.live.reload().await.unwrap();
    assert_eq!((report.models, report.components.len()), (vec!["text".to_owned()], 0));
    for (text, alone) in texts.iter().zip(&alone) {
        assert_eq!(ask(text).await, *alone, "{text}");
    }
    let done = async || {
        let trial = versions(&place).await["trial"].clone();
        trial["compared"].as_u64().unwrap() + trial["skipped"].as_u64().unwrap() == texts.len() as u64
    };
    eventually(done).await;
    let reply = versions(&place).await;
    let trial = &reply["trial"];
    let (compared, disagreed) = (trial["compared"].as_u64().unwrap(), trial["disagreed"].as_u64().unwrap());
    assert!(disagreed > 0 && disagreed <= compared && trial["failed"] == 0, "{reply}");
    assert!(trial["largest_difference"].as_f64().unwrap() > 1e-3, "{reply}");
    let examples = trial["examples"].as_array().unwrap();
    assert_eq!(examples.len() as u64, disagreed.min(32), "{reply}");
    assert!(examples.iter().all(|example| example["input_hash"].as_str().unwrap().len() == 64), "{reply}");
    let metrics = place.metrics().await;
    let line = format!("infer_shadow_answers_total{{model=\"text\",kind=\"disagreed\"}} {disagreed}");
    assert!(metrics.contains(&line), "no `{line}` in {metrics}");
    assert!(metrics.contains("infer_shadow_disagreement{model=\"text\",input_hash=\""), "{metrics}");

    // Without the shadow, the next version is unloaded.
    let next = std::sync::Arc::downgrade(place.live.registry().next_versions().next().unwrap().model);
    place.write(&moderator("one", ""));
    place.live.reload().await.unwrap();
    eventually(async || next.upgrade().is_none()).await;
    assert_eq!(ask(&texts[0]).await, alone[0]);
}

#[tokio::test]
async fn invalid_version_leaves_the_live_one() {
    let place = Place::new(&moderator("one", "")).await;
    let hash = place.hash().await;
    let second = "[models.other]\nsource = \"one\"\nnext = { source = \"two\", percent = 1 }\n";
    let canary = trying("source = \"two\", percent = 5");
    let photos = "source = \"builtin:efficientnet-lite0-int8\", shadow = true";
    let cases = [
        (canary.clone() + second, Step::Read, "one model has a canary at a time"),
        (trying("source = \"two\""), Step::Read, "expected either `percent`"),
        (trying("source = \"two\", percent = 5, shadow = true"), Step::Read, "expected either `percent`"),
        (trying("source = \"two\", percent = 0"), Step::Read, "`percent` is 0, expected more than 0"),
        (trying("source = \"four\", percent = 5"), Step::Read, "does not exist"),
        (trying(photos), Step::Load, "task of the next version is image-classification"),
        (
            canary.replace("[server]", "[server]\nmemory_bytes = 190000000"),
            Step::Load,
            "this configuration needs",
        ),
    ];
    for (config, step, words) in cases {
        place.write(&config);
        let refused = place.live.reload().await.unwrap_err();
        let message = refused.to_string();
        assert!(refused.step == step && message.contains(words), "no `{words}` in {message}");
        assert_eq!(place.hash().await, hash);
    }
    edit(&place.folder.path().join("two/card.toml"), "scores = [0.98894", "scores = [0.5");
    place.write(&canary);
    let refused = place.live.reload().await.unwrap_err();
    assert!(
        refused.step == Step::SelfTest && refused.to_string().contains("expected 0.5 ± 0.0001"),
        "{refused}"
    );
    assert_eq!(place.hash().await, hash);
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn promote_and_rollback_are_atomic() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    version(folder, "one");
    version(folder, "two");
    let [address, admin] = [free_address(), free_address()];
    let config = trying("source = \"two\", percent = 50")
        .replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"{admin}\""))
        .replace("\nlisten = \"127.0.0.1:0\"", &format!("\nlisten = \"{address}\" # the box's own"));
    let path = folder.join("infer.toml");
    fs::write(&path, &config).unwrap();
    let run = |arguments: &[&str]| infer(folder).args(arguments).output().unwrap();
    assert!(run(&["lock"]).status.success());
    let lock = || fs::read_to_string(folder.join("infer.lock")).unwrap();
    assert!(lock().contains("[next.text]"), "{}", lock());
    let _server = Process::serve(folder, "error");
    let client = Client::new();
    eventually(async || ready(&client, &admin).await).await;
    let hash = async || {
        let (_, state) = answer(client.get(format!("http://{admin}/admin/state"))).await;
        state["models.text.hash"].as_str().unwrap().to_owned()
    };
    let one = hash().await;
    let diff = run(&["diff", "text"]);
    assert!(
        diff.status.success() && said(&diff).contains("next answers 50 % of the requests"),
        "{}",
        said(&diff)
    );
    assert!(!run(&["diff", "other"]).status.success());

    // A next version whose file has changed since is not promoted, neither in the configuration nor
    // in the server.
    let model = folder.join("two/model.onnx");
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..1000]).unwrap();
    let (pinned, refused) = (lock(), run(&["promote", "text"]));
    assert!(!refused.status.success() && said(&refused).contains("model `text`"), "{}", said(&refused));
    assert_eq!(
        (fs::read_to_string(&path).unwrap(), lock(), hash().await),
        (config.clone(), pinned, one.clone())
    );
    fs::write(&model, &bytes).unwrap();

    let promoted = run(&["promote", "text"]);
    assert!(
        promoted.status.success() && said(&promoted).contains("one -> two; live after"),
        "{}",
        said(&promoted)
    );
    let text = fs::read_to_string(&path).unwrap();
    assert!(
        text.contains("source = \"two\"\nsessions = 1\nprevious = \"one\"")
            && text.contains("# the box's own"),
        "{text}"
    );
    let two = hash().await;
    assert!(two != one && lock().contains(&two) && !lock().contains("[next.text]"), "{}", lock());
    Config::load(Some(&path)).unwrap();

    let back = run(&["rollback", "text"]);
    assert!(back.status.success() && said(&back).contains("two -> one; live after"), "{}", said(&back));
    assert!(hash().await == one && lock().contains(&one), "{}", lock());
    let again = run(&["rollback", "text"]);
    assert!(!again.status.success() && said(&again).contains("nothing to roll back"), "{}", said(&again));
}
