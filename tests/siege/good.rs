//! Requests of a well-behaved client, and their results.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use reqwest::{Client, StatusCode};
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::photo;

/// Maximum number of requests in flight.
const LANES: u64 = 64;

/// Default number of instances of a server.
const INSTANCES: usize = 32;

/// Client timeout; the server must answer by its deadline of 5 s.
const LATE: Duration = Duration::from_secs(15);

/// Results of the good requests.
pub(super) struct Good {
    /// Requests without a 200, by their status or error.
    pub(super) lost: BTreeMap<String, usize>,
    pub(super) latencies: Histogram<u64>,
}

impl Good {
    fn new() -> Good {
        Good { lost: BTreeMap::new(), latencies: Histogram::new(3).unwrap() }
    }

    /// The latency at `quantile`, in milliseconds.
    pub(super) fn at(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    pub(super) fn add(&mut self, other: Good) {
        self.latencies.add(other.latencies).unwrap();
        for (what, count) in other.lost {
            *self.lost.entry(what).or_default() += count;
        }
    }
}

/// Makes every instance judge photos, and both kinds of models compute.
pub(super) async fn warm_up(address: &str, key: &str) {
    let photo = STANDARD.encode(photo("coffee.jpg"));
    let image =
        json!({ "type": "image_url", "image_url": { "url": format!("data:image/jpeg;base64,{photo}") } });
    let client = Client::new();
    for _ in 0..4 {
        let mut requests = JoinSet::new();
        for _ in 0..INSTANCES {
            let body = json!({ "input": [image] });
            requests
                .spawn(client.post(format!("http://{address}/moderate")).bearer_auth(key).json(&body).send());
        }
        while let Some(answer) = requests.join_next().await {
            let _ = answer.unwrap();
        }
    }
}

/// Sends `rate` requests per second to `/moderate` for `time` without waiting for answers, half of
/// them on persistent connections and half on new ones. Latencies count from when each request was
/// due.
///
/// Runs on its own thread: the attackers' client must not delay the clock.
pub(super) async fn ask(address: &str, key: &'static str, rate: f64, time: Duration) -> Good {
    let url = format!("http://{address}/moderate");
    let asked = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(lanes(url, key, rate, time))
    };
    tokio::task::spawn_blocking(asked).await.unwrap()
}

async fn lanes(url: String, key: &'static str, rate: f64, time: Duration) -> Good {
    // A connection is not reused shortly before the server may close it.
    let pooled =
        Client::builder().timeout(LATE).pool_idle_timeout(Duration::from_millis(500)).build().unwrap();
    let fresh = Client::builder().timeout(LATE).pool_max_idle_per_host(0).build().unwrap();
    let (next, began) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let mut lanes = JoinSet::new();
    for lane in 0..LANES {
        let client = if lane % 2 == 0 { pooled.clone() } else { fresh.clone() };
        let (url, next) = (url.clone(), next.clone());
        lanes.spawn(async move {
            let body = json!({ "input": "this is a post of ordinary length by a wonderful person" });
            let mut good = Good::new();
            loop {
                let due = Duration::from_secs_f64(next.fetch_add(1, Ordering::Relaxed) as f64 / rate);
                if due > time {
                    return good;
                }
                tokio::time::sleep_until((began + due).into()).await;
                let lost = match client.post(&url).bearer_auth(key).json(&body).send().await {
                    // An answer counts when its body is complete.
                    Ok(answer) => match (answer.status(), answer.bytes().await) {
                        (StatusCode::OK, Ok(_)) => {
                            let took = began.elapsed().saturating_sub(due);
                            good.latencies.record(took.as_micros() as u64).unwrap();
                            continue;
                        }
                        (StatusCode::OK, Err(error)) => cause(&error),
                        (status, _) => status.to_string(),
                    },
                    Err(error) => cause(&error),
                };
                *good.lost.entry(lost).or_default() += 1;
            }
        });
    }
    let mut all = Good::new();
    while let Some(lane) = lanes.join_next().await {
        all.add(lane.unwrap());
    }
    all
}

/// The root cause of an error.
fn cause(error: &dyn Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}
