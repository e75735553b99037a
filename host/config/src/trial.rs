//! `next` of a model: a second version that is tried beside it.

use infer_models::source::Source;

use crate::place::Place;

/// A model's next version.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// Where it is configured.
    pub at: Place,
    /// Its weights.
    pub source: Source,
    /// How it is tried.
    pub trial: Trial,
}

/// How a next version is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Trial {
    /// It answers so many requests of a hundred.
    Canary {
        /// More than 0, at most 100.
        percent: f64,
    },
    /// It is asked what the model is asked, and its answers are only compared.
    Shadow {
        /// By how much two values may differ without being counted.
        tolerance: f64,
    },
}
