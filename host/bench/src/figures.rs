//! Metrics of a language model: prefill, decode, and time to verdict.

use serde::Serialize;

use crate::stats;

/// Speed of reading a prompt (prefill), or of generating an answer one token per pass (decode).
#[derive(Clone, Debug, Serialize)]
pub(super) struct TokenRate {
    /// Tokens in the prompt or answer, all of them computed.
    pub(super) tokens: usize,
    /// Median over the repeats.
    pub(super) tokens_per_second: f64,
    pub(super) tokens_per_second_sd: f64,
    pub(super) repeats: usize,
}

impl TokenRate {
    /// The median and deviation of `rates`, in tokens per second, one for each repeat.
    pub(super) fn new(tokens: usize, rates: &[f64]) -> TokenRate {
        TokenRate {
            tokens,
            tokens_per_second: stats::median(rates.to_vec()),
            tokens_per_second_sd: stats::deviation(rates),
            repeats: rates.len(),
        }
    }
}

/// Time from a post to its verdict, through the sandbox if there is one.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    /// Median with an empty prefix cache.
    pub(super) cold_ms: f64,
    pub(super) cold_tokens: f64,
    /// Median after another post was judged, so that the policy is cached.
    pub(super) warm_ms: f64,
    pub(super) warm_tokens: f64,
    pub(super) repeats: usize,
}
