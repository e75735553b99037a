//! Metrics of requests to an upstream.

use std::sync::Arc;
use std::time::Duration;

use super::counted::{
    Counted, upstream_breaker_state, upstream_cost, upstream_first_byte, upstream_requests, upstream_retries,
    upstream_tokens,
};

/// Records the requests to one upstream. Labels are configured names.
#[derive(Clone)]
pub struct UpstreamRecorder {
    upstream: Arc<str>,
    counted: Counted,
}

impl UpstreamRecorder {
    pub(super) fn new(upstream: &str, counted: Counted) -> Self {
        UpstreamRecorder { upstream: upstream.into(), counted }
    }

    /// Counts a request of the API key `key`, which is empty without keys.
    pub fn ended(&self, key: &str, outcome: &'static str) {
        let labels =
            upstream_requests::Labels { upstream: self.upstream.clone(), key: key.to_owned(), outcome };
        self.counted.upstream_requests.get_or_create(&labels).inc();
    }

    /// Counts the tokens of a request and of its answer, and their cost.
    pub fn used(&self, key: &str, [input, output]: [u64; 2], cost: Option<f64>) {
        for (kind, tokens) in [("input", input), ("output", output)] {
            let labels =
                upstream_tokens::Labels { upstream: self.upstream.clone(), key: key.to_owned(), kind };
            self.counted.upstream_tokens.get_or_create(&labels).inc_by(tokens);
        }
        if let Some(cost) = cost {
            let labels = upstream_cost::Labels { upstream: self.upstream.clone(), key: key.to_owned() };
            self.counted.upstream_cost.get_or_create(&labels).inc_by(cost);
        }
    }

    /// Counts a retry.
    pub fn retried(&self) {
        let labels = upstream_retries::Labels { upstream: self.upstream.clone() };
        self.counted.upstream_retries.get_or_create(&labels).inc();
    }

    /// Records the time to the head of a response.
    pub fn first_byte(&self, took: Duration) {
        let labels = upstream_first_byte::Labels { upstream: self.upstream.clone() };
        self.counted.upstream_first_byte.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Sets the state of the circuit breaker: 0 closed, 1 probing, 2 open.
    pub fn breaker(&self, state: i64) {
        let labels = upstream_breaker_state::Labels { upstream: self.upstream.clone() };
        self.counted.upstream_breaker_state.get_or_create(&labels).set(state);
    }
}
