//! Heads and thresholds from labelled texts: the numerics of `infer train` and `infer calibrate`.
//!
//! A head is a logistic regression on an encoder's embedding. It is fitted, calibrated and measured
//! without a random number, and its sums have a fixed order: the same data give the same bytes.
//!
//! # Layout
//!
//! - `limits`: the fixed limits of labelled data
//! - `metrics`, `binomial`: figures of scores, and exact bounds of proportions
//! - `features`, `logistic`, `calibration`: embeddings, the regression on them, and probabilities
//! - `lines`: lines of a file; `dataset`: labelled texts from one
//! - `selection`: those of a category; `folds`: their split for cross-validation
//! - `control`: thresholds whose error rate has a guaranteed bound
//! - `cascade`: the use of a language model behind a classifier
//! - `thresholds`: such thresholds for each category and language of a dataset
//! - `embed`: embeddings from an encoder
//! - `trainer`: a head with everything that is reported about it; `head`: its file; `report`: the
//!   result of a training

mod binomial;
mod calibration;
pub mod cascade;
pub mod control;
mod dataset;
mod embed;
mod features;
mod folds;
#[cfg(test)]
mod golden;
mod head;
mod limits;
mod lines;
mod logistic;
pub mod metrics;
mod report;
mod selection;
mod thresholds;
mod trainer;

pub use calibration::Calibration;
pub use dataset::{Answer, Dataset, Example, Split};
pub use embed::{embed, options};
pub use features::Features;
pub use head::Head;
pub use lines::Lines;
pub use logistic::Regression;
pub use report::{Figures, Mistake, Report};
pub use selection::{Facts, Selection};
pub use thresholds::{Calibrated, Outcome, Part, Sample, Scores};
pub use trainer::{ClassWeights, Trained, Training, train};
