//! The request that a call belongs to, and its usage and outcome.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use infer_engine::TokenUsage;

use crate::bindings::infer::guest::explanations::{Contribution, Sentence};
use crate::bindings::infer::guest::regions::Region;
use crate::bindings::infer::guest::spans::Span;
use crate::error::CallError;

/// A client's request, which may make several calls. Clones share one total.
#[derive(Clone, Debug)]
pub struct Request {
    /// Identifier in the log.
    pub id: Arc<str>,
    /// Time after which the answer is useless.
    pub deadline: Instant,
    /// Settings of this request beside the component's, in the order of their keys, which start
    /// with `request.`.
    pub settings: Vec<(String, String)>,
    usage_total: Arc<Mutex<RequestUsage>>,
}

/// Usage of all calls of a request, answered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestUsage {
    /// Number of calls that had an instance.
    pub calls: usize,
    /// Guests' own processor time.
    pub guest: Duration,
    /// Time of models that ran for the calls.
    pub compute: Duration,
    /// Peak of linear memory in one call, in bytes.
    pub memory_bytes_peak: usize,
    /// Peak of tensors held in one call, in bytes.
    pub tensor_bytes_peak: usize,
}

impl Request {
    /// A request without any usage yet.
    #[must_use]
    pub fn new(id: Arc<str>, deadline: Instant) -> Self {
        Request { id, deadline, settings: Vec::new(), usage_total: Arc::default() }
    }

    /// The same request with another deadline.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Request { deadline, ..self.clone() }
    }

    /// The same request with settings of its own.
    #[must_use]
    pub fn with_settings(&self, settings: Vec<(String, String)>) -> Self {
        Request { settings, ..self.clone() }
    }

    /// Usage so far.
    #[must_use]
    pub fn usage(&self) -> RequestUsage {
        *self.usage_total.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn charge(&self, usage: &Usage) {
        let mut usage_total = self.usage_total.lock().unwrap_or_else(PoisonError::into_inner);
        usage_total.calls += 1;
        usage_total.guest += usage.guest;
        usage_total.compute += usage.compute;
        usage_total.memory_bytes_peak = usage_total.memory_bytes_peak.max(usage.memory_bytes_peak);
        usage_total.tensor_bytes_peak = usage_total.tensor_bytes_peak.max(usage.tensor_bytes_peak);
    }
}

/// Usage of one call.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Time spent waiting for an instance and in models' queues.
    pub queue: Duration,
    /// Time to create the instance.
    pub instantiate: Duration,
    /// The guest's own processor time, without `instantiate`.
    pub guest: Duration,
    /// Time of models that ran for this call.
    pub compute: Duration,
    /// Time to drop the instance.
    pub drop: Duration,
    /// Rows of the largest batch that included this call; 0 when no model ran.
    pub batch: usize,
    /// Tokens of language models.
    pub tokens: TokenUsage,
    /// Peak of linear memory, in bytes.
    pub memory_bytes_peak: usize,
    /// Peak of tensors held, in bytes.
    pub tensor_bytes_peak: usize,
    /// True if some model returned no outputs for a temporary reason: it was busy, late or failed.
    /// An answer returned nevertheless rests on the other models.
    pub is_partial: bool,
}

/// Result and usage of a call.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The answer.
    pub result: Result<T, CallError>,
    /// Usage, whether the call succeeded or not.
    pub usage: Usage,
    /// Remarks of the guest beside its answer.
    pub annotations: Annotations,
}

/// Remarks of a guest beside its answer, for the caller and the metrics.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    /// Short sentences.
    pub notes: Vec<String>,
    /// Labelled spans of the texts.
    pub spans: Vec<Span>,
    /// Texts that were read in images.
    pub regions: Vec<Region>,
    /// Words and the scores without them.
    pub contributions: Vec<Contribution>,
    /// Scores of sentences alone.
    pub sentences: Vec<Sentence>,
    /// Names of events that the metrics count.
    pub events: BTreeSet<String>,
}

impl<T> Outcome<T> {
    /// Turns an answer that fails `check` into an error.
    pub(crate) fn checked(mut self, component: &str, check: impl FnOnce(&T) -> Result<(), String>) -> Self {
        if let Ok(answer) = &self.result
            && let Err(message) = check(answer)
        {
            self.result = Err(CallError::Answer { component: component.to_owned(), message });
        }
        self
    }
}
