mod datasets;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::harness::{BUILTIN, Server, infer, repository};

fn bench(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.current_dir(folder).arg("bench").args(["--warmup", "1ms"]).args(arguments);
    command.env_remove("INFER_CONFIG").env_remove("INFER_LOG").output().unwrap()
}

fn report(folder: &Path, arguments: &[&str]) -> Value {
    let output = bench(folder, &[arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn tiny(name: &str) -> String {
    repository().join("tests/data/language").join(name).display().to_string()
}

fn rows(report: &Value) -> &Vec<Value> {
    report["rows"].as_array().unwrap()
}

fn paths(report: &Value) -> Vec<(&str, u64)> {
    let of = |row: &Value| row["concurrency"].as_u64().unwrap();
    rows(report).iter().map(|row| (row["path"].as_str().unwrap(), of(row))).collect()
}

/// Asserts that `value` has every key of `keys`; those without a trailing question mark must not be
/// null.
fn has(value: &Value, keys: &str) {
    for key in keys.split_whitespace() {
        let found = value.get(key.trim_end_matches('?'));
        assert!(found.is_some_and(|found| key.ends_with('?') || !found.is_null()), "no `{key}` in {value}");
    }
}

const ROW: &str = "path concurrency inferences_per_second inferences_per_second_sd p50_ms p90_ms p99_ms queue_ms \
                   instantiate_us? guest_us? compute_ms batch_mean? cached_ratio? errors requests goodput_per_second?";
const REPORT: &str = "host model rows prefill decode cold? rss_peak_bytes dummy task target load sandbox verdict? quality? \
                      warnings";

#[test]
fn language_model_reports_have_every_key() {
    let folder = tempfile::tempdir().unwrap();
    // One example, so that all three paths have the same prompt.
    std::fs::write(folder.path().join("d.jsonl"), "{\"text\": \"What a fine day.\", \"label\": 0}").unwrap();
    let report = report(
        folder.path(),
        &["--model", "smollm2", "-n", "4", "-r", "2", "--cold", "--slo-ms", "60000", "--dataset", "d.jsonl"],
    );
    has(&report, REPORT);
    has(&report["host"], "processor cores instruction_sets memory_bytes?");
    has(&report["model"], "name hash backend quantization sessions threads load_ms");
    assert_eq!(report["model"]["quantization"], "Q4_1, Q8_0, F32");
    assert_eq!((&report["task"], &report["dummy"]), (&json!("moderate"), &json!(false)));
    assert_eq!(paths(&report), [("native", 1), ("sandbox", 1), ("http", 1)]);
    for row in rows(&report) {
        has(row, ROW);
        assert_eq!((&row["requests"], &row["errors"]), (&json!(4), &json!(0)), "{row}");
        assert_eq!(row["goodput_per_second"], row["inferences_per_second"], "{row}");
        assert!(row["p50_ms"].as_f64() <= row["p99_ms"].as_f64(), "{row}");
        assert_eq!(row["prompt_tokens"], rows(&report)[0]["prompt_tokens"], "another prompt: {row}");
        assert!(row["cached_ratio"].as_f64().unwrap() > 0.9, "{row}");
        assert_eq!(row["guest_us"].is_null(), row["path"] == "native", "{row}");
    }
    has(&report["sandbox"][0], "concurrency of_native instance_us");
    let sizes: Vec<_> =
        report["prefill"].as_array().unwrap().iter().map(|prefill| &prefill["tokens"]).collect();
    assert_eq!(sizes, [16, 32, 40, 64, 128, 512]);
    for measured in
        [&report["prefill"], &report["decode"]].into_iter().flat_map(|rates| rates.as_array().unwrap())
    {
        assert!(
            measured["tokens_per_second"].as_f64().unwrap() > 0.0 && measured["repeats"] == 2,
            "{measured}"
        );
    }
    has(&report["cold"], "compile_ms deserialize_us instantiate_us first_inference_ms");
    let (cold, warm) = (&report["verdict"]["cold_tokens"], &report["verdict"]["warm_tokens"]);
    assert!(cold.as_f64().unwrap() > 200.0 && warm.as_f64().unwrap() < 50.0, "{report}");
    has(&report["quality"], "examples accuracy calibration_error auroc? f1?");
    assert_eq!(report["quality"]["of"], 1);
}

#[test]
fn prefix_cache_can_be_disabled() {
    let folder = tempfile::tempdir().unwrap();
    let ratios = |when: &str| {
        let report = report(
            folder.path(),
            &["--model", "smollm2", "--task", "score", "-n", "4", "-r", "2", "--prefix-cache", when],
        );
        assert_eq!(paths(&report), [("native", 1), ("sandbox", 1)]);
        rows(&report).iter().map(|row| row["cached_ratio"].as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ratios("off"), [0.0, 0.0]);
    // Two turns of two requests: one request in two hits the cached policy, most of the prompt.
    assert!(ratios("cold").iter().all(|ratio| (0.3..0.5).contains(ratio)));
    assert!(ratios("on").iter().all(|ratio| *ratio > 0.6));
}

#[test]
fn bare_files_are_measured_natively_and_sandboxed() {
    let folder = tempfile::tempdir().unwrap();
    for (file, task) in [("qwen2-q5_0.gguf", "generate"), ("phi3-q4_k.gguf", "generate")] {
        let report = report(folder.path(), &["--model", &tiny(file), "--task", task, "-n", "6", "-c", "1,2"]);
        assert_eq!(paths(&report), [("native", 1), ("sandbox", 1), ("native", 2), ("sandbox", 2)]);
        assert!(rows(&report).iter().all(|row| row["requests"] == 6 && row["errors"] == 0), "{report}");
        let decode = report["decode"].as_array().unwrap();
        assert_eq!(decode.iter().map(|rate| &rate["sessions"]).collect::<Vec<_>>(), [1, 2]);
        assert!(decode.iter().all(|rate| rate["tokens_per_second"].as_f64().unwrap() > 0.0), "{report}");
        assert!(report["verdict"].is_null());
    }
    let native = report(
        folder.path(),
        &["--model", &tiny("qwen2-q5_0.gguf"), "--task", "generate", "-n", "2", "--native", "--cold"],
    );
    assert_eq!(paths(&native), [("native", 1)]);
    assert!(native["cold"]["compile_ms"].is_null() && native["cold"]["first_inference_ms"].is_number());
}

#[test]
fn classifiers_are_measured_in_each_task() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &str, &[&str]); 4] = [
        ("toxic-bilstm", "tensor", &["native", "sandbox"]),
        ("toxic-bilstm", "moderate", &["native", "sandbox", "http"]),
        ("nsfw-mobilenet", "moderate", &["native", "sandbox", "http"]),
        ("efficientnet-lite0", "classify", &["native", "sandbox", "http"]),
    ];
    for (model, task, expected) in cases {
        let report = report(folder.path(), &["--model", model, "--task", task, "-n", "8", "-r", "2"]);
        has(&report, REPORT);
        let found: Vec<_> = paths(&report).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, expected, "{model}");
        assert!(rows(&report).iter().all(|row| row["requests"] == 8 && row["errors"] == 0), "{report}");
        assert_eq!(report["sandbox"].as_array().unwrap().len(), usize::from(task == "tensor"));
        assert!([&report["prefill"], &report["decode"]].into_iter().all(|rates| rates == &json!([])));
    }
    let component = report(folder.path(), &["--component", "classify", "-n", "4"]);
    assert_eq!(paths(&component), [("sandbox", 1), ("http", 1)]);
    assert_eq!(component["model"]["component"], "classify");
}

#[test]
fn locked_models_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("infer.toml"), "[models.text]\nsource = \"builtin:toxic-bilstm\"\n")
        .unwrap();
    assert!(infer(folder.path()).arg("lock").status().unwrap().success());
    for model in ["text", "nsfwjs-mobilenet_v2-int8"] {
        let output = bench(folder.path(), &["--model", model, "-n", "4", "-r", "2"]);
        assert!(output.status.success(), "{model}: {}", stderr(&output));
    }
    let lock = folder.path().join("infer.lock");
    let pins = std::fs::read_to_string(&lock).unwrap();
    let hash = pins.split("sha256 = \"").nth(1).unwrap()[..64].to_owned();
    std::fs::write(&lock, pins.replace(&hash, &"0".repeat(64))).unwrap();
    let output = bench(folder.path(), &["--model", "text", "-n", "4"]);
    assert!(!output.status.success() && stderr(&output).contains("pins 0000"), "{}", stderr(&output));
}

#[test]
fn conditions_decide_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let measure = ["--model", "toxic-bilstm", "-n", "20"];
    let mut earlier = report(folder.path(), &measure);
    let mut with = |p99_ms: f64, conditions: &[&str]| {
        earlier["rows"].as_array_mut().unwrap().iter_mut().for_each(|row| row["p99_ms"] = p99_ms.into());
        std::fs::write(folder.path().join("before.json"), earlier.to_string()).unwrap();
        let conditions = conditions.iter().flat_map(|condition| ["--fail-if", condition]);
        let arguments: Vec<_> =
            measure.into_iter().chain(["--baseline", "before.json"]).chain(conditions).collect();
        bench(folder.path(), &arguments)
    };
    let output = with(1e9, &["p99_ms>+10%", "errors>0", "requests<20"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let output = with(1e-9, &["p99_ms>+10%", "errors>0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).starts_with("failed: `p99_ms>+10%`: p99_ms of native at 1 is "),
        "{}",
        stderr(&output)
    );
    assert_eq!(stderr(&output).lines().count(), 2, "a line for each row that it is met in");
    assert!(String::from_utf8_lossy(&output.stdout).contains("INF/S"), "the report is printed all the same");
    let output = with(1.0, &["cached_ratio<1"]);
    assert!(
        output.status.code() == Some(1) && stderr(&output).contains("matches no figure"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn open_loop_sends_at_its_rate() {
    let folder = tempfile::tempdir().unwrap();
    let report = report(
        folder.path(),
        &["--model", "toxic-bilstm", "--task", "moderate", "--rate", "400", "-n", "90", "-r", "4"],
    );
    assert_eq!(paths(&report), [("native", 256), ("sandbox", 256), ("http", 256)]);
    for row in rows(&report) {
        assert_eq!(row["requests"].as_u64().unwrap() + row["errors"].as_u64().unwrap(), 90, "{row}");
    }
    assert_eq!(report["load"]["rate"], 400.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn running_server_is_measured_over_http() {
    let server = Server::builtin().await;
    let url = format!("http://{}", server.address());
    let folder = tempfile::tempdir().unwrap();
    let text = "{\"text\": \"You are so dumb and stupid!\", \"label\": true}\n{\"text\": \"Have a nice day.\", \"label\": false}\n";
    std::fs::write(folder.path().join("d.jsonl"), text).unwrap();
    let place = folder.path().to_owned();
    let (report, photos, refused) = tokio::task::spawn_blocking(move || {
        let classify = format!("{url}/classify");
        (
            report(&place, &["--target", &url, "-n", "20", "-c", "1,3", "--dataset", "d.jsonl"]),
            report(&place, &["--target", &classify, "-n", "6"]),
            bench(&place, &["--target", &format!("{url}/nowhere"), "-n", "6"]),
        )
    })
    .await
    .unwrap();
    assert_eq!(paths(&report), [("http", 1), ("http", 3)]);
    for row in rows(&report) {
        assert_eq!((&row["requests"], &row["errors"]), (&json!(20), &json!(0)));
        has(row, "instantiate_us guest_us");
    }
    assert_eq!(report["task"], "moderate");
    assert_eq!(report["model"]["component"], "moderate");
    assert!(BUILTIN.models.values().any(|model| report["model"]["hash"] == model.hash()));
    let quality = &report["quality"];
    assert_eq!(
        (&quality["auroc"], &quality["f1"], &quality["examples"]),
        (&json!(1.0), &json!(1.0), &json!(2))
    );
    assert_eq!((&photos["task"], &photos["rows"][0]["errors"]), (&json!("classify"), &json!(0)));
    assert!(
        !refused.status.success() && stderr(&refused).contains("answered no request: 404"),
        "{}",
        stderr(&refused)
    );
    drop(server);
}

#[test]
fn failing_server_is_reported_without_figures() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let output = bench(&repository(), &["--target", &url, "-n", "5"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("error: `http` at 1 answered no request: 503"), "{}", stderr(&output));
}

#[test]
fn other_formats_and_the_plot_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--model", "toxic-bilstm", "-n", "20", "--plot", "p.svg", "-o"];
    for (format, begins) in
        [("csv", "model,task,path,concurrency,inferences_per_second,"), ("md", ""), ("table", "")]
    {
        let output = bench(folder.path(), &[&arguments[..], &[format]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.starts_with(begins) && text.contains("sandbox"), "{text}");
    }
    let svg = std::fs::read_to_string(folder.path().join("p.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.matches("<polyline").count() == 2, "{svg}");
}

#[test]
fn unmeasurable_targets_are_errors_with_remedies() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("d.jsonl"), "{\"txt\": 1}").unwrap();
    std::fs::write(folder.path().join("b.json"), "[]").unwrap();
    let cases: [(&[&str], &str); 13] = [
        (
            &["--model", "phi9"],
            "no model `phi9` in built-in configuration; expected one of `efficientnet-lite0`",
        ),
        (
            &["--component", "judge"],
            "no component `judge` in built-in configuration; expected one of `classify`",
        ),
        (
            &["--model", "toxic-bilstm", "--task", "generate"],
            "is for text-classification, which supports the tasks `tensor`",
        ),
        (
            &["--model", "smollm2", "--task", "tensor"],
            "is for text-generation, which supports the tasks `moderate`",
        ),
        (
            &["--component", "moderate", "--task", "classify"],
            "is a moderator, which supports the tasks `moderate`",
        ),
        (&["--model", "toxic-bilstm", "--dummy"], "`--dummy` supports only `phi3`"),
        (
            &["--model", "toxic-bilstm", "--task", "moderate", "--dataset", "d.jsonl"],
            "d.jsonl:1: unknown field `txt`",
        ),
        (
            &["--model", "toxic-bilstm", "--task", "moderate", "--dataset", "e.jsonl"],
            "cannot read the dataset `e.jsonl`",
        ),
        (&["--model", "toxic-bilstm", "--fail-if", "p99_ms>+1%"], "give its report with --baseline"),
        (
            &["--model", "toxic-bilstm", "--baseline", "b.json"],
            "has no `rows`: expected a report of `infer bench -o json`",
        ),
        (&["--target", "http://127.0.0.1:1"], "cannot connect to `127.0.0.1:1`"),
        (&["--target", "http://127.0.0.1:1", "--cold"], "`--cold` applies to models of this process"),
        (&["--model", "toxic-bilstm", "-n", "2", "--plot", "no/p.svg"], "cannot write the plot `no/p.svg`"),
    ];
    for (arguments, words) in cases {
        let output = bench(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
}
