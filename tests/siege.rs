//! Good traffic beside attacks, on one server with API keys and `memory_bytes`.
//!
//! - `server`: its configuration; `good`: the good traffic
//! - `guests`: attacks by hostile components; `clients`: attacks by malformed and slow requests

mod clients;
mod good;
mod guests;
mod server;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use reqwest::Client;
use tokio::task::JoinSet;

use self::good::Good;
use self::server::{GOOD, MEMORY_BYTES};
use crate::harness::{Process, eventually, free_address, ready};

/// An attack, which runs until it is dropped.
type Attack = fn(Attacker) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// All attacks, by the name that `HOSTILE_ONLY` takes.
const ATTACKS: [(&str, Attack); 13] = [
    ("guests", |attacker| Box::pin(guests::guests(attacker))),
    ("bulk-memory", |attacker| Box::pin(guests::bulk_memory(attacker))),
    ("http-components", |attacker| Box::pin(guests::http_components(attacker))),
    ("h2-zero-window", |attacker| Box::pin(clients::zero_window(attacker))),
    ("h2-byte-windows", |attacker| Box::pin(clients::byte_windows(attacker))),
    ("h2-rapid-reset", |attacker| Box::pin(clients::rapid_reset(attacker))),
    ("h2-slow-bodies", |attacker| Box::pin(clients::h2_slow_bodies(attacker))),
    ("h1-slow-bodies", |attacker| Box::pin(clients::h1_slow_bodies(attacker))),
    ("half-heads", |attacker| Box::pin(clients::half_heads(attacker))),
    ("slow-readers", |attacker| Box::pin(clients::slow_readers(attacker))),
    ("large-echoes", |attacker| Box::pin(clients::large_echoes(attacker))),
    ("large-photos", |attacker| Box::pin(clients::large_photos(attacker))),
    ("long-paths", |attacker| Box::pin(clients::long_paths(attacker))),
];

/// Maximum growth of memory after the attacks, in KB.
const GROWTH_LIMIT: u64 = 64 << 10;

/// Pause after the attacks, so that none of their requests is in flight in the next round.
const PAUSE: Duration = Duration::from_millis(500);

/// Time limit for memory to return to its level before the attacks.
const RETURN: Duration = Duration::from_secs(30);

/// The target and the size of an attack.
#[derive(Clone)]
struct Attacker {
    address: Arc<str>,
    client: Client,
    /// Requests per second of an attack with a rate.
    each: f64,
    /// Fraction of an attack's connections to open.
    share: f64,
    made: Arc<AtomicU64>,
}

/// Index of a connection, and its source address on this machine.
#[derive(Clone, Copy)]
struct Source {
    address: Ipv4Addr,
    index: usize,
}

/// Connections per source address, below the server's limit.
const CONNECTIONS_OF_ADDRESS: usize = 32;

/// Time over which an attack's connections open: many machines do not start at once.
const RAMP_UP: Duration = Duration::from_secs(1);

/// Time before a closed connection is opened again.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);

impl Attacker {
    /// Counts a request.
    fn made(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs all of `attacks`.
    async fn all(&self, attacks: impl IntoIterator<Item: Future<Output = ()> + Send + 'static>) {
        attacks.into_iter().collect::<JoinSet<_>>().join_all().await;
    }

    /// Keeps `count` connections open; each is opened again when `one` has ended.
    async fn hold<F>(&self, count: usize, one: impl Fn(Attacker, Source) -> F + Clone + Send + 'static)
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let count = ((count as f64 * self.share).ceil() as usize).max(1);
        self.all((0..count).map(|index| {
            let (attacker, one) = (self.clone(), one.clone());
            // Good requests come from 127.0.0.1, and clients that cannot choose an address use
            // 127.0.2.1 and up.
            let address = Ipv4Addr::new(127, 0, 1, (1 + index / CONNECTIONS_OF_ADDRESS) as u8);
            let begin = RAMP_UP.mul_f64(index as f64 / count as f64);
            async move {
                tokio::time::sleep(begin).await;
                loop {
                    // Success or failure, it starts again.
                    let _ = one(attacker.clone(), Source { address, index }).await;
                    tokio::time::sleep(RECONNECT_DELAY).await;
                }
            }
        }))
        .await;
    }
}

/// The load and duration of a siege.
struct Siege {
    /// Good requests per second.
    rate: f64,
    /// Requests per second of each attack with a rate.
    each: f64,
    /// Fraction of an attack's connections to open.
    share: f64,
    rounds: u32,
    /// Duration of a round alone, and of a round beside the attacks.
    time: Duration,
}

/// Alternates good requests alone and beside `attacks`; returns the faults. Latencies depend on the
/// machine: they are printed and are not faults.
async fn siege(name: &str, attacks: &[(&str, Attack)], size: &Siege) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let server = server::serve(folder.path(), &address);
    let client = Client::new();
    let ready = async || ready(&client, &address).await;
    eventually(ready).await;
    let ask = async |time| good::ask(&address, GOOD, size.rate, time).await;
    // Instances and models retain some memory after their first use, which is not due to attacks.
    good::warm_up(&address, GOOD).await;
    ask(Duration::from_secs(1)).await;
    let before = server.resident();

    let made: Vec<_> = attacks.iter().map(|_| Arc::new(AtomicU64::new(0))).collect();
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        if size.rounds > 1 {
            alone.push(ask(size.time).await);
        }
        let mut attackers = JoinSet::new();
        for (kind, ((_, attack), made)) in attacks.iter().zip(&made).enumerate() {
            let source = Ipv4Addr::new(127, 0, 2, 1 + kind as u8);
            let attacker = Attacker {
                address: address.as_str().into(),
                client: Client::builder().local_address(IpAddr::from(source)).build().unwrap(),
                each: size.each,
                share: size.share,
                made: made.clone(),
            };
            attackers.spawn(attack(attacker));
        }
        beside.push(ask(size.time).await);
        attackers.shutdown().await;
        tokio::time::sleep(PAUSE).await;
    }
    let made: Vec<_> = made.iter().map(|made| made.load(Ordering::Relaxed)).collect();
    print(name, &alone, &beside, made.iter().sum());
    if attacks.len() > 1 {
        for ((name, _), made) in attacks.iter().zip(&made) {
            println!("    {name:17}{made:7} attacks");
        }
    }
    let mut faults = Vec::new();
    for ((attack, _), _) in attacks.iter().zip(&made).filter(|(_, made)| **made == 0) {
        faults.push(format!("{name}: {attack} did not attack"));
    }
    for (when, rounds) in [("alone", &alone), ("beside", &beside)] {
        for good in rounds.iter().filter(|good| !good.lost.is_empty()) {
            faults.push(format!("{name}: lost {when}: {:?}", good.lost));
        }
    }
    faults.extend(check_memory(&server, before).await.map(|fault| format!("{name}: {fault}")));
    eventually(ready).await;
    faults
}

/// Returns a fault if the process exceeded `MEMORY_BYTES`, or does not return to the memory of
/// `before`.
async fn check_memory(server: &Process, before: u64) -> Option<String> {
    let (during, max) = (server.resident(), MEMORY_BYTES >> 10);
    // Allocators return free memory with a delay.
    let ended = Instant::now();
    while server.resident() > before + GROWTH_LIMIT && ended.elapsed() < RETURN {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (peak, after) = (server.peak(), server.resident());
    let seen = format!("{before} KB before, {during} at the end, {after} after, {peak} at max of {max}");
    println!("    memory: {seen}");
    (peak >= max || after > before + GROWTH_LIMIT).then_some(seen)
}

/// Prints the medians over the rounds, with minimum and maximum.
fn print(name: &str, alone: &[Good], beside: &[Good], attacks: u64) {
    let figures = |rounds: &[Good], quantile| {
        let mut all: Vec<_> = rounds.iter().map(|good| good.at(quantile)).collect();
        all.sort_by(f64::total_cmp);
        (all.get(all.len() / 2).copied().unwrap_or(f64::NAN), all)
    };
    print!("{name:17}{attacks:7} attacks");
    let mut p99 = Vec::new();
    for (when, rounds) in [("alone", alone), ("beside", beside)] {
        let (median, _) = figures(rounds, 0.5);
        let (tail, all) = figures(rounds, 0.99);
        let lost: usize = rounds.iter().flat_map(|good| good.lost.values()).sum();
        let (min, max) = (all.first().copied().unwrap_or(f64::NAN), all.last().copied().unwrap_or(f64::NAN));
        print!("  {when}: p50 {median:.2} p99 {tail:.2} ({min:.2}-{max:.2}) ms, {lost} lost");
        p99.push(tail);
    }
    println!("  p99 x {:.1}", p99[1] / p99[0]);
}

/// `make hostile`: each kind of attack, then all of them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "loads all cores for HOSTILE_SECONDS beside each kind of attack"]
async fn good_requests_succeed_beside_every_attack() {
    let seconds: u64 = std::env::var("HOSTILE_SECONDS").map_or(20, |text| text.parse().unwrap());
    let only = std::env::var("HOSTILE_ONLY").ok();
    let rounds = 4;
    let time = Duration::from_secs(seconds) / rounds;
    let size = Siege { rate: 200.0, each: 20.0, share: 1.0, rounds, time };
    let chosen = |name: &str| only.as_ref().is_none_or(|only| only.split(',').any(|one| one == name));
    let names: Vec<_> = ATTACKS.iter().map(|(name, _)| *name).chain(["all"]).collect();
    for name in only.iter().flat_map(|only| only.split(',')) {
        assert!(names.contains(&name), "HOSTILE_ONLY: expected some of {}, found `{name}`", names.join(","));
    }
    let mut faults = Vec::new();
    for attack in ATTACKS.iter().filter(|(name, _)| chosen(name)) {
        faults.extend(siege(attack.0, std::slice::from_ref(attack), &size).await);
    }
    if chosen("all") {
        // All together, each is weaker: on few processors the attackers' own work slows everything.
        let weaker = Siege { each: size.each / 4.0, share: size.share / 2.0, ..size };
        faults.extend(siege("all", &ATTACKS, &weaker).await);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn server_survives_short_combined_attack() {
    let size = Siege { rate: 40.0, each: 2.0, share: 0.2, rounds: 1, time: Duration::from_secs(4) };
    let faults = siege("all, in short", &ATTACKS, &size).await;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
