use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use infer_config::Config;
use infer_control::live::{Live, Step};
use infer_control::registry::Registry;
use infer_server::serve::Listeners;
use infer_server::service::Service;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Process, Server, answer, eventually, free_address, hostile, infer, ready, repository};

/// A configuration in its own folder, and a server for it.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) server: Server,
    pub(crate) live: Arc<Live>,
    pub(crate) admin: String,
}

/// A copy of toxic-bilstm's folder under `folder`, with a different description and hash.
pub(crate) fn version(folder: &Path, name: &str) -> PathBuf {
    let (from, to) = (repository().join("weights/toxic-bilstm"), folder.join(name));
    fs::create_dir_all(&to).unwrap();
    for file in ["card.toml", "model.onnx", "labels.txt", "tokenizer.json"] {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
    edit(&to.join("card.toml"), "Keras bidirectional LSTM", &format!("Version {name}"));
    to
}

pub(crate) fn edit(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "no `{from}` in {}", path.display());
    fs::write(path, text.replace(from, to)).unwrap();
}

/// A moderator with the model of the folder `model`.
pub(crate) fn moderator(model: &str, more: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n[models.text]\nsource = {model:?}\nsessions = 1\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\nmodels = {{ text = \"text\" }}\n{more}"
    )
}

impl Place {
    pub(crate) async fn new(config: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        version(folder.path(), "one");
        version(folder.path(), "two");
        let path = folder.path().join("infer.toml");
        fs::write(&path, config).unwrap();
        let registry = Arc::new(Registry::load(Config::load(Some(&path)).unwrap()).unwrap());
        let listeners = Listeners::bind(&registry.config.server).await.unwrap();
        let admin = format!("http://{}", listeners.admin_address().unwrap());
        let service = Service::new(
            registry,
            listeners.admin_address(),
            Some(Box::new(move || Ok(Config::load(Some(&path))?))),
        );
        let live = service.live().clone();
        let server = Server::of(service, listeners);
        Place { folder, server, live, admin }
    }

    pub(crate) fn write(&self, config: &str) {
        fs::write(self.folder.path().join("infer.toml"), config).unwrap();
    }

    /// The hash of the model that answers now.
    pub(crate) async fn hash(&self) -> String {
        let (status, body) = self.server.moderate(&json!({ "input": "hello" })).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body["infer"]["models"][0]["hash"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn metrics(&self) -> String {
        let client = reqwest::Client::new();
        client.get(format!("{}/metrics", self.admin)).send().await.unwrap().text().await.unwrap()
    }

    async fn post_reload(&self) -> (StatusCode, Value) {
        answer(reqwest::Client::new().post(format!("{}/admin/reload", self.admin))).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reload_under_traffic_fails_no_request() {
    let place = Arc::new(Place::new(&moderator("one", "settings = { max_pixels = 1000000 }")).await);
    let stop = Arc::new(AtomicBool::new(false));
    let lanes: Vec<_> = (0..4)
        .map(|_| {
            let (place, stop) = (place.clone(), stop.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    seen.push(place.hash().await);
                }
                seen
            })
        })
        .collect();
    let mut expected = BTreeSet::from([place.hash().await]);
    for turn in 0..6 {
        let model = if turn % 2 == 0 { "two" } else { "one" };
        place.write(&moderator(model, &format!("settings = {{ max_pixels = {} }}", 2_000_000 + turn)));
        let before = Arc::downgrade(&place.live.registry().models["text"]);
        let report = place.live.reload().await.unwrap();
        assert!(
            report.applied && report.models == ["text"] && report.components == ["moderate"],
            "{report:?}"
        );
        let hash = place.live.registry().models["text"].hash().to_owned();
        assert_eq!(place.hash().await, hash, "what comes after the reload is of the new version");
        expected.insert(hash);
        eventually(async || before.upgrade().is_none()).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut seen = BTreeSet::new();
    for lane in lanes {
        seen.extend(lane.await.unwrap());
    }
    assert_eq!(seen, expected);
    assert!(place.metrics().await.contains("infer_reloads_total{outcome=\"applied\"} 6"));
}

#[tokio::test]
async fn failed_reload_keeps_the_live_version() {
    let good = moderator("one", "");
    let place = Place::new(&good).await;
    let hash = place.hash().await;
    let two = place.folder.path().join("two");
    let hostile = hostile();
    let trap = format!(
        "[components.trap]\nsource = {hostile:?}\nroute = \"/trap\"\nsettings = {{ attack = \"panic\" }}\n"
    );
    let endless = trap.replace("panic", "loop");
    let wrong = "[[components.moderate.tests]]\ninput = \"hello\"\nflagged = true\n";
    let score = "[[components.moderate.tests]]\ninput = \"hello\"\nscores = { harassment = 0.9 }\n";
    let cases: [(&str, String, Step, &str); 9] = [
        ("syntax", good.replace("[models.text]", "[models.text"), Step::Read, "infer.toml:4: "),
        ("unknown key", good.replace("sessions", "sesions"), Step::Read, "unknown field `sesions`"),
        ("missing", good.replace("\"one\"", "\"three\""), Step::Read, "does not exist"),
        (
            "address",
            good.replace("listen = \"127.0.0.1:0\"\nadmin", "listen = \"127.0.0.1:1\"\nadmin"),
            Step::Fixed,
            "server.listen: 127.0.0.1:0 -> 127.0.0.1:1; start the server again",
        ),
        ("trap", good.clone() + &trap, Step::SelfTest, "component `trap`"),
        ("loop", good.clone() + &endless, Step::SelfTest, "component `trap`"),
        ("verdict", good.clone() + wrong, Step::SelfTest, "self-test 0: `flagged` is false, expected true"),
        ("score", good.clone() + score, Step::SelfTest, "expected 0.9 ± 0.01"),
        ("no component", good.replace("builtin:moderate", "one/labels.txt"), Step::Load, "magic number"),
    ];
    for (name, config, step, words) in cases {
        place.write(&config);
        let refused = place.live.reload().await.unwrap_err();
        assert_eq!(refused.step, step, "{name}: {refused}");
        let message = refused.to_string();
        assert!(
            message.contains(words) && message.ends_with("the live configuration is unchanged"),
            "{name}: no `{words}` in {message}"
        );
        assert_eq!(place.hash().await, hash, "{name}");
    }
    // A file that does not match its card, a card that does not match its file, and a model that
    // fails its card's self-tests.
    place.write(&good.replace("\"one\"", "\"two\""));
    let model = fs::read(two.join("model.onnx")).unwrap();
    let card = fs::read_to_string(two.join("card.toml")).unwrap();
    let mut corrupt = model.clone();
    corrupt[model.len() / 2] ^= 1;
    let files: [(&str, &[u8], String, Step, &str); 4] = [
        ("corrupt", &corrupt, card.clone(), Step::Load, "sha256"),
        ("short", &model[..100], card.clone(), Step::Load, "bytes"),
        ("shapes", &model, card.replace("[\"N\", 6]", "[\"N\", 7]"), Step::Load, "two"),
        (
            "answers",
            &model,
            card.replace("scores = [0.98894", "scores = [0.5"),
            Step::SelfTest,
            "expected 0.5 ± 0.0001",
        ),
    ];
    for (name, model, card, step, words) in files {
        fs::write(two.join("model.onnx"), model).unwrap();
        fs::write(two.join("card.toml"), card).unwrap();
        let (status, body) = place.post_reload().await;
        let message = body["error"]["message"].as_str().unwrap();
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::CONFLICT, &json!("not_reloaded")),
            "{name}: {body}"
        );
        assert!(message.contains(words), "{name}: no `{words}` in {message}");
        let metrics = place.metrics().await;
        let label = match step {
            Step::Load => "load",
            _ => "self_test",
        };
        assert!(metrics.contains(&format!("infer_reloads_total{{outcome=\"{label}\"}}")), "{metrics}");
        assert_eq!(place.hash().await, hash, "{name}");
    }
    fs::write(two.join("model.onnx"), &model).unwrap();
    fs::write(two.join("card.toml"), &card).unwrap();
    let (status, body) = place.post_reload().await;
    assert_eq!((status, &body["applied"]), (StatusCode::OK, &json!(true)), "{body}");
    assert_ne!(place.hash().await, hash);
}

#[tokio::test]
async fn reload_shares_unchanged_parts() {
    let place = Place::new(&moderator("one", "")).await;
    let before = place.live.registry();
    let report = place.live.reload().await.unwrap();
    assert!(!report.applied && Arc::ptr_eq(&before, &place.live.registry()), "{report:?}");
    let more = "[server.aliases]\nother = \"moderate\"\n[components.second]\nsource = \"builtin:moderate\"\nroute = \"/second\"\n";
    place.write(
        &moderator("one", more)
            .replace("listen = \"127.0.0.1:0\"\nadmin", "max_inputs = 1\nlisten = \"127.0.0.1:0\"\nadmin"),
    );
    let report = place.live.reload().await.unwrap();
    let changed: Vec<_> = report.changes.iter().map(|change| change.key.as_str()).collect();
    assert!(
        changed.contains(&"server.max_inputs") && changed.contains(&"components.second.route"),
        "{changed:?}"
    );
    assert!(report.models.is_empty() && report.components == ["second"], "{report:?}");
    let after = place.live.registry();
    assert!(Arc::ptr_eq(&before.models["text"], &after.models["text"]));
    assert!(Arc::ptr_eq(&before.components["moderate"], &after.components["moderate"]));
    let (status, body) = place.server.moderate(&json!({ "input": ["a", "b"] })).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
    assert_eq!(answer(place.server.post("/second").json(&json!({ "input": "a" }))).await.0, StatusCode::OK);
    // The next reload waits until the first version has no users.
    drop((before, after));
    let key = infer_config::keys::KeyHash::of("alice");
    place.write(&moderator("one", &format!("[keys.alice]\nhash = \"{key}\"\n")));
    place.live.reload().await.unwrap();
    assert_eq!(place.server.moderate(&json!({ "input": "a" })).await.0, StatusCode::UNAUTHORIZED);
    let asked = place.server.post("/moderate").bearer_auth("alice").json(&json!({ "input": "a" }));
    assert_eq!(answer(asked).await.0, StatusCode::OK);
    let gone = answer(place.server.post("/second").bearer_auth("alice").json(&json!({ "input": "a" }))).await;
    assert_eq!(gone.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn concurrent_reloads_run_in_sequence() {
    let place = Arc::new(Place::new(&moderator("one", "")).await);
    place.write(&moderator("two", ""));
    let reloads: Vec<_> = (0..4)
        .map(|_| {
            let place = place.clone();
            tokio::spawn(async move { place.post_reload().await })
        })
        .collect();
    let mut applied = 0;
    for reload in reloads {
        let ended = tokio::time::timeout(Duration::from_secs(60), reload).await;
        let (status, body) = ended.expect("no reload waits for another for ever").unwrap();
        assert_eq!(status, StatusCode::OK, "{body}");
        applied += u32::from(body["applied"] == true);
    }
    assert_eq!(applied, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_model_is_unloaded_and_reloaded_once() {
    let language = repository().join("tests/data/language/qwen2-q6_k.gguf");
    let unloadable =
        moderator("one", &format!("[models.chat]\nsource = {language:?}\nkeep_alive_ms = 1000\n"));
    let unloadable = unloadable.replace("sessions = 1", "keep_alive_ms = 1000");
    let place = Arc::new(Place::new(&unloadable).await);
    let task = tokio::spawn(infer_control::watch::unload_idle(place.live.clone()));
    let hash = place.hash().await;
    let registry = place.live.registry();
    let chat =
        json!({ "model": "chat", "max_tokens": 2, "messages": [{ "role": "user", "content": "a b" }] });
    for _ in 0..2 {
        eventually(async || registry.models.values().all(|model| model.loaded().is_none())).await;
        let listed = answer(place.server.get("/v1/models")).await.1;
        assert_eq!(listed["data"].as_array().unwrap().len(), 3, "{listed}");
        let asked: Vec<_> = (0..8)
            .map(|lane| {
                let (place, chat) = (place.clone(), chat.clone());
                tokio::spawn(async move {
                    if lane % 2 == 0 {
                        return place.hash().await;
                    }
                    let (status, body) = answer(place.server.post("/v1/chat/completions").json(&chat)).await;
                    assert_eq!(status, StatusCode::OK, "{body}");
                    body["infer"]["model"]["hash"].as_str().unwrap().to_owned()
                })
            })
            .collect();
        for (lane, asked) in asked.into_iter().enumerate() {
            let expected = if lane % 2 == 0 { &hash } else { registry.models["chat"].hash() };
            assert_eq!(asked.await.unwrap(), expected);
        }
    }
    task.abort();
    let _ = task.await;
    eventually(async || registry.models["text"].unload_if_idle()).await;
    // A changed file on disk is not loaded in its place.
    edit(&place.folder.path().join("one/card.toml"), "Version one", "Version 1.1");
    let (status, body) = place.server.moderate(&json!({ "input": "hello" })).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{body}");
    place.live.reload().await.unwrap();
    assert_ne!(place.hash().await, hash);
}

/// Delays between SIGHUP and SIGKILL, in milliseconds: some end before the swap, some after it.
const KILLED_AFTER: [u64; 4] = [0, 10, 60, 300];

#[tokio::test]
async fn server_killed_during_reload_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let cache = folder.join("cache");
    let guest = fs::read(Path::new(env!("INFER_GUESTS")).join("moderate.wasm")).unwrap();
    for name in ["one", "two"] {
        version(folder, name);
    }
    let client = reqwest::Client::new();
    for (turn, after) in KILLED_AFTER.into_iter().enumerate() {
        let (address, admin) = (free_address(), free_address());
        let write = |model: &str, component: &str| {
            let config = moderator(model, "")
                .replace("admin_listen = \"127.0.0.1:0\"", &format!("admin_listen = \"{admin}\""))
                .replace("\nlisten = \"127.0.0.1:0\"", &format!("\nlisten = \"{address}\""))
                .replace("builtin:moderate", component);
            fs::write(folder.join("infer.toml"), config).unwrap();
        };
        let serve = || {
            let mut command = infer(folder);
            command.env("INFER_CACHE", &cache).args(["serve", "--log", "error"]).stdout(Stdio::null());
            Process::new(command)
        };
        write("one", "builtin:moderate");
        let server = serve();
        eventually(async || ready(&client, &admin).await).await;
        // A component without compiled code in the cache: a custom section at its end changes its
        // hash.
        let mut bytes = guest.clone();
        bytes.extend([0, 3, 1, b'v', turn as u8]);
        fs::write(folder.join("next.wasm"), bytes).unwrap();
        write("two", "next.wasm");
        server.hangup();
        // The moment of the kill varies.
        tokio::time::sleep(Duration::from_millis(after)).await;
        drop(server);
        let _server = serve();
        eventually(async || ready(&client, &admin).await).await;
        let state = answer(client.get(format!("http://{admin}/admin/state"))).await.1;
        let expected = Config::load(Some(&folder.join("infer.toml"))).unwrap();
        let expected = Registry::load(expected).unwrap();
        assert_eq!(state["models.text.hash"], expected.models["text"].hash(), "killed after {after} ms");
        assert_eq!(
            state["components.moderate.hash"], expected.components["moderate"].hash,
            "killed after {after} ms"
        );
        let asked = client.post(format!("http://{address}/moderate")).json(&json!({ "input": "hello" }));
        let (status, body) = answer(asked).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(body["infer"]["models"][0]["hash"], expected.models["text"].hash(), "{body}");
    }
}
