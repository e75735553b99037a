//! Models of all kinds: verified weights, loading, running, and comparison of versions.

mod bare;
mod comparison;
mod error;
mod loaded;
mod options;
mod reply;
mod self_test;
mod shadow;
mod stats;
mod unloadable;
mod usage;
mod weights;

pub use bare::GgufSummary;
pub(crate) use bare::map_parts;
pub use comparison::{Comparison, Example};
pub(crate) use error::panic_message;
pub use error::{LoadError, RunError};
pub use loaded::{Context, Model, Shadow};
pub use options::{Capacity, ModelOptions};
pub use reply::Reply;
pub use self_test::SelfTestError;
pub(crate) use stats::Counters;
pub use stats::Stats;
pub use usage::TokenUsage;
pub use weights::Weights;
