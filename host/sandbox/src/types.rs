//! The types of `wit/infer.wit` that calls take and return.

pub use crate::bindings::classifier::exports::infer::guest::classification::Label;
pub use crate::bindings::infer::guest::explanations::{Contribution, Sentence};
pub use crate::bindings::infer::guest::regions::Region;
pub use crate::bindings::infer::guest::spans::Span;
pub use crate::bindings::infer::guest::types::{Fault, ModelFailure};
pub use crate::bindings::moderator::exports::infer::guest::moderation::{
    CategoryScore, Gap, Kinds, Part, Tier, Verdict,
};
pub use crate::bindings::predictor::exports::infer::guest::prediction::NamedTensor;
pub use crate::bindings::wasi::nn::tensor::TensorType;
