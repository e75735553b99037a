//! Metrics of a language model: prefill, decode, and time to verdict.

use serde::Serialize;

use crate::stats;

/// Speed of reading a prompt (prefill), or of generating answers one token per pass (decode).
#[derive(Clone, Debug, Serialize)]
pub(super) struct TokenRate {
    /// Sessions that compute at once; the rate is of all of them.
    pub(super) sessions: u32,
    /// Tokens in each prompt or answer, all of them computed.
    pub(super) tokens: usize,
    /// Median over the repeats.
    pub(super) tokens_per_second: f64,
    pub(super) tokens_per_second_sd: f64,
    pub(super) repeats: usize,
}

impl TokenRate {
    /// The median and deviation of `rates`, in tokens per second, one for each repeat.
    pub(super) fn new(sessions: u32, tokens: usize, rates: &[f64]) -> TokenRate {
        TokenRate {
            sessions,
            tokens,
            tokens_per_second: stats::median(rates.to_vec()),
            tokens_per_second_sd: stats::deviation(rates),
            repeats: rates.len(),
        }
    }

    /// The rate in a line, under `name`.
    pub(super) fn line(&self, name: &str) -> String {
        let TokenRate { sessions, tokens, tokens_per_second, tokens_per_second_sd, repeats } = self;
        let sessions = if *sessions > 1 { format!(", {sessions} sessions") } else { String::new() };
        format!(
            "{name} {tokens:>4} tokens{sessions}: {tokens_per_second:.2} ± {tokens_per_second_sd:.2} tokens/s, median of \
             {repeats}"
        )
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
