use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{Process, eventually, free_address, infer, ready, repository};
use crate::text_models::exports;

/// Requests per second, over all models.
const RATE: f64 = 100.0;

/// Time between swaps, in seconds.
const INTERVAL: u64 = 10;

/// Time after the start of a swap in which requests count as part of it, in seconds.
const SWAP: u64 = 3;

/// One answer.
struct Seen {
    at: Duration,
    took: Duration,
    status: StatusCode,
    /// The hashes of component and model.
    version: String,
}

/// Imports a WordPiece model with random weights and a label `toxic` as `folder/wordpiece`.
fn wordpiece(folder: &Path) {
    let export = folder.join("export");
    fs::create_dir_all(export.join("onnx")).unwrap();
    for file in ["config.json", "tokenizer.json", "onnx/model.onnx"] {
        fs::copy(exports().join("distilbert").join(file), export.join(file)).unwrap();
    }
    let config = fs::read_to_string(export.join("config.json")).unwrap();
    fs::write(export.join("config.json"), config.replace("\"negative\"", "\"toxic\"")).unwrap();
    let output = infer(folder).args(["import", "export", "-o", "wordpiece"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A copy of the component with a custom section that contains `version`, and so a different hash.
fn component(folder: &Path, version: &str) {
    let mut bytes = fs::read(Path::new(env!("INFER_GUESTS")).join("moderate.wasm")).unwrap();
    let name = b"version";
    // A custom section: 0, its length, the length of its name, the name, the contents.
    bytes.extend([0, (1 + name.len() + version.len()) as u8, name.len() as u8]);
    bytes.extend(name);
    bytes.extend(version.as_bytes());
    fs::write(folder.join(format!("{version}.wasm")), bytes).unwrap();
}

/// `make swap`: times depend on the machine and are only printed; the answers and their versions
/// are asserted.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "takes two minutes, or SWAP_SECONDS; loads all cores"]
async fn swaps_every_ten_seconds_fail_no_request() {
    let seconds: u64 = std::env::var("SWAP_SECONDS").map_or(120, |text| text.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    wordpiece(folder.path());
    component(folder.path(), "v1");
    component(folder.path(), "v2");
    let tiny = |name: &str| repository().join("tests/data/language").join(name);
    let [address, admin] = [free_address(), free_address()];
    // Each turn changes one line: the text model, then the component, then the language model.
    let write = |turn: u64| {
        let second = |line: u64| (turn + 2 - line) / 3 % 2 == 1;
        let text = if second(0) { "wordpiece" } else { "builtin:toxic-bilstm" };
        let component = if second(1) { "v2.wasm" } else { "v1.wasm" };
        let language = tiny(if second(2) { "qwen2-q6_k.gguf" } else { "phi3-q4_k.gguf" });
        let config = format!(
            "[server]\nlisten = \"{address}\"\nadmin_listen = \"{admin}\"\n\
             [models.text]\nsource = {text:?}\n[models.chat]\nsource = {language:?}\n\
             [components.moderate]\nsource = {component:?}\nroute = \"/moderate\"\nmodels = {{ text = \"text\" }}\n"
        );
        let path = folder.path().join("infer.toml");
        fs::write(path.with_extension("new"), config).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    write(0);
    let server = Process::serve(folder.path(), "warn");
    let client = Client::new();
    eventually(async || ready(&client, &admin).await).await;
    let hashes = async || {
        let state = client.get(format!("http://{admin}/admin/state")).send().await.unwrap();
        let state: BTreeMap<String, String> = state.json().await.unwrap();
        let hash = |key: &str| state[&format!("{key}.hash")].clone();
        [format!("{} {}", hash("components.moderate"), hash("models.text")), hash("models.chat")]
    };
    let mut served = vec![hashes().await];

    let (time, next, began) = (Duration::from_secs(seconds), Arc::new(AtomicU64::new(0)), Instant::now());
    let mut lanes = JoinSet::new();
    for lane in 0..64_u64 {
        let (client, address, next) = (client.clone(), address.clone(), next.clone());
        lanes.spawn(async move {
            let mut all = Vec::new();
            loop {
                let due = Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / RATE);
                tokio::time::sleep_until((began + due).into()).await;
                if began.elapsed() > time {
                    return all;
                }
                // One request in ten uses the language model.
                let (path, body) = if lane % 10 == 9 {
                    ("/v1/chat/completions", json!({ "model": "chat", "max_tokens": 4, "messages": [{ "role": "user", "content": "a b c" }] }))
                } else {
                    ("/moderate", json!({ "input": "this is a post of ordinary length by a wonderful person" }))
                };
                let sent = Instant::now();
                let answer = client.post(format!("http://{address}{path}")).json(&body).send().await.unwrap();
                let status = answer.status();
                let body: Value = answer.json().await.unwrap();
                let infer = &body["infer"];
                let hash = |value: &Value| value["hash"].as_str().unwrap_or_default().to_owned();
                let version = if path == "/moderate" {
                    format!("{} {}", hash(&infer["component"]), hash(&infer["models"][0]))
                } else {
                    hash(&infer["model"])
                };
                assert_eq!(status, StatusCode::OK, "{body}");
                all.push(Seen { at: sent - began, took: sent.elapsed(), status, version });
            }
        });
    }
    // Half of the swaps by SIGHUP, half over the admin listener.
    let mut before = 0;
    let swaps = seconds / INTERVAL;
    for turn in 1..swaps {
        tokio::time::sleep_until((began + Duration::from_secs(turn * INTERVAL)).into()).await;
        if turn == 1 {
            before = server.resident();
        }
        write(turn);
        if turn.is_multiple_of(2) {
            server.hangup();
        } else {
            let answer = client.post(format!("http://{admin}/admin/reload")).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
        }
        let last = served.last().cloned();
        eventually(async || Some(hashes().await) != last).await;
        served.push(hashes().await);
    }
    let mut seen = Vec::new();
    while let Some(lane) = lanes.join_next().await {
        seen.extend(lane.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(SWAP)).await;
    let after = server.resident();

    let (mut swap, mut steady) = (Histogram::<u64>::new(3).unwrap(), Histogram::<u64>::new(3).unwrap());
    let known: Vec<_> = served.iter().flatten().collect();
    let mut versions = BTreeMap::<&str, usize>::new();
    for seen in &seen {
        assert_eq!(seen.status, StatusCode::OK);
        assert!(known.contains(&&seen.version), "no version of these: {}", seen.version);
        *versions.entry(&seen.version).or_default() += 1;
        let into = seen.at.as_secs() % INTERVAL;
        let histogram = if seen.at.as_secs() >= INTERVAL && into < SWAP { &mut swap } else { &mut steady };
        histogram.record(seen.took.as_micros() as u64).unwrap();
    }
    let at = |histogram: &Histogram<u64>, quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    println!("{} requests in {seconds} s, {} swaps, 0 failed", seen.len(), swaps - 1);
    for (version, answers) in &versions {
        println!("  {answers:6} answers of {version:.90}");
    }
    for (name, histogram) in [("steady", &steady), ("in swaps", &swap)] {
        println!(
            "{name:10} p50 {:7.2} ms  p99 {:7.2} ms  max {:7.2} ms",
            at(histogram, 0.5),
            at(histogram, 0.99),
            at(histogram, 1.0)
        );
    }
    println!("p99 in swaps / steady: {:.2}", at(&swap, 0.99) / at(&steady, 0.99));
    println!(
        "RSS {before} KB before the first swap, {after} KB after the last: {:+.1} %",
        (after as f64 / before as f64 - 1.0) * 100.0
    );
    for state in &served {
        assert!(state.iter().all(|version| versions.contains_key(version.as_str())), "served: {state:?}");
    }
}
