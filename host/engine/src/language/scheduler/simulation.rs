//! A seeded simulation: the real scheduler, queue and prefix cache with a stand-in for the decoder,
//! in one thread and in simulated time.
//!
//! A failure prints its seed; INFER_SIMULATION_SEED repeats it, and INFER_SIMULATION_STEPS sets the
//! number of steps.

mod callers;
mod stand_in;

use std::collections::HashSet;
use std::time::Duration;

use super::*;
use crate::language::clock;
use crate::language::kv::{Block, Sequence};
use crate::language::tests::support;
use callers::{Callers, Profile};
use stand_in::StandIn;

const STEPS: usize = 100_000;
const SESSIONS: usize = 6;
const BLOCKS: usize = 48;
const QUEUE: usize = 24;
const BATCH_LIMIT: usize = 24;
const CONTEXT: usize = 256;

/// Steps after which the load changes.
const PROFILE_STEPS: usize = 500;

/// Maximum steps until a request ends. With a full queue, each of `SESSIONS` tasks answers for up
/// to 60 steps, and a component may have to wait for the whole queue.
const STEPS_TO_END: usize = 1_500;

/// Maximum steps until a short request ends whose component has nothing else in flight.
const STEPS_OF_MODEST: usize = 150;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn shared() -> Shared {
    Shared {
        name: "m".to_owned(),
        inbox: Inbox::new(QUEUE),
        counters: Counters::default(),
        tokenizer: support::tokenizer("qwen2-q5_0.gguf"),
        formats: Formats::default(),
        pool: KvPool::new(1, 2 * BLOCK_TOKENS, BLOCKS * BLOCK_TOKENS * 2),
        sessions: SESSIONS,
        max_batch: BATCH_LIMIT,
    }
}

#[test]
fn simulated_requests_end_once_without_leaks() {
    let seed = variable("INFER_SIMULATION_SEED", 1);
    let steps = variable("INFER_SIMULATION_STEPS", STEPS as u64) as usize;
    println!("repeat with INFER_SIMULATION_SEED={seed}");
    let shared = shared();
    let model = StandIn::new(&shared.tokenizer, CONTEXT);
    let mut scheduler = Scheduler::new(&shared, model.clone());
    let mut callers = Callers::new(&shared, model, seed);
    let mut now = Instant::now();
    let mut profile = Profile::Normal;
    for step in 0..steps {
        now += Duration::from_millis(callers.random.u64(0..4));
        clock::SIMULATED.set(Some(now));
        if step % PROFILE_STEPS == 0 {
            profile = callers.next_profile();
        }
        callers.act(profile, step, now);
        check_bounds(&shared, &scheduler);
        scheduler.step();
        check_bounds(&shared, &scheduler);
        check_blocks(&shared, &scheduler);
        callers.collect(step, now);
    }
    for step in steps.. {
        if scheduler.running.is_empty() && shared.inbox.depth() == 0 {
            break;
        }
        scheduler.step();
        callers.collect(step, now);
    }
    clock::SIMULATED.set(None);
    callers.finish();
    check_blocks(&shared, &scheduler);
    while scheduler.prefixes.unpin() {}
    while scheduler.prefixes.evict() {}
    assert_eq!(shared.pool.used(), 0, "blocks are in use after the end");
}

/// The queue, the running tasks and the blocks stay within their limits.
fn check_bounds(shared: &Shared, scheduler: &Scheduler<'_, StandIn>) {
    assert!(shared.inbox.depth() <= QUEUE, "{} wait", shared.inbox.depth());
    assert!(scheduler.running.len() <= 2 * SESSIONS, "{} run", scheduler.running.len());
    assert!(shared.pool.used() <= BLOCKS, "{} blocks", shared.pool.used());
}

/// The blocks in use are exactly those of running tasks and cached prefixes.
fn check_blocks(shared: &Shared, scheduler: &Scheduler<'_, StandIn>) {
    let mut blocks: HashSet<*const Block> = scheduler.prefixes.block_set();
    for task in &scheduler.running {
        let segments = task.sequences().flat_map(Sequence::segments);
        blocks.extend(segments.map(|segment| Arc::as_ptr(&segment.block)));
    }
    assert_eq!(shared.pool.used(), blocks.len(), "blocks in use, and those that have an owner");
}
