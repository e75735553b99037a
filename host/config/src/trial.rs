//! `next` of a model: a second version that is tried beside it.

use infer_models::source::Source;

use crate::place::Place;

/// A model's next version.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// Its line in the configuration.
    pub at: Place,
    /// Source of its weights.
    pub source: Source,
    /// Kind of the trial.
    pub trial: Trial,
}

/// Kinds of trials.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trial {
    /// Answers a share of the requests.
    Canary {
        /// Share in percent, above 0 and at most 100.
        percent: f64,
    },
    /// Gets copies of the model's inputs; its answers are only compared.
    Shadow {
        /// Largest difference of two values that counts as agreement.
        tolerance: f64,
    },
}
