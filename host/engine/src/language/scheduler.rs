//! The thread that owns a model: it admits requests, forms passes out of all of them, and answers.
//!
//! A pass has a row for each answer under way, and then as many rows of prompts as fit, so that no answer waits for a long
//! prompt and no prompt for all answers. Whose turn it is follows from what each component has had. Between passes the
//! thread looks at deadlines and at callers that have gone.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use infer_kernels::BLOCK_TOKENS;

use super::decoder::Decoder;
use super::inbox::{Inbox, Job, Waiting};
use super::kv::KvPool;
use super::prefix::Prefixes;
use super::task::Task;
use super::tokenizer::Tokenizer;
use crate::model::{Counters, RunError, panic_message};

/// How many rows' logits are computed at once: a row of a large vocabulary is 600 KB.
const LOGIT_ROWS: usize = 16;

/// One of so many rows is left to prompts while answers are under way, and one of so many blocks to components that have
/// nothing under way.
const LEFT_TO_OTHERS: usize = 8;

/// What callers and the thread have in common.
pub(super) struct Shared {
    /// The model's name, for errors.
    pub(super) name: String,
    pub(super) inbox: Inbox,
    pub(super) counters: Counters,
    pub(super) tokenizer: Tokenizer,
    pub(super) pool: KvPool,
    /// Requests that are computed at once.
    pub(super) sessions: usize,
    /// Rows of a pass.
    pub(super) max_batch: usize,
}

pub(super) struct Scheduler<'t> {
    shared: &'t Shared,
    decoder: Decoder,
    prefixes: Prefixes,
    running: Vec<Task<'t>>,
    /// Rows that each component with something to compute has had, or as many as the least of the others had when it came.
    served: HashMap<Arc<str>, u64>,
}

impl<'t> Scheduler<'t> {
    pub(super) fn new(shared: &'t Shared, decoder: Decoder) -> Self {
        let (prefixes, running, served) = Default::default();
        Scheduler { shared, decoder, prefixes, running, served }
    }

    /// Compute what comes until the inbox is closed.
    pub(super) fn serve(mut self) {
        while !self.shared.inbox.is_closed() {
            if self.running.is_empty() && !self.shared.inbox.wait() {
                return;
            }
            self.turn();
        }
    }

    /// One pass, of what is wanted now.
    fn turn(&mut self) {
        self.remove_dead();
        self.admit();
        if !self.running.is_empty() {
            self.pass();
        }
    }

    fn remove_dead(&mut self) {
        let now = Instant::now();
        for task in self.running.extract_if(.., |task| task.job.is_dead(now)) {
            self.shared.skip(task.job);
        }
    }

    /// Begin waiting requests, as far as sessions and blocks go.
    fn admit(&mut self) {
        let shared = self.shared;
        // A component that has nothing under way need not wait until another's answers are there: so many may begin besides.
        while self.running.len() < 2 * shared.sessions {
            let waiting = shared.inbox.waiting(|dead| shared.skip(dead));
            let Some(next) = self.choose(&waiting) else { return };
            // One that was displaced meanwhile is gone, and another may begin.
            let Some(job) = shared.inbox.take(next) else { continue };
            let least = self.served.values().copied().min().unwrap_or(0);
            let served = self.served.entry(job.whose.component.clone()).or_insert(least);
            *served = (*served).max(least);
            // The last token is computed again even where it is known: what follows it is asked.
            let most = job.prompt.len() - 1;
            let prefix = self.prefixes.find(&job.whose, &job.prompt, most);
            self.running.push(Task::new(job, prefix, &self.shared.tokenizer));
        }
    }

    /// The request that is to begin next, if one can.
    fn choose<'w>(&mut self, waiting: &'w [Waiting]) -> Option<&'w Waiting> {
        let running = self.running.iter().map(|task| &task.job.whose);
        let present = running.chain(waiting.iter().map(|job| &job.whose));
        let present: HashSet<_> = present.map(|whose| whose.component.clone()).collect();
        self.served.retain(|component, _| present.contains(component));
        let served = |job: &Waiting| self.served.get(&job.whose.component).copied().unwrap_or(0);
        let next = waiting
            .iter()
            .filter(|job| self.running.len() < self.shared.sessions || !self.has_running(job))
            .filter(|job| !self.is_being_computed(job))
            .min_by_key(|job| served(job))?;
        self.fits(next).then_some(next)
    }

    fn has_running(&self, job: &Waiting) -> bool {
        self.running.iter().any(|task| task.job.whose.component == job.whose.component)
    }

    /// Whether a running request computes a longer beginning of this one than is there now: it is worth waiting for.
    fn is_being_computed(&self, job: &Waiting) -> bool {
        let known = self.prefixes.known(&job.whose, &job.prompt);
        self.running.iter().any(|task| {
            let common = match task.job.whose.session == job.whose.session {
                true => task.common(&job.prompt),
                false => task.common(&job.prompt).min(task.job.declared),
            };
            let common = common / BLOCK_TOKENS * BLOCK_TOKENS;
            task.job.whose.component == job.whose.component && common > known && task.sequence.len() < common
        })
    }

    /// Whether the blocks that the request may need are there beside those that the running ones may yet take. An eighth is
    /// left to components that have nothing under way.
    fn fits(&self, job: &Waiting) -> bool {
        if self.running.is_empty() {
            return true;
        }
        let held = self.shared.pool.used() - self.prefixes.evictable();
        let reserved: usize = self.running.iter().map(|task| task.reserved).sum();
        let needed = job.blocks.saturating_sub(self.prefixes.held(&job.whose, &job.prompt));
        let capacity = self.shared.pool.capacity();
        let left = if self.has_running(job) { capacity / LEFT_TO_OTHERS } else { 0 };
        held + reserved + needed + left <= capacity
    }

    fn pass(&mut self) {
        let began = Instant::now();
        let rows = self.prepare();
        if rows == 0 {
            self.fail_youngest();
            return;
        }
        // Unwind safety: what a panic leaves half-computed are buffers, which the next pass fills anew, and the
        // sequences of these tasks, which are dropped.
        let computed = catch_unwind(AssertUnwindSafe(|| self.compute()));
        let took = began.elapsed();
        let mut finished = 0;
        for task in self.running.iter_mut().filter(|task| task.share > 0) {
            task.compute += took;
            task.batch = task.batch.max(rows);
        }
        if let Err(panic) = computed {
            let message = panic_message(&*panic);
            for task in self.running.extract_if(.., |task| task.share > 0) {
                self.shared.fail(task.job, &message);
            }
            return;
        }
        for task in self.running.iter().filter(|task| task.share > 0) {
            let len = if task.is_done() {
                task.sequence.len()
            } else {
                task.sequence.len() / BLOCK_TOKENS * BLOCK_TOKENS
            };
            let most_pinned = if task.job.pin { self.shared.pool.capacity() / 2 } else { 0 };
            self.prefixes.insert(&task.job.whose, &task.sequence, len, task.job.declared, most_pinned);
        }
        for task in self.running.extract_if(.., |task| task.is_done()) {
            let (job, answer) = task.finish();
            // A caller that has left meanwhile does not want it.
            let _ = job.reply.send(Ok(answer));
            finished += 1;
        }
        self.shared.counters.batch(finished, rows);
    }

    /// Give each request its rows of the next pass; how many they are together.
    fn prepare(&mut self) -> usize {
        let served = |task: &Task<'_>| self.served.get(&task.job.whose.component).copied().unwrap_or(0);
        let mut order: Vec<usize> = (0..self.running.len()).collect();
        order.sort_by_key(|&index| (!self.running[index].is_urgent(), served(&self.running[index])));
        let prompts = self.running.iter().any(|task| !task.is_urgent() && task.pending() > 0);
        let to_prompts = if prompts { self.shared.max_batch.div_ceil(LEFT_TO_OTHERS) } else { 0 };
        let mut left = self.shared.max_batch - to_prompts;
        let mut kept = to_prompts;
        let mut rows = 0;
        for index in order {
            let task = &mut self.running[index];
            task.share = 0;
            if !task.is_urgent() {
                left += std::mem::take(&mut kept);
            }
            let wanted = task.pending().min(left);
            if wanted == 0 {
                continue;
            }
            while task.prepare(left, &self.shared.pool).is_err() && self.prefixes.evict() {}
            rows += task.share;
            left = left.saturating_sub(task.share);
            *self.served.entry(task.job.whose.component.clone()).or_default() += task.share as u64;
        }
        rows
    }

    fn compute(&mut self) {
        let mut runs: Vec<_> = self.running.iter_mut().flat_map(Task::runs).collect();
        self.decoder.forward(&mut runs);
        drop(runs);
        let wanted = self.running.iter().enumerate();
        let wanted: Vec<(usize, usize)> =
            wanted.flat_map(|(task, of)| (0..of.wanted()).map(move |row| (task, row))).collect();
        let (vocabulary, context) = (self.decoder.vocabulary(), self.decoder.config().context);
        for (part, rows) in wanted.chunks(LOGIT_ROWS).enumerate() {
            let logits = self.decoder.logits(part * LOGIT_ROWS, rows.len());
            for (logits, &(task, row)) in logits.chunks_exact_mut(vocabulary).zip(rows) {
                self.running[task].take(row, logits, context, &self.shared.tokenizer);
            }
        }
    }

    /// No request could go on: pins hold what they need. Pins give way, and only then a request.
    fn fail_youngest(&mut self) {
        if self.prefixes.unpin() {
            return;
        }
        if let Some(task) = self.running.pop() {
            self.shared.fail(task.job, "its keys and values do not fit into `kv_bytes`");
        }
    }
}

impl Shared {
    /// Answer a job that nobody waits for any more.
    pub(super) fn skip(&self, job: Job) {
        self.counters.skipped();
        // Its caller may be just short of noticing the deadline; a caller that is gone does not mind.
        let _ = job.reply.send(Err(RunError::Deadline { model: self.name.clone() }));
    }

    fn fail(&self, job: Job, message: &str) {
        self.counters.failed();
        let _ =
            job.reply.send(Err(RunError::Failed { model: self.name.clone(), message: message.to_owned() }));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::super::inbox::Work;
    use super::super::prefix::Whose;
    use super::super::request::{Answer, Output, Params};
    use super::super::tests::support;
    use super::*;

    type Answers = Vec<oneshot::Receiver<Result<Answer, RunError>>>;

    fn shared(sessions: usize, blocks: usize) -> (Shared, Decoder) {
        let (decoder, pool) = support::decoder("qwen2-q5_0.gguf", 256);
        let config = decoder.config();
        let pool = KvPool::new(config.layers, config.attention.layer_elements(), blocks * pool.block_bytes());
        let tokenizer = support::tokenizer("qwen2-q5_0.gguf");
        let (inbox, counters, name) = (Inbox::new(64), Counters::default(), "m".to_owned());
        (Shared { name, inbox, counters, tokenizer, pool, sessions, max_batch: 24 }, decoder)
    }

    fn push(
        shared: &Shared,
        component: &str,
        prompt: &[u32],
        pinned: usize,
        work: Work,
        answers: &mut Answers,
    ) {
        let (reply, answer) = oneshot::channel();
        let now = Instant::now();
        let (whose, prompt) = (Whose::new(&Arc::from(component)), Arc::from(prompt));
        let (declared, pin, deadline) = (pinned, pinned > 0, now + Duration::from_secs(3600));
        let job = Job { whose, prompt, declared, pin, work, stream: None, queued: now, deadline, reply };
        if let Ok(Some(displaced)) = shared.inbox.push(job, |_| ()) {
            drop(displaced);
        }
        answers.push(answer);
    }

    fn generate(max_tokens: usize) -> Work {
        Work::Generate(Params { max_tokens, ..Params::default() })
    }

    #[test]
    fn random_operations_leave_no_block_behind() {
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
                            (0..random.usize(1..20)).map(|_| random.u32(3..300)).collect()
                        };
                        Work::Score((0..random.usize(1..6)).map(|_| branch(&mut random)).collect())
                    };
                    push(&shared, ["a", "b", "c"][random.usize(0..3)], &prompt, pinned, work, &mut answers);
                }
                2 if !answers.is_empty() => drop(answers.swap_remove(random.usize(0..answers.len()))),
                _ => scheduler.turn(),
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
            scheduler.turn();
        }
        assert_eq!(shared.pool.used(), scheduler.prefixes.blocks(), "a block that no prefix holds is in use");
        while scheduler.prefixes.unpin() {}
        while scheduler.prefixes.evict() {}
        assert_eq!(shared.pool.used(), 0);
    }

    #[test]
    fn cancelled_request_leaves_no_block_behind() {
        let (shared, decoder) = shared(2, 40);
        let mut scheduler = Scheduler::new(&shared, decoder);
        let mut answers = Vec::new();
        push(&shared, "a", &(3..70).collect::<Vec<_>>(), 0, generate(100), &mut answers);
        (0..10).for_each(|_| scheduler.turn());
        assert!(shared.pool.used() > scheduler.prefixes.blocks());
        answers.clear();
        scheduler.turn();
        assert_eq!(shared.pool.used(), scheduler.prefixes.blocks());
    }

    #[test]
    fn concurrent_requests_compute_a_common_prefix_once() {
        let (shared, decoder) = shared(8, 100);
        let mut scheduler = Scheduler::new(&shared, decoder);
        let policy: Vec<u32> = (3..103).collect();
        let mut answers = Vec::new();
        for user in 0..6 {
            let prompt = [&policy[..], &[200 + user, 250]].concat();
            push(&shared, "a", &prompt, 100, Work::Score(vec![vec![7], vec![9]]), &mut answers);
        }
        push(&shared, "b", &policy, 0, Work::Score(vec![vec![7]]), &mut answers);
        while !scheduler.running.is_empty() || shared.inbox.depth() > 0 {
            scheduler.turn();
        }
        let cached: Vec<_> = answers
            .iter_mut()
            .map(|answer| answer.try_recv().unwrap().unwrap().usage.cached_tokens)
            .collect();
        assert_eq!(cached[0], 0);
        assert!(
            cached.iter().all(|&cached| cached <= 100),
            "more than what is declared was found: {cached:?}"
        );
        // Whole blocks while the first is under way, everything once it is done.
        assert!(cached[1..6].iter().all(|&cached| cached >= 96), "{cached:?}");
        assert_eq!(cached[6], 0, "another component's prefix was found");
    }

    #[test]
    fn components_take_turns() {
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
            scheduler.turn();
        }
        let done = answers.iter_mut().filter_map(|answer| answer.try_recv().ok()).count();
        assert!(done <= 2, "{done} of the greedy component's were answered first");
    }
    #[test]
    fn component_with_nothing_under_way_does_not_wait_for_anothers_answers() {
        let (shared, decoder) = shared(4, 400);
        let mut scheduler = Scheduler::new(&shared, decoder);
        let mut answers = Vec::new();
        for index in 0..8 {
            let prompt: Vec<u32> = (0..20).map(|i| 3 + (i * 7 + index) % 290).collect();
            push(&shared, "greedy", &prompt, 0, generate(200), &mut answers);
        }
        scheduler.turn();
        assert_eq!(scheduler.running.len(), 4, "one component has no more than the sessions");
        push(&shared, "modest", &[5, 6, 7], 0, generate(1), &mut answers);
        let mut modest = answers.pop().unwrap();
        (0..10).for_each(|_| scheduler.turn());
        assert!(modest.try_recv().is_ok(), "it waits for answers of 200 tokens");
    }

    #[test]
    fn blocks_of_one_component_leave_room_for_anothers_request() {
        let (shared, decoder) = shared(8, 40);
        let mut scheduler = Scheduler::new(&shared, decoder);
        let mut answers = Vec::new();
        for index in 0..8 {
            let prompt: Vec<u32> = (0..20).map(|i| 3 + (i * 7 + index) % 290).collect();
            push(&shared, "greedy", &prompt, 0, generate(60), &mut answers);
        }
        scheduler.turn();
        push(&shared, "modest", &[5, 6, 7], 0, generate(1), &mut answers);
        let mut modest = answers.pop().unwrap();
        (0..10).for_each(|_| scheduler.turn());
        assert!(modest.try_recv().is_ok(), "it waits for blocks");
    }

    #[test]
    fn prompts_advance_beside_more_answers_than_rows() {
        let (mut shared, decoder) = shared(4, 400);
        shared.max_batch = 4;
        let mut scheduler = Scheduler::new(&shared, decoder);
        let mut answers = Vec::new();
        for index in 0..4 {
            push(&shared, "greedy", &[5, 6, 7 + index], 0, generate(100), &mut answers);
        }
        (0..10).for_each(|_| scheduler.turn());
        assert!(scheduler.running.iter().all(Task::is_urgent));
        push(&shared, "modest", &(3..13).collect::<Vec<_>>(), 0, Work::Score(vec![vec![7]]), &mut answers);
        let mut modest = answers.pop().unwrap();
        (0..20).for_each(|_| scheduler.turn());
        assert!(modest.try_recv().is_ok(), "its prompt gets no rows");
    }

    #[test]
    fn pins_of_an_old_policy_give_way_to_a_new_one() {
        let (shared, decoder) = shared(4, 32);
        let mut scheduler = Scheduler::new(&shared, decoder);
        let go = |scheduler: &mut Scheduler<'_>, component, prompt: &[u32], pinned| {
            let mut answers = Vec::new();
            push(&shared, component, prompt, pinned, Work::Score(vec![vec![7]]), &mut answers);
            while !scheduler.running.is_empty() || shared.inbox.depth() > 0 {
                scheduler.turn();
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
            // What another needs drops the least recently used; the new policy's pins hold.
            go(&mut scheduler, "b", &prompt(20 + round, 5), 0);
        }
    }
}
