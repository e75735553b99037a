//! Attacks by guests: requests to hostile components, at a steady rate.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};

use super::Attacker;
use super::server::TENANT;

/// Attacks of the guest `hostile`, each on its own route.
pub(super) const ATTACKS: [&str; 19] = [
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

/// Core code that moves as much memory as possible with few instructions, by its route.
pub(super) const BULK: [(&str, &str); 5] = [
    (
        "memory-fill",
        "(drop (memory.grow (i32.const 2046)))
         (loop $on (memory.fill (i32.const 0) (i32.const 7) (i32.const 134086656)) (br $on))",
    ),
    (
        "memory-copy",
        "(drop (memory.grow (i32.const 2046)))
         (loop $on (memory.copy (i32.const 8) (i32.const 0) (i32.const 134086600)) (br $on))",
    ),
    ("memory-grow", "(loop $on (drop (memory.grow (i32.const 1))) (br $on))"),
    (
        "table-fill",
        "(drop (table.grow $table (ref.null func) (i32.const 9999)))
         (loop $on (table.fill $table (i32.const 0) (ref.null func) (i32.const 10000)) (br $on))",
    ),
    (
        "table-copy",
        "(drop (table.grow $table (ref.null func) (i32.const 9999)))
         (loop $on (table.copy $table $table (i32.const 1) (i32.const 0) (i32.const 9999)) (br $on))",
    ),
];

/// Attacks of the guest `hostile-http`, by path below its route.
const PATHS: [&str; 20] = [
    "silent",
    "fail",
    "informational",
    "trap",
    "trap-midway",
    "short",
    "unfinished",
    "endless",
    "slow?100",
    "linger",
    "forbidden-header",
    "many-headers",
    "echo",
    "around",
    "random",
    "random-bytes",
    "pollables",
    "print",
    "spin",
    "fetch-many?http://127.0.0.1:1/",
];

/// Maximum requests in flight of one attack; further ones are not sent.
const IN_FLIGHT: usize = 32;

pub(super) async fn guests(attacker: Attacker) {
    let each = attacker.each;
    ask_all(attacker, Method::POST, &ATTACKS.map(|name| format!("/{name}")), each).await;
}

pub(super) async fn bulk_memory(attacker: Attacker) {
    // One of these takes as long as about ten others.
    let each = attacker.each / 4.0;
    ask_all(attacker, Method::GET, &BULK.map(|(name, _)| format!("/{name}")), each).await;
}

pub(super) async fn http_components(attacker: Attacker) {
    let each = attacker.each / 4.0;
    ask_all(attacker, Method::GET, &PATHS.map(|path| format!("/http/{path}")), each).await;
}

/// Sends `rate` requests per second to each of `paths`, in turn.
async fn ask_all(attacker: Attacker, method: Method, paths: &[String], rate: f64) {
    let apart = Duration::from_secs_f64(1.0 / rate) / paths.len() as u32;
    let begin = (0..).map(|index| Instant::now() + apart * index);
    let requests = paths.iter().zip(begin);
    attacker
        .all(requests.map(|(path, begin)| ask(attacker.clone(), method.clone(), path.clone(), rate, begin)))
        .await;
}

/// Sends `rate` requests per second to `path` from `begin` on, and reads the answers.
async fn ask(attacker: Attacker, method: Method, path: String, rate: f64, begin: Instant) {
    let url = format!("http://{}{path}", attacker.address);
    let mut tick = interval_at(begin, Duration::from_secs_f64(1.0 / rate));
    let mut in_flight = JoinSet::new();
    loop {
        tick.tick().await;
        while in_flight.try_join_next().is_some() {}
        if in_flight.len() == IN_FLIGHT {
            continue;
        }
        attacker.made();
        let asked = attacker.client.request(method.clone(), &url).bearer_auth(TENANT);
        let asked = asked.json(&json!({ "input": "x" })).send();
        in_flight.spawn(async move {
            if let Ok(mut answer) = asked.await {
                while let Ok(Some(_)) = answer.chunk().await {}
            }
        });
    }
}
