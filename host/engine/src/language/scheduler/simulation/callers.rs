//! Callers that send, cancel, and check what they get.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot::{self, error::TryRecvError};

use super::stand_in::StandIn;
use super::{BLOCKS, CONTEXT, STEPS_OF_MODEST, STEPS_TO_END};
use crate::language::choices::Choices;
use crate::language::inbox::PushError;
use crate::language::job::{Job, Work};
use crate::language::prefix::CacheOwner;
use crate::language::request::{Answer, Output, Params};
use crate::language::scheduler::Shared;
use crate::model::RunError;

/// Components that send as much as they like.
const GREEDY: [&str; 3] = ["a", "b", "c"];

/// A component that has at most one short request in flight.
const MODEST: &str = "modest";

/// Kind of load.
#[derive(Clone, Copy, Debug)]
pub(super) enum Profile {
    Idle,
    Normal,
    /// More requests than the queue holds.
    Burst,
    /// Requests of which few fit into the memory.
    Large,
}

/// A request that has not ended.
struct Request {
    answer: oneshot::Receiver<Result<Answer, RunError>>,
    deadline: Instant,
    arrived: usize,
    is_modest: bool,
    expected: Expected,
}

enum Expected {
    Text(Vec<u32>),
    Scores(Vec<f32>),
}

/// Number of requests by outcome.
#[derive(Debug, Default)]
struct Outcomes {
    sent: usize,
    answered: usize,
    cancelled: usize,
    expired: usize,
    displaced: usize,
    rejected: usize,
}

pub(super) struct Callers<'s> {
    shared: &'s Shared,
    model: StandIn,
    pub(super) random: fastrand::Rng,
    policies: Vec<Vec<u32>>,
    /// Sessions that send again, with their tokens.
    sessions: Vec<(CacheOwner, Vec<u32>)>,
    open: Vec<Request>,
    outcomes: Outcomes,
    slowest: usize,
    slowest_modest: usize,
}

impl<'s> Callers<'s> {
    pub(super) fn new(shared: &'s Shared, model: StandIn, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let policies = (0..5).map(|_| text(&mut random, 10..100)).collect();
        let (sessions, open, outcomes) = Default::default();
        Callers { shared, model, random, policies, sessions, open, outcomes, slowest: 0, slowest_modest: 0 }
    }

    pub(super) fn next_profile(&mut self) -> Profile {
        [Profile::Idle, Profile::Normal, Profile::Burst, Profile::Large][self.random.usize(0..4)]
    }

    /// Sends and cancels requests.
    pub(super) fn act(&mut self, profile: Profile, step: usize, now: Instant) {
        let arrivals = match profile {
            Profile::Idle => usize::from(self.random.u32(0..50) == 0),
            Profile::Normal => usize::from(self.random.u32(0..8) == 0),
            Profile::Burst => self.random.usize(0..4),
            Profile::Large => usize::from(self.random.u32(0..3) == 0),
        };
        for _ in 0..arrivals {
            let component = GREEDY[self.random.usize(0..3)];
            self.send(component, matches!(profile, Profile::Large), step, now);
        }
        if self.random.u32(0..20) == 0 && !self.open.iter().any(|request| request.is_modest) {
            let owner = CacheOwner::new(&Arc::from(MODEST));
            let prompt = text(&mut self.random, 1..10);
            let work = Work::Generate(Params { max_tokens: 3, ..Params::default() }, None);
            self.push(owner, prompt, 0, work, step, now + Duration::from_secs(3600));
        }
        if self.random.u32(0..15) == 0 && !self.open.is_empty() {
            let index = self.random.usize(0..self.open.len());
            let mut request = self.open.swap_remove(index);
            match request.answer.try_recv() {
                // It ended in the queue just before, and a displaced one is counted already.
                Ok(Err(RunError::Deadline { .. })) => self.outcomes.expired += 1,
                Ok(Err(RunError::Busy { .. })) => {}
                _ => self.outcomes.cancelled += 1,
            }
        }
    }

    fn send(&mut self, component: &str, is_large: bool, step: usize, now: Instant) {
        let random = &mut self.random;
        let (owner, mut prompt) = match random.usize(0..8) {
            index if index < self.sessions.len() => self.sessions.swap_remove(index),
            _ => {
                let mut prompt = self.policies[random.usize(0..self.policies.len())].clone();
                prompt.truncate(random.usize(1..=prompt.len()));
                (CacheOwner::new(&Arc::from(component)), prompt)
            }
        };
        prompt.extend(text(random, if is_large { 60..140 } else { 0..30 }));
        prompt.truncate(CONTEXT - 20);
        let declared = if random.bool() { random.usize(0..=prompt.len()) } else { 0 };
        let work = if random.bool() {
            let room = CONTEXT - prompt.len();
            let max_tokens = random.usize(1..if is_large { 60 } else { 40 }).min(room);
            Work::Generate(Params { max_tokens, ..Params::default() }, None)
        } else {
            // Of few different tokens, so that some choices begin alike.
            let choice = |random: &mut fastrand::Rng| -> Vec<u32> {
                (0..random.usize(1..20)).map(|_| random.u32(3..5)).collect()
            };
            let choices: Vec<_> = (0..random.usize(1..6)).map(|_| choice(random)).collect();
            Work::Score(Choices::new(&choices))
        };
        let patience = match random.u32(0..6) {
            0 => Duration::from_millis(random.u64(1..200)),
            1 => Duration::from_millis(random.u64(1..2_000)),
            _ => Duration::from_secs(3600),
        };
        if random.bool() && self.sessions.len() < 6 {
            self.sessions.push((owner.clone(), prompt.clone()));
        }
        self.push(owner, prompt, declared, work, step, now + patience);
    }

    fn push(
        &mut self,
        owner: CacheOwner,
        prompt: Vec<u32>,
        declared: usize,
        work: Work,
        arrived: usize,
        deadline: Instant,
    ) {
        let expected = match &work {
            Work::Generate(params, _) => Expected::Text(self.model.answer(&prompt, params.max_tokens)),
            Work::Score(choices) => {
                let choices = choices.all();
                Expected::Scores(choices.iter().map(|choice| self.model.score(&prompt, choice)).collect())
            }
        };
        let is_modest = &*owner.component == MODEST;
        let (reply, answer) = oneshot::channel();
        let pin = declared > 0 && self.random.bool();
        let (prompt, queued) = (prompt.into(), crate::language::clock::now());
        let job = Job { owner, prompt, declared, pin, work, stream: None, queued, deadline, reply };
        // `LanguageModel` rejects these.
        if job.blocks() > BLOCKS {
            return;
        }
        self.outcomes.sent += 1;
        match self.shared.inbox.push(job, |dead| self.shared.skip(dead)) {
            Ok(displaced) => {
                if let Some(displaced) = displaced {
                    let busy = RunError::Busy { model: "m".to_owned(), capacity: 0 };
                    let is_heard = displaced.reply.send(Err(busy)).is_ok();
                    // A caller that has left is counted as cancelled, and its job as displaced.
                    self.outcomes.displaced += 1;
                    self.outcomes.cancelled -= usize::from(!is_heard);
                }
                self.open.push(Request { answer, deadline, arrived, is_modest, expected });
            }
            Err(error) => {
                assert_eq!(error, PushError::Full);
                self.outcomes.rejected += 1;
            }
        }
    }

    /// Receives answers and checks them.
    pub(super) fn collect(&mut self, step: usize, now: Instant) {
        let Callers { open, outcomes, slowest, slowest_modest, .. } = self;
        open.retain_mut(|request| {
            let steps = step - request.arrived;
            let max = if request.is_modest { STEPS_OF_MODEST } else { STEPS_TO_END };
            assert!(steps <= max, "a request has waited for {steps} steps");
            match request.answer.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Closed) => panic!("a request was dropped without an answer"),
                Ok(Ok(answer)) => {
                    check(&request.expected, answer);
                    outcomes.answered += 1;
                    let slowest = if request.is_modest { &mut *slowest_modest } else { &mut *slowest };
                    *slowest = steps.max(*slowest);
                }
                Ok(Err(RunError::Deadline { .. })) => {
                    assert!(now >= request.deadline, "a request expired before its deadline");
                    outcomes.expired += 1;
                }
                // Counted where it was sent.
                Ok(Err(RunError::Busy { .. })) => {}
                Ok(Err(error)) => panic!("{error}"),
            }
            false
        });
    }

    /// Checks that every request has ended once.
    pub(super) fn finish(self) {
        let Outcomes { sent, answered, cancelled, expired, displaced, rejected } = self.outcomes;
        let (slowest, modest) = (self.slowest, self.slowest_modest);
        println!("{:?}; at most {slowest} steps to an answer, {modest} of the modest", self.outcomes);
        assert!(self.open.is_empty(), "{} requests have not ended", self.open.len());
        assert_eq!(sent, answered + cancelled + expired + displaced + rejected);
        let stats = self.shared.counters.read();
        assert_eq!(stats.failed, 0);
        // A cancelled request is skipped, or computed if it was cancelled during its last pass.
        assert_eq!(stats.computed + stats.skipped, (answered + cancelled + expired) as u64);
        assert!([answered, cancelled, expired, displaced, rejected].iter().all(|&count| count > sent / 1000));
    }
}

fn text(random: &mut fastrand::Rng, lengths: std::ops::Range<usize>) -> Vec<u32> {
    (0..random.usize(lengths)).map(|_| random.u32(3..300)).collect()
}

/// Batching, caching and eviction do not change an answer.
fn check(expected: &Expected, answer: Answer) {
    match (expected, answer.output) {
        (Expected::Text(expected), Output::Text { tokens, .. }) => assert_eq!(&tokens, expected),
        (Expected::Scores(expected), Output::Scores(scores)) => {
            let is_near = |(one, other): (&f32, &f32)| (one - other).abs() < 1e-3;
            assert_eq!(scores.len(), expected.len());
            assert!(scores.iter().zip(expected).all(is_near), "{scores:?}, expected {expected:?}");
        }
        (_, other) => panic!("another kind of answer: {other:?}"),
    }
}
