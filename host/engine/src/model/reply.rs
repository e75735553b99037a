//! Reply of a model.

use std::time::Duration;

use super::usage::TokenUsage;
use crate::tensor::Tensor;

/// Reply of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// All outputs of the card, in the order of the model's file.
    pub outputs: Vec<(String, Tensor)>,
    /// Time from the call until its computation started.
    pub queue: Duration,
    /// Time of the computation, for the whole batch.
    pub compute: Duration,
    /// Number of rows of axis 0 in the batch, including other jobs.
    pub batch: usize,
    /// Token counts, for a language model.
    pub usage: Option<TokenUsage>,
}
