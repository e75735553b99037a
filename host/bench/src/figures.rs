//! Metrics of a language model: prefill, decode, and time to verdict.

use serde::Serialize;

/// Reading a prompt (prefill).
#[derive(Clone, Debug, Serialize)]
pub(super) struct Prefill {
    /// Tokens in the prompt, all of them computed.
    pub(super) tokens: usize,
    /// Median over the repeats.
    pub(super) tokens_per_second: f64,
    pub(super) tokens_per_second_sd: f64,
    pub(super) repeats: usize,
}

/// Generating an answer (decode), one token per pass.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Decode {
    /// Tokens in the answer.
    pub(super) tokens: usize,
    /// Median over the repeats.
    pub(super) tokens_per_second: f64,
    pub(super) tokens_per_second_sd: f64,
    pub(super) repeats: usize,
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
