use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::{Process, eventually, free_address, hostile, ready, words_section};

/// Attacks in a request, each by its own component.
const ATTACKS: [&str; 19] = [
    "loop",
    "recurse",
    "panic",
    "log-flood",
    "drip",
    "remember",
    "allocate",
    "hoard-tensors",
    "hoard-handles",
    "hoard-contexts",
    "long-name",
    "long-key",
    "long-line",
    "long-answer",
    "many-dimensions",
    "foreign-model",
    "load-bytes",
    "bad-tensor",
    "overflow-dimensions",
];

/// Limits of an untrusted component: a few milliseconds, a few megabytes.
const LIMITS: &str = "memory_bytes = 16777216, tensor_bytes = 1048576, guest_ms = 5, compute_ms = 5";

/// Maximum growth of memory after the attacks, in KB.
const GROWTH_LIMIT: u64 = 64 << 10;

/// Results of the good requests.
struct Good {
    lost: Vec<String>,
    latencies: Histogram<u64>,
}

/// Sends `rate` requests per second to `path` for `time`, without waiting for answers. Latencies
/// count from when each request was due.
async fn ask(client: &Client, url: String, rate: f64, time: Duration) -> Good {
    let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut lanes = JoinSet::new();
    for _ in 0..64 {
        let (client, url, next) = (client.clone(), url.clone(), next.clone());
        lanes.spawn(async move {
            let body = json!({ "input": "this is a post of ordinary length by a wonderful person" });
            let mut good = Good { lost: Vec::new(), latencies: Histogram::new(3).unwrap() };
            loop {
                let due = Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate);
                if due > time {
                    return good;
                }
                tokio::time::sleep_until((began + due).into()).await;
                match client.post(&url).json(&body).send().await {
                    Ok(answer) if answer.status() == StatusCode::OK => {
                        let took = began.elapsed().saturating_sub(due);
                        good.latencies.record(took.as_micros() as u64).unwrap();
                    }
                    Ok(answer) => good.lost.push(answer.status().to_string()),
                    Err(error) => good.lost.push(error.to_string()),
                }
            }
        });
    }
    let mut all = Good { lost: Vec::new(), latencies: Histogram::new(3).unwrap() };
    while let Some(lane) = lanes.join_next().await {
        let good = lane.unwrap();
        all.lost.extend(good.lost);
        all.latencies.add(good.latencies).unwrap();
    }
    all
}

/// Sends good requests alone, then beside `each` requests per second of every attack. Answers and
/// memory are asserted; latencies depend on the machine and are only printed.
async fn siege(rate: f64, each: f64, time: Duration) {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut config = format!(
        "[server]\nlisten = \"{address}\"\nconnections_per_ip = 2000\nconnections = 4000\n\
         [models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\n\
         [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\nmodels = {{ text = \"toxic-bilstm\" }}\n"
    );
    config += &words_section();
    for attack in ATTACKS {
        config += &format!(
            "[components.{attack}]\nsource = {:?}\nroute = \"/{attack}\"\nmodels = {{ text = \"words\" }}\n\
             settings = {{ attack = \"{attack}\" }}\nlimits = {{ {LIMITS} }}\n",
            hostile()
        );
    }
    std::fs::write(folder.path().join("infer.toml"), config).unwrap();
    let server = Process::serve(folder.path(), "off");
    let client = Client::new();
    let ready = async || ready(&client, &address).await;
    eventually(ready).await;
    let good = format!("http://{address}/moderate");
    ask(&client, good.clone(), rate, Duration::from_secs(1)).await;
    let alone = ask(&client, good.clone(), rate, time).await;
    let before = server.resident();

    let stop = Arc::new(AtomicBool::new(false));
    let mut attackers = JoinSet::new();
    for attack in ATTACKS {
        let (client, url, stop) = (client.clone(), format!("http://{address}/{attack}"), stop.clone());
        attackers.spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs_f64(1.0 / each));
            let mut under_way = JoinSet::new();
            while !stop.load(Ordering::Relaxed) {
                tick.tick().await;
                let asked = client.post(&url).json(&json!({ "input": "x" })).send();
                under_way.spawn(async move { asked.await.map(|answer| answer.status()) });
            }
            under_way.join_all().await.len()
        });
    }
    let beside = ask(&client, good.clone(), rate, time).await;
    let during = server.resident();
    stop.store(true, Ordering::Relaxed);
    let attacks: usize = attackers.join_all().await.into_iter().sum();
    for (what, good) in [("alone", &alone), ("beside attacks", &beside)] {
        let at = |quantile| good.latencies.value_at_quantile(quantile) as f64 / 1e3;
        println!(
            "{what:16} {:6} answers  {:3} lost  p50 {:7.2} ms  p99 {:7.2} ms",
            good.latencies.len(),
            good.lost.len(),
            at(0.5),
            at(0.99)
        );
    }
    assert!(attacks as f64 > each * time.as_secs_f64(), "{attacks} attacks");
    assert_eq!((&alone.lost, &beside.lost), (&Vec::new(), &Vec::new()));
    // Allocators return free memory with a delay.
    eventually(async || server.resident() <= before + GROWTH_LIMIT).await;
    println!(
        "{attacks} attacks; resident {before} KB before, {during} KB during, {} KB after",
        server.resident()
    );
    eventually(ready).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn short_siege_is_survived() {
    siege(40.0, 4.0, Duration::from_secs(2)).await;
}
