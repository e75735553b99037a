//! The thread that owns a model: it admits requests, forms passes, and answers (continuous
//! batching).
//!
//! A pass has one row for each answer in generation, and fills up with rows of prompts. While a
//! prompt waits, at least an eighth of the rows is reserved for prompts, so that a long prompt does
//! not delay answers, and answers do not starve prompts. The order follows from the rows that each
//! component has had. Between passes, the thread checks deadlines and removes requests of callers
//! that have left.

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use infer_kernels::BLOCK_TOKENS;

use super::clock;
use super::decoder::Decoder;
use super::format::Formats;
use super::forward::Forward;
use super::inbox::{Inbox, Waiting};
use super::job::Job;
use super::kv::KvPool;
use super::prefix::Prefixes;
use super::saved::SavedPrefixes;
use super::task::Task;
use super::tokenizer::Tokenizer;
use crate::model::{Counters, RunError, panic_message};

/// Number of rows whose logits are computed at once. A row of a large vocabulary takes 600 KB.
pub(super) const LOGIT_ROWS: usize = 16;

/// Reserves 1/8 of the rows of a pass for prompts while answers are generated, and 1/8 of the
/// blocks for components that have nothing in flight.
const RESERVED_FRACTION: usize = 8;

/// State that callers share with the thread.
pub(super) struct Shared {
    /// Name of the model in errors.
    pub(super) name: String,
    pub(super) inbox: Inbox,
    pub(super) counters: Counters,
    pub(super) tokenizer: Tokenizer,
    pub(super) formats: Formats,
    pub(super) pool: KvPool,
    /// Maximum number of concurrent requests.
    pub(super) sessions: usize,
    /// Maximum rows of a pass.
    pub(super) max_batch: usize,
}

pub(super) struct Scheduler<'t, D = Decoder> {
    shared: &'t Shared,
    decoder: D,
    prefixes: Prefixes,
    saved: Option<SavedPrefixes>,
    running: Vec<Task<'t>>,
    /// Rows computed for each active component. A component that becomes active starts with the
    /// minimum of the others.
    served: HashMap<Arc<str>, u64>,
}

impl<'t, D: Forward> Scheduler<'t, D> {
    pub(super) fn new(shared: &'t Shared, decoder: D) -> Self {
        let (prefixes, saved, running, served) = Default::default();
        Scheduler { shared, decoder, prefixes, saved, running, served }
    }

    /// Reads the prefixes that earlier starts have stored, if there is a place for them, and stores
    /// further ones.
    pub(super) fn with_saved(mut self, saved: Option<SavedPrefixes>) -> Self {
        self.saved = saved;
        if let Some(saved) = &mut self.saved {
            saved.restore(&self.shared.pool, self.decoder.vocabulary(), &mut self.prefixes);
        }
        self
    }

    /// Runs passes until the inbox is closed.
    pub(super) fn serve(mut self) {
        while !self.shared.inbox.is_closed() {
            if self.running.is_empty() && !self.shared.inbox.wait() {
                return;
            }
            self.step();
        }
    }

    /// Admits requests and runs one pass.
    fn step(&mut self) {
        self.remove_dead();
        self.admit();
        if !self.running.is_empty() {
            self.pass();
        }
    }

    fn remove_dead(&mut self) {
        let now = clock::now();
        for task in self.running.extract_if(.., |task| task.job.is_dead(now)) {
            self.shared.skip(task.job);
        }
    }

    /// Starts waiting requests, as far as sessions and blocks permit.
    fn admit(&mut self) {
        let shared = self.shared;
        // Components with nothing in flight do not wait for the answers of others: for them, up to
        // twice as many requests may run.
        while self.running.len() < 2 * shared.sessions {
            let waiting = shared.inbox.waiting(|dead| shared.skip(dead));
            let Some(next) = self.choose(&waiting) else { return };
            // The chosen job was displaced in the meantime; try another one.
            let Some(job) = shared.inbox.take(next) else { continue };
            let min_served = self.served.values().copied().min().unwrap_or(0);
            let served = self.served.entry(job.owner.component.clone()).or_insert(min_served);
            *served = (*served).max(min_served);
            // The last token is computed even if it is cached, because its logits are needed.
            let max = job.prompt.len() - 1;
            let prefix = self.prefixes.find(&job.owner, &job.prompt, max);
            self.running.push(Task::new(job, prefix, &self.shared.tokenizer));
        }
    }

    /// The request to start next, if one can start.
    fn choose<'w>(&mut self, waiting: &'w [Waiting]) -> Option<&'w Waiting> {
        let running = self.running.iter().map(|task| &task.job.owner);
        let present = running.chain(waiting.iter().map(|job| &job.owner));
        let present: HashSet<_> = present.map(|owner| owner.component.clone()).collect();
        self.served.retain(|component, _| present.contains(component));
        let served = |job: &Waiting| self.served.get(&job.owner.component).copied().unwrap_or(0);
        let next = waiting
            .iter()
            .filter(|job| self.running.len() < self.shared.sessions || !self.has_running(job))
            .filter(|job| !self.is_being_computed(job))
            .min_by_key(|job| served(job))?;
        self.fits(next).then_some(next)
    }

    fn has_running(&self, job: &Waiting) -> bool {
        self.running.iter().any(|task| task.job.owner.component == job.owner.component)
    }

    /// True if a running request computes a longer prefix of this one than is cached now. Waiting
    /// for it saves work.
    fn is_being_computed(&self, job: &Waiting) -> bool {
        let cached = self.prefixes.cached(&job.owner, &job.prompt);
        self.running.iter().any(|task| {
            let common = match task.job.owner.session == job.owner.session {
                true => task.common(&job.prompt),
                false => task.common(&job.prompt).min(task.job.declared),
            };
            let common = common / BLOCK_TOKENS * BLOCK_TOKENS;
            task.job.owner.component == job.owner.component && common > cached && task.sequence.len() < common
        })
    }

    /// True if the request's blocks fit next to the reservations of the running ones. 1/8 of the
    /// blocks is reserved for components that have nothing in flight.
    fn fits(&self, job: &Waiting) -> bool {
        if self.running.is_empty() {
            return true;
        }
        let used = self.shared.pool.used() - self.prefixes.evictable();
        let reserved: usize = self.running.iter().map(|task| task.reserved).sum();
        let needed = job.blocks.saturating_sub(self.prefixes.unevictable(&job.owner, &job.prompt));
        let capacity = self.shared.pool.capacity();
        let reserve = if self.has_running(job) { capacity / RESERVED_FRACTION } else { 0 };
        used + reserved + needed + reserve <= capacity
    }

    fn pass(&mut self) {
        let began = Instant::now();
        let rows = self.prepare();
        if rows == 0 {
            self.fail_youngest();
            return;
        }
        // Unwind safety: a panic leaves partly computed buffers, which the next pass overwrites,
        // and the sequences of these tasks, which are dropped.
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
            let len = task.reusable();
            let len = if task.is_done() { len } else { len / BLOCK_TOKENS * BLOCK_TOKENS };
            let max_pinned = if task.job.pin { self.shared.pool.capacity() / 2 } else { 0 };
            self.prefixes.insert(&task.job.owner, &task.sequence, len, task.job.declared, max_pinned);
        }
        for task in self.running.extract_if(.., |task| task.is_done()) {
            if let Some(saved) = self.saved.as_mut().filter(|_| task.job.pin) {
                saved.offer(&task.job.owner, &task.sequence, task.job.declared);
            }
            if let Some(message) = task.failure().map(str::to_owned) {
                self.shared.reject(task.job, &message);
                continue;
            }
            let (job, answer) = task.finish();
            self.shared.counters.tokens(answer.usage);
            // The caller may have left in the meantime.
            let _ = job.reply.send(Ok(answer));
            finished += 1;
        }
        self.shared.counters.batch(finished, rows);
    }

    /// Assigns rows of the next pass to each task. Returns their total.
    fn prepare(&mut self) -> usize {
        let served = |task: &Task<'_>| self.served.get(&task.job.owner.component).copied().unwrap_or(0);
        let mut order: Vec<usize> = (0..self.running.len()).collect();
        order.sort_by_key(|&index| (!self.running[index].is_urgent(), served(&self.running[index])));
        let prompts = self.running.iter().any(|task| !task.is_urgent() && task.pending() > 0);
        let prompt_rows = if prompts { self.shared.max_batch.div_ceil(RESERVED_FRACTION) } else { 0 };
        let mut left = self.shared.max_batch - prompt_rows;
        let mut reserved = prompt_rows;
        let mut rows = 0;
        for index in order {
            let task = &mut self.running[index];
            task.share = 0;
            if !task.is_urgent() {
                left += std::mem::take(&mut reserved);
            }
            let pending_rows = task.pending().min(left);
            if pending_rows == 0 {
                continue;
            }
            while task.prepare(left, &self.shared.pool).is_err() && self.prefixes.evict() {}
            rows += task.share;
            left = left.saturating_sub(task.share);
            *self.served.entry(task.job.owner.component.clone()).or_default() += task.share as u64;
        }
        rows
    }

    fn compute(&mut self) {
        let mut runs: Vec<_> = self.running.iter_mut().flat_map(Task::runs).collect();
        self.decoder.forward(&mut runs);
        drop(runs);
        let tasks = self.running.iter().enumerate();
        let logit_rows: Vec<(usize, usize)> =
            tasks.flat_map(|(index, task)| (0..task.logit_rows()).map(move |row| (index, row))).collect();
        let (vocabulary, context) = (self.decoder.vocabulary(), self.decoder.context());
        for (part, rows) in logit_rows.chunks(LOGIT_ROWS).enumerate() {
            let logits = self.decoder.logits(part * LOGIT_ROWS, rows.len());
            for (logits, &(task, row)) in logits.chunks_exact_mut(vocabulary).zip(rows) {
                self.running[task].take(row, logits, context, &self.shared.tokenizer);
            }
        }
    }

    /// Called if no task can continue because pins hold the blocks. Removes a pin, or else fails
    /// the youngest task.
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
    /// Answers a dead job with a deadline error.
    pub(super) fn skip(&self, job: Job) {
        self.counters.skipped();
        // The caller may be about to notice the deadline itself, or may have left.
        let _ = job.reply.send(Err(RunError::Deadline { model: self.name.clone() }));
    }

    /// Answers that the format of the request cannot be enforced.
    fn reject(&self, job: Job, message: &str) {
        let message = format!("the format of the answer: {message}");
        let _ = job.reply.send(Err(RunError::InvalidInput { model: self.name.clone(), message }));
    }

    fn fail(&self, job: Job, message: &str) {
        self.counters.failed();
        let _ =
            job.reply.send(Err(RunError::Failed { model: self.name.clone(), message: message.to_owned() }));
    }
}
