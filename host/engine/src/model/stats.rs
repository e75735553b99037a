//! What a model's workers have done, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::usage::TokenUsage;

/// Totals since a model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Jobs that were computed and answered with outputs.
    pub computed: u64,
    /// Jobs that were answered with the backend's error.
    pub failed: u64,
    /// Jobs that were not computed, for their caller was gone or their deadline had passed.
    pub skipped: u64,
    /// Jobs that were refused by a full queue.
    pub busy: u64,
    /// Calls of the backend that gave outputs: `computed / batches` jobs were computed together on
    /// average.
    pub batches: u64,
    /// Rows of axis 0 in those calls.
    pub rows: u64,
    /// Tokens of the prompts of computed jobs; of language models, as the next two.
    pub prompt_tokens: u64,
    /// Of these, how many had been computed before.
    pub cached_tokens: u64,
    /// Tokens of their answers.
    pub generated_tokens: u64,
}

/// The same, while being counted. No reader needs two totals to agree, so relaxed order suffices.
#[derive(Default)]
pub(crate) struct Counters {
    computed: AtomicU64,
    failed: AtomicU64,
    skipped: AtomicU64,
    busy: AtomicU64,
    batches: AtomicU64,
    rows: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
}

impl Counters {
    pub(crate) fn batch(&self, jobs: usize, rows: usize) {
        self.computed.fetch_add(jobs as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(crate) fn tokens(&self, usage: TokenUsage) {
        self.prompt_tokens.fetch_add(usage.prompt_tokens as u64, Ordering::Relaxed);
        self.cached_tokens.fetch_add(usage.cached_tokens as u64, Ordering::Relaxed);
        self.generated_tokens.fetch_add(usage.generated_tokens as u64, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn skipped(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn busy(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            computed: self.computed.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            busy: self.busy.load(Ordering::Relaxed),
            batches: self.batches.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            prompt_tokens: self.prompt_tokens.load(Ordering::Relaxed),
            cached_tokens: self.cached_tokens.load(Ordering::Relaxed),
            generated_tokens: self.generated_tokens.load(Ordering::Relaxed),
        }
    }
}
