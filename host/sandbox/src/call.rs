//! What a call is part of, what it uses, and how it ends.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use infer_engine::TokenUsage;

use crate::error::CallError;

/// What a call is part of. Its clones share one account.
#[derive(Clone, Debug)]
pub struct Request {
    /// For the log.
    pub id: Arc<str>,
    /// When the answer is no longer wanted.
    pub deadline: Instant,
    account: Arc<Mutex<Account>>,
}

/// What the calls of a request have used together, whether they were answered or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Calls that had an instance.
    pub calls: usize,
    /// The guests' own time on a processor.
    pub guest: Duration,
    /// Models running for them.
    pub compute: Duration,
    /// The most linear memory of one call, in bytes.
    pub memory_bytes_peak: usize,
    /// The most tensors that one call held at once, in bytes.
    pub tensor_bytes_peak: usize,
}

impl Request {
    /// A request that has used nothing yet.
    #[must_use]
    pub fn new(id: Arc<str>, deadline: Instant) -> Self {
        Request { id, deadline, account: Arc::default() }
    }

    /// The same request, whose answer is no longer wanted after `deadline`.
    #[must_use]
    pub fn until(&self, deadline: Instant) -> Self {
        Request { deadline, ..self.clone() }
    }

    /// What it has used so far.
    #[must_use]
    pub fn account(&self) -> Account {
        *self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn charge(&self, usage: &Usage) {
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.calls += 1;
        account.guest += usage.guest;
        account.compute += usage.compute;
        account.memory_bytes_peak = account.memory_bytes_peak.max(usage.memory_bytes_peak);
        account.tensor_bytes_peak = account.tensor_bytes_peak.max(usage.tensor_bytes_peak);
    }
}

/// What a call used.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Waiting for an instance and in models' queues.
    pub queue: Duration,
    /// Making the instance.
    pub instantiate: Duration,
    /// The guest's own time on a processor, without `instantiate`.
    pub guest: Duration,
    /// Models running for this call.
    pub compute: Duration,
    /// Clearing up the instance.
    pub drop: Duration,
    /// Rows of the largest batch that this call was computed in; 0 when no model ran.
    pub batch: usize,
    /// Tokens of language models.
    pub tokens: TokenUsage,
    /// The most linear memory, in bytes.
    pub memory_bytes_peak: usize,
    /// The most tensors held at once, in bytes.
    pub tensor_bytes_peak: usize,
    /// Some model gave no outputs for a reason that may pass: it was busy, late or failed. An
    /// answer that the guest gave nevertheless is of what was left.
    pub is_partial: bool,
}

/// A call's result, and what it used either way.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The answer.
    pub result: Result<T, CallError>,
    /// What it took.
    pub usage: Usage,
    /// Sentences of the guest for the caller, a few and short ones.
    pub notes: Vec<String>,
}

impl<T> Outcome<T> {
    /// Turn an answer that breaks the interface's rules into an error.
    pub(crate) fn checked(mut self, component: &str, check: impl FnOnce(&T) -> Result<(), String>) -> Self {
        if let Ok(answer) = &self.result
            && let Err(message) = check(answer)
        {
            self.result = Err(CallError::Answer { component: component.to_owned(), message });
        }
        self
    }
}
