//! The reply of a model.

use std::time::Duration;

use super::usage::TokenUsage;
use crate::tensor::Tensor;

/// What a model answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Every output of the card, in the order of the model's file.
    pub outputs: Vec<(String, Tensor)>,
    /// From `run` until the computation that gave this reply began.
    pub queue: Duration,
    /// How long that computation took, for the whole batch.
    pub compute: Duration,
    /// Rows of axis 0 that were computed together, those of other jobs included.
    pub batch: usize,
    /// Tokens, where the model is a language model.
    pub usage: Option<TokenUsage>,
}
