//! Usage, cost and outcome of a forwarded request, for the metrics and the log.

use std::sync::Arc;

use tracing::info;

use super::piece::Piece;
use crate::error::ApiError;
use crate::routes::context::Caller;
use crate::upstream::{Cause, Upstream};

/// The account of one request, which is recorded when it is dropped.
pub(super) struct Account {
    pub(super) upstream: Arc<Upstream>,
    /// Outcome, as the metrics name it. A request that is dropped earlier was cancelled.
    outcome: &'static str,
    model: String,
    /// Name of the API key; empty without one.
    key: String,
    /// Tokens of the request and of the answer.
    usage: Option<[u64; 2]>,
}

impl Account {
    pub(super) fn new(upstream: Arc<Upstream>, caller: &Caller, model: String) -> Self {
        let key = caller.0.as_ref().map(|key| key.name.clone()).unwrap_or_default();
        Account { upstream, outcome: "cancelled", model, key, usage: None }
    }

    /// Takes the usage that the upstream reports. Of several reports in a stream the last one
    /// counts.
    pub(super) fn count(&mut self, piece: &Piece) {
        self.usage = piece.usage.or(self.usage);
    }

    /// Sets the outcome.
    pub(super) fn end(&mut self, outcome: &'static str) {
        self.outcome = outcome;
    }

    /// Records the cause of a failure, and returns its error.
    pub(super) fn failed(&mut self, cause: &Cause) -> ApiError {
        self.outcome = cause.outcome();
        cause.error(&self.upstream.name)
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let Account { upstream, outcome, model, key, usage } = self;
        upstream.counts.ended(key, outcome);
        if let Some(usage) = *usage {
            upstream.counts.used(key, usage, cost(usage, upstream.config.prices));
        }
        let [input_tokens, output_tokens] = usage.unwrap_or_default();
        info!(upstream = &*upstream.name, model, outcome, input_tokens, output_tokens, "forwarded");
    }
}

/// Cost of tokens at `prices` per million; `None` without prices.
fn cost(tokens: [u64; 2], prices: [Option<f64>; 2]) -> Option<f64> {
    let costs = tokens.iter().zip(prices).filter_map(|(tokens, price)| Some(*tokens as f64 * price? / 1e6));
    prices.iter().any(Option::is_some).then(|| costs.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_follows_prices_per_million() {
        let million = [1_000_000, 2_000_000];
        for (prices, expected) in [
            ([None, None], None),
            ([Some(0.5), None], Some(0.5)),
            ([None, Some(0.25)], Some(0.5)),
            ([Some(0.5), Some(0.25)], Some(1.0)),
        ] {
            assert_eq!(cost(million, prices), expected);
        }
    }
}
