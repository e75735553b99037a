use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::harness::{eventually, photo};

/// Limits of the relative error of a prediction, below and above the measurement. `make plan`
/// prints the error. Allocators, page caches and concurrency differ between machines. A prediction
/// leaves out memory held by requests: with image models, the tensors of photos with three views
/// are a seventh of the measurement.
const BELOW: f64 = -0.45;
const ABOVE: f64 = 0.35;

const BILSTM: &str = "[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n\
    [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\nmodels = { text = \"toxic-bilstm\" }\n";

/// `infer serve` as a child process; killed on drop.
struct Process {
    child: Child,
    url: String,
    client: Client,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    async fn start(folder: &Path, address: &str) -> Self {
        let child = infer(folder, &["serve", "--log", "error"]).stdout(Stdio::null()).spawn().unwrap();
        let process = Process { child, url: format!("http://{address}"), client: Client::new() };
        let ready = async || {
            let answer = process.client.get(format!("{}/readyz", process.url)).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        };
        eventually(ready).await;
        process
    }

    /// Peak memory, in bytes.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url)).timeout(Duration::from_secs(300))
    }

    /// Sends `requests`, at most `at_once` in parallel, and returns their statuses.
    async fn load(&self, at_once: usize, requests: impl Iterator<Item = RequestBuilder>) -> Vec<StatusCode> {
        let mut under_way = JoinSet::new();
        let mut statuses = Vec::new();
        for request in requests {
            if under_way.len() == at_once {
                statuses.push(under_way.join_next().await.unwrap().unwrap());
            }
            under_way.spawn(async move {
                let answer = request.send().await.unwrap();
                let status = answer.status();
                answer.bytes().await.unwrap();
                status
            });
        }
        statuses.extend(under_way.join_all().await);
        statuses
    }

    /// Posts of about forty words.
    fn texts(&self, count: usize) -> impl Iterator<Item = RequestBuilder> {
        let post = |index| {
            format!("You are {index} complete and utter idiots, said the fox to the hounds. ").repeat(3)
        };
        (0..count).map(move |index| self.post("/moderate").json(&json!({ "input": post(index) })))
    }
}

fn infer(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.current_dir(folder).args(arguments).env_remove("INFER_CONFIG").env_remove("INFER_LOG");
    command
}

/// A folder with a configuration that listens on a free port; its components are compiled.
fn configured(server: &str, rest: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let server = format!("[server]\nlisten = \"{address}\"\ndeadline_ms = 60000\nqueue_ms = 30000\n{server}");
    std::fs::write(folder.path().join("infer.toml"), format!("{server}\n{rest}")).unwrap();
    let output = infer(folder.path(), &["compile"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    (folder, address)
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

fn plan(folder: &Path) -> Value {
    let output = infer(folder, &["plan", "-o", "json"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Compares the prediction with the measurement and prints both.
fn compare(what: &str, plan: &Value, peak: u64) {
    let predicted = plan["bytes"].as_u64().unwrap();
    let off = predicted as f64 / peak as f64 - 1.0;
    let megabytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!(
        "{what}: predicted {:.1} MiB, measured {:.1} MiB: {:+.1} %",
        megabytes(predicted),
        megabytes(peak),
        off * 100.0
    );
    assert!((BELOW..=ABOVE).contains(&off), "{what}: {plan:#}");
}

#[tokio::test]
async fn plan_predicts_bilstm_memory_under_load() {
    let (folder, address) = configured("", BILSTM);
    let plan = plan(folder.path());
    let server = Process::start(folder.path(), &address).await;
    let statuses = server.load(64, server.texts(3_000)).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    compare("BiLSTM", &plan, server.peak());
}

#[tokio::test]
async fn plan_predicts_all_onnx_memory_under_load() {
    let config = infer_config::CONFIG.split_once("[models").unwrap().1;
    // Photos queue for each other; this test measures memory, so a long limit is fine.
    let judged = "safety = \"image-safety\" }";
    let config = config.replace(judged, &format!("{judged}\nlimits = {{ compute_ms = 60000 }}"));
    let (folder, address) = configured("", &format!("[models{config}"));
    let plan = plan(folder.path());
    let server = Process::start(folder.path(), &address).await;
    let rocket = photo("rocket.jpg");
    let part = json!({ "type": "image_url", "image_url": { "url": data_url(&rocket) } });
    let classified = |_| server.post("/classify").header("content-type", "image/jpeg").body(rocket.clone());
    let moderated = |_| server.post("/moderate").json(&json!({ "input": [part] }));
    // One kind after the other, so that each model's batches fill.
    let mut statuses = server.load(64, server.texts(500)).await;
    statuses.extend(server.load(64, (0..300).map(classified)).await);
    statuses.extend(server.load(64, (0..300).map(moderated)).await);
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    compare("all ONNX models", &plan, server.peak());
}

#[tokio::test]
#[ignore = "needs `infer dummy phi3`, 2.4 GB, and computes for a minute"]
async fn plan_predicts_phi3_memory_with_16_sessions() {
    let model = "[models.phi3]\nsource = \"builtin:phi3-dummy\"\nsessions = 16\n";
    let (folder, address) = configured("chat_deadline_ms = 600000", model);
    let plan = plan(folder.path());
    let server = Process::start(folder.path(), &address).await;
    // 16 concurrent prompts, which together fill the blocks.
    let ask = |index: usize| {
        let prompt = format!("Say {index} of all that the fox said to the hounds. ").repeat(6);
        let messages = json!([{ "role": "user", "content": prompt }]);
        server
            .post("/v1/chat/completions")
            .json(&json!({ "model": "phi3", "max_tokens": 2, "messages": messages }))
    };
    let statuses = server.load(16, (0..32).map(ask)).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    compare("phi3 dummy, 16 sessions", &plan, server.peak());
}

fn data_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    format!("data:image/jpeg;base64,{}", base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[test]
fn oversized_configuration_names_its_largest_parts() {
    let (folder, _) = configured("memory_bytes = 100000000", BILSTM);
    for command in ["check", "plan", "serve"] {
        let output = infer(folder.path(), &[command]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command}: {}", stderr(&output));
        for words in [
            "infer.toml:5: `memory_bytes` is 100000000, and this configuration needs ",
            "; the largest parts are one request 176.0 MiB, model toxic-bilstm ",
            ", instances 128.0 MiB; raise it",
            "lower `max_body_bytes`, and `memory_bytes` and `tensor_bytes` of the components' limits",
        ] {
            assert!(stderr(&output).contains(words), "{command}: no `{words}` in {}", stderr(&output));
        }
    }
    let model = "[models.judge]\nsource = \"builtin:qwen2.5-0.5b\"\nkv_bytes = 4000000000\n";
    let (folder, _) = configured("memory_bytes = 2000000000", model);
    let output = infer(folder.path(), &["plan"]).output().unwrap();
    assert!(stderr(&output).contains("lower `kv_bytes` of model `judge`"), "{}", stderr(&output));
}

#[tokio::test]
async fn memory_budget_sheds_excess_requests() {
    const CONFIG: &str = "[models.eff]\nsource = \"builtin:efficientnet-lite0-int8\"\nsessions = 1\n\
        [components.classify]\nsource = \"builtin:classify\"\nroute = \"/classify\"\nmodels = { image = \"eff\" }\n\
        limits = { memory_bytes = 33554432, tensor_bytes = 4194304 }\n";
    let server = |memory: u64| format!("memory_bytes = {memory}\nmax_body_bytes = 1048576\ninstances = 16\n");
    let (folder, _) = configured(&server(4 << 30), CONFIG);
    let plan = plan(folder.path());
    // The minimum: one request of any size always fits, sixteen large photos do not.
    let memory = plan["standing_bytes"].as_u64().unwrap() + plan["request_bytes"].as_u64().unwrap();
    let (folder, address) = configured(&server(memory), CONFIG);
    let server = Process::start(folder.path(), &address).await;
    // Bytes after the picture are not part of it, but take memory.
    let mut large = photo("retina-large.jpg");
    large.resize(1_000_000, 0);
    let image = || server.post("/classify").header("content-type", "image/jpeg").body(large.clone());
    assert_eq!(server.load(1, (0..3).map(|_| image())).await, [StatusCode::OK; 3]);
    let statuses = server.load(16, (0..200).map(|_| image())).await;
    let of = |expected| statuses.iter().filter(|status| **status == expected).count();
    let (answered, shed) = (of(StatusCode::OK), of(StatusCode::TOO_MANY_REQUESTS));
    assert_eq!(answered + shed, 200, "{statuses:?}");
    assert!(answered > 0 && shed > 0, "{answered} answered, {shed} shed");
    println!("{answered} answered, {shed} shed; {memory} bytes allowed, {} used", server.peak());
    assert!(server.peak() <= memory, "{} of {memory}", server.peak());
    // The reserved memory was released.
    assert_eq!(server.load(1, (0..3).map(|_| image())).await, [StatusCode::OK; 3]);
    let listing =
        server.client.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    let line =
        |name: &str| listing.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert_eq!(line("infer_request_memory_bytes "), "infer_request_memory_bytes 0");
    let max_request = plan["request_bytes"].as_u64().unwrap();
    assert_eq!(
        line("infer_request_memory_limit_bytes "),
        format!("infer_request_memory_limit_bytes {max_request}")
    );
}
