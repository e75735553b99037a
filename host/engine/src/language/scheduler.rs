//! The thread that owns a model: it admits requests, forms passes out of all of them, and answers.
//!
//! A pass has a row for each answer under way, and then as many rows of prompts as fit, at least an
//! eighth of all while a prompt waits, so that no answer waits for a long prompt and no prompt for
//! all answers. Whose turn it is follows from what each component has had. Between passes the
//! thread looks at deadlines and at callers that have gone.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use infer_kernels::BLOCK_TOKENS;

use super::decoder::Decoder;
use super::inbox::{Inbox, Waiting};
use super::job::Job;
use super::kv::KvPool;
use super::prefix::Prefixes;
use super::task::Task;
use super::tokenizer::Tokenizer;
use crate::model::{Counters, RunError, panic_message};

/// How many rows' logits are computed at once: a row of a large vocabulary is 600 KB.
pub(super) const LOGIT_ROWS: usize = 16;

/// One of so many rows is left to prompts while answers are under way, and one of so many blocks to
/// components that have nothing under way.
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
    /// Rows that each component with something to compute has had, or as many as the least of the
    /// others had when it came.
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
        // A component that has nothing under way need not wait until another's answers are there:
        // so many may begin besides.
        while self.running.len() < 2 * shared.sessions {
            let waiting = shared.inbox.waiting(|dead| shared.skip(dead));
            let Some(next) = self.choose(&waiting) else { return };
            // One that was displaced meanwhile is gone, and another may begin.
            let Some(job) = shared.inbox.take(next) else { continue };
            let least = self.served.values().copied().min().unwrap_or(0);
            let served = self.served.entry(job.owner.component.clone()).or_insert(least);
            *served = (*served).max(least);
            // The last token is computed again even where it is known: what follows it is asked.
            let most = job.prompt.len() - 1;
            let prefix = self.prefixes.find(&job.owner, &job.prompt, most);
            self.running.push(Task::new(job, prefix, &self.shared.tokenizer));
        }
    }

    /// The request that is to begin next, if one can.
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

    /// Whether a running request computes a longer beginning of this one than is there now: it is
    /// worth waiting for.
    fn is_being_computed(&self, job: &Waiting) -> bool {
        let known = self.prefixes.known(&job.owner, &job.prompt);
        self.running.iter().any(|task| {
            let common = match task.job.owner.session == job.owner.session {
                true => task.common(&job.prompt),
                false => task.common(&job.prompt).min(task.job.declared),
            };
            let common = common / BLOCK_TOKENS * BLOCK_TOKENS;
            task.job.owner.component == job.owner.component && common > known && task.sequence.len() < common
        })
    }

    /// Whether the blocks that the request may need are there beside those that the running ones
    /// may yet take. An eighth is left to components that have nothing under way.
    fn fits(&self, job: &Waiting) -> bool {
        if self.running.is_empty() {
            return true;
        }
        let held = self.shared.pool.used() - self.prefixes.evictable();
        let reserved: usize = self.running.iter().map(|task| task.reserved).sum();
        let needed = job.blocks.saturating_sub(self.prefixes.held(&job.owner, &job.prompt));
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
        // Unwind safety: what a panic leaves half-computed are buffers, which the next pass fills
        // anew, and the sequences of these tasks, which are dropped.
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
            self.prefixes.insert(&task.job.owner, &task.sequence, len, task.job.declared, most_pinned);
        }
        for task in self.running.extract_if(.., |task| task.is_done()) {
            let (job, answer) = task.finish();
            self.shared.counters.tokens(answer.usage);
            // A caller that has left meanwhile does not want it.
            let _ = job.reply.send(Ok(answer));
            finished += 1;
        }
        self.shared.counters.batch(finished, rows);
    }

    /// Give each request its rows of the next pass; how many they are together.
    fn prepare(&mut self) -> usize {
        let served = |task: &Task<'_>| self.served.get(&task.job.owner.component).copied().unwrap_or(0);
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
            *self.served.entry(task.job.owner.component.clone()).or_default() += task.share as u64;
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
        // Its caller may be just short of noticing the deadline; a caller that is gone does not
        // mind.
        let _ = job.reply.send(Err(RunError::Deadline { model: self.name.clone() }));
    }

    fn fail(&self, job: Job, message: &str) {
        self.counters.failed();
        let _ =
            job.reply.send(Err(RunError::Failed { model: self.name.clone(), message: message.to_owned() }));
    }
}
