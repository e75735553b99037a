//! Counters of a model.

use std::sync::atomic::{AtomicU64, Ordering};

use super::usage::TokenUsage;

/// Totals since the model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Jobs that returned outputs.
    pub computed: u64,
    /// Jobs that returned an error of the backend.
    pub failed: u64,
    /// Jobs that were skipped because their caller was gone or their deadline had passed.
    pub skipped: u64,
    /// Jobs that were rejected because the queue was full.
    pub busy: u64,
    /// Successful calls of the backend. The average batch has `computed / batches` jobs.
    pub batches: u64,
    /// Rows of axis 0 in these calls.
    pub rows: u64,
    /// Prompt tokens of computed jobs, for language and text models.
    pub prompt_tokens: u64,
    /// Of these, tokens that were found in the cache.
    pub cached_tokens: u64,
    /// Generated tokens of computed jobs.
    pub generated_tokens: u64,
    /// Tokens of padding that were computed, for text models.
    pub padding_tokens: u64,
}

/// Counters behind [`Stats`]. No reader needs two totals to be consistent, so relaxed order
/// suffices.
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
    padding_tokens: AtomicU64,
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

    pub(crate) fn padding(&self, tokens: usize) {
        self.padding_tokens.fetch_add(tokens as u64, Ordering::Relaxed);
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
            padding_tokens: self.padding_tokens.load(Ordering::Relaxed),
        }
    }
}
