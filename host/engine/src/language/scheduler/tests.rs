use std::time::Duration;

use tokio::sync::oneshot;

use super::*;
use crate::language::choices::Choices;
use crate::language::job::Work;
use crate::language::prefix::CacheOwner;
use crate::language::request::{Answer, Output, Params};
use crate::language::tests::support;

type Answers = Vec<oneshot::Receiver<Result<Answer, RunError>>>;

fn shared(sessions: usize, blocks: usize) -> (Shared, Decoder) {
    let (decoder, pool) = support::decoder("qwen2-q5_0.gguf", 256);
    let config = decoder.config();
    let pool = KvPool::new(config.layers, config.attention.layer_bytes(), blocks * pool.block_bytes());
    let tokenizer = support::tokenizer("qwen2-q5_0.gguf");
    let (inbox, counters, name) = (Inbox::new(64), Counters::default(), "m".to_owned());
    (
        Shared {
            name,
            inbox,
            counters,
            tokenizer,
            formats: Formats::default(),
            pool,
            sessions,
            max_batch: 24,
        },
        decoder,
    )
}

fn push(shared: &Shared, component: &str, prompt: &[u32], pinned: usize, work: Work, answers: &mut Answers) {
    let (reply, answer) = oneshot::channel();
    let now = Instant::now();
    let (owner, prompt) = (CacheOwner::new(&Arc::from(component)), Arc::from(prompt));
    let (declared, pin, deadline) = (pinned, pinned > 0, now + Duration::from_secs(3600));
    let job = Job { owner, prompt, declared, pin, work, stream: None, queued: now, deadline, reply };
    if let Ok(Some(displaced)) = shared.inbox.push(job, |_| ()) {
        drop(displaced);
    }
    answers.push(answer);
}

fn score(choices: &[Vec<u32>]) -> Work {
    Work::Score(Choices::new(choices))
}

fn generate(max_tokens: usize) -> Work {
    Work::Generate(Params { max_tokens, ..Params::default() }, None)
}

#[test]
fn random_operations_leak_no_block() {
    let (shared, decoder) = shared(5, 40);
    let mut scheduler = Scheduler::new(&shared, decoder);
    let mut random = fastrand::Rng::with_seed(3);
    let policies: Vec<Vec<u32>> =
        (0..4).map(|_| (0..random.usize(10..90)).map(|_| random.u32(3..300)).collect()).collect();
    let mut answers: Answers = Vec::new();
    let mut answered = 0;
    for _ in 0..10_000 {
        match random.u32(0..10) {
            0..2 => {
                let mut prompt = policies[random.usize(0..4)].clone();
                prompt.truncate(random.usize(1..=prompt.len()));
                prompt.extend((0..random.usize(0..30)).map(|_| random.u32(3..300)));
                let pinned = if random.bool() { random.usize(0..prompt.len()) } else { 0 };
                let work = if random.bool() {
                    generate(random.usize(1..40))
                } else {
                    let branch = |random: &mut fastrand::Rng| {
                        (0..random.usize(1..20)).map(|_| random.u32(3..6)).collect()
                    };
                    score(&(0..random.usize(1..6)).map(|_| branch(&mut random)).collect::<Vec<_>>())
                };
                push(&shared, ["a", "b", "c"][random.usize(0..3)], &prompt, pinned, work, &mut answers);
            }
            2 if !answers.is_empty() => drop(answers.swap_remove(random.usize(0..answers.len()))),
            _ => scheduler.step(),
        }
        assert!(shared.pool.used() <= 40);
        answers.retain_mut(|answer| match answer.try_recv() {
            Ok(answer) => {
                if let Output::Scores(scores) = answer.unwrap().output {
                    assert!(scores.iter().all(|score| score.is_finite() && *score <= 0.0), "{scores:?}");
                }
                answered += 1;
                false
            }
            Err(oneshot::error::TryRecvError::Empty) => true,
            Err(oneshot::error::TryRecvError::Closed) => false,
        });
    }
    assert!(answered > 500, "{answered} answers");
    while !scheduler.running.is_empty() || shared.inbox.depth() > 0 {
        scheduler.step();
    }
    assert_eq!(shared.pool.used(), scheduler.prefixes.blocks(), "a block that no prefix holds is in use");
    while scheduler.prefixes.unpin() {}
    while scheduler.prefixes.evict() {}
    assert_eq!(shared.pool.used(), 0);
}

#[test]
fn cancelled_request_leaks_no_block() {
    let (shared, decoder) = shared(2, 40);
    let mut scheduler = Scheduler::new(&shared, decoder);
    let mut answers = Vec::new();
    push(&shared, "a", &(3..70).collect::<Vec<_>>(), 0, generate(100), &mut answers);
    (0..10).for_each(|_| scheduler.step());
    assert!(shared.pool.used() > scheduler.prefixes.blocks());
    answers.clear();
    scheduler.step();
    assert_eq!(shared.pool.used(), scheduler.prefixes.blocks());
}

#[test]
fn concurrent_requests_compute_common_prefix_once() {
    let (shared, decoder) = shared(8, 100);
    let mut scheduler = Scheduler::new(&shared, decoder);
    let policy: Vec<u32> = (3..103).collect();
    let mut answers = Vec::new();
    for user in 0..6 {
        let prompt = [&policy[..], &[200 + user, 250]].concat();
        push(&shared, "a", &prompt, 100, score(&[vec![7], vec![9]]), &mut answers);
    }
    push(&shared, "b", &policy, 0, score(&[vec![7]]), &mut answers);
    while !scheduler.running.is_empty() || shared.inbox.depth() > 0 {
        scheduler.step();
    }
    let cached: Vec<_> =
        answers.iter_mut().map(|answer| answer.try_recv().unwrap().unwrap().usage.cached_tokens).collect();
    assert_eq!(cached[0], 0);
    assert!(cached.iter().all(|&cached| cached <= 100), "more than what is declared was found: {cached:?}");
    // Whole blocks while the first request is in flight, everything after it is done.
    assert!(cached[1..6].iter().all(|&cached| cached >= 96), "{cached:?}");
    assert_eq!(cached[6], 0, "another component's prefix was found");
}

#[test]
fn components_share_rows_fairly() {
    let (shared, decoder) = shared(2, 200);
    let mut scheduler = Scheduler::new(&shared, decoder);
    let mut answers = Vec::new();
    for index in 0..8 {
        let prompt: Vec<u32> = (0..120).map(|i| 3 + (i * 7 + index) % 290).collect();
        push(&shared, "greedy", &prompt, 0, generate(8), &mut answers);
    }
    push(&shared, "modest", &[5, 6, 7], 0, generate(1), &mut answers);
    let mut modest = answers.pop().unwrap();
    while modest.try_recv().is_err() {
        scheduler.step();
    }
    let done = answers.iter_mut().filter_map(|answer| answer.try_recv().ok()).count();
    assert!(done <= 2, "{done} of the greedy component's were answered first");
}
#[test]
fn idle_component_starts_despite_long_answers() {
    let (shared, decoder) = shared(4, 400);
    let mut scheduler = Scheduler::new(&shared, decoder);
    let mut answers = Vec::new();
    for index in 0..8 {
        let prompt: Vec<u32> = (0..20).map(|i| 3 + (i * 7 + index) % 290).collect();
        push(&shared, "greedy", &prompt, 0, generate(200), &mut answers);
    }
    scheduler.step();
    assert_eq!(scheduler.running.len(), 4, "one component has no more than the sessions");
    push(&shared, "modest", &[5, 6, 7], 0, generate(1), &mut answers);
    let mut modest = answers.pop().unwrap();
    (0..10).for_each(|_| scheduler.step());
    assert!(modest.try_recv().is_ok(), "it waits for answers of 200 tokens");
}

#[test]
fn blocks_are_reserved_for_idle_components() {
    let (shared, decoder) = shared(8, 40);
    let mut scheduler = Scheduler::new(&shared, decoder);
    let mut answers = Vec::new();
    for index in 0..8 {
        let prompt: Vec<u32> = (0..20).map(|i| 3 + (i * 7 + index) % 290).collect();
        push(&shared, "greedy", &prompt, 0, generate(60), &mut answers);
    }
    scheduler.step();
    push(&shared, "modest", &[5, 6, 7], 0, generate(1), &mut answers);
    let mut modest = answers.pop().unwrap();
    (0..10).for_each(|_| scheduler.step());
    assert!(modest.try_recv().is_ok(), "it waits for blocks");
}

#[test]
fn prompts_advance_with_more_answers_than_rows() {
    let (mut shared, decoder) = shared(4, 400);
    shared.max_batch = 4;
    let mut scheduler = Scheduler::new(&shared, decoder);
    let mut answers = Vec::new();
    for index in 0..4 {
        push(&shared, "greedy", &[5, 6, 7 + index], 0, generate(100), &mut answers);
    }
    (0..10).for_each(|_| scheduler.step());
    assert!(scheduler.running.iter().all(Task::is_urgent));
    push(&shared, "modest", &(3..13).collect::<Vec<_>>(), 0, score(&[vec![7]]), &mut answers);
    let mut modest = answers.pop().unwrap();
    (0..20).for_each(|_| scheduler.step());
    assert!(modest.try_recv().is_ok(), "its prompt gets no rows");
}

#[test]
fn new_policy_replaces_pins_of_old_one() {
    let (shared, decoder) = shared(4, 32);
    let mut scheduler = Scheduler::new(&shared, decoder);
    let go = |scheduler: &mut Scheduler<'_>, component, prompt: &[u32], pinned| {
        let mut answers = Vec::new();
        push(&shared, component, prompt, pinned, score(&[vec![7]]), &mut answers);
        while !scheduler.running.is_empty() || shared.inbox.depth() > 0 {
            scheduler.step();
        }
        answers.pop().unwrap().try_recv().unwrap().unwrap().usage.cached_tokens
    };
    let prompt =
        |seed: u32, end| (0..165).map(|i| 3 + (i * 7 + seed * 31) % 290).chain([end]).collect::<Vec<_>>();
    assert_eq!(go(&mut scheduler, "a", &prompt(1, 5), 165), 0);
    assert_eq!(go(&mut scheduler, "a", &prompt(1, 6), 165), 165);
    assert_eq!(go(&mut scheduler, "a", &prompt(2, 5), 165), 0);
    for round in 0..6 {
        assert_eq!(go(&mut scheduler, "a", &prompt(2, 10 + round), 165), 165, "round {round}");
        // Other requests evict the least recently used blocks; the pins of the new policy remain.
        go(&mut scheduler, "b", &prompt(20 + round, 5), 0);
    }
}
