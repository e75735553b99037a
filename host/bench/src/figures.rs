//! Figures of a language model: prefill, decode, and the time to a verdict.

use serde::Serialize;

/// Reading a prompt.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Prefill {
    /// Of the prompt, every one computed.
    pub(super) tokens: usize,
    /// The median over the repeats.
    pub(super) tokens_per_second: f64,
    pub(super) tokens_per_second_sd: f64,
    pub(super) repeats: usize,
}

/// Writing an answer, one token a pass.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Decode {
    /// Of the answer.
    pub(super) tokens: usize,
    /// The median over the repeats.
    pub(super) tokens_per_second: f64,
    pub(super) tokens_per_second_sd: f64,
    pub(super) repeats: usize,
}

/// From a post to its verdict, over the way of the sandbox where there is one.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Verdict {
    /// Nothing of the prompt was computed before. Medians, as all of these.
    pub(super) cold_ms: f64,
    pub(super) cold_tokens: f64,
    /// Another post was judged before, so the policy was computed.
    pub(super) warm_ms: f64,
    pub(super) warm_tokens: f64,
    pub(super) repeats: usize,
}
