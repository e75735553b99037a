//! ONNX models. A caller computes a short job itself on a free session; other jobs go through a
//! queue to worker threads. `summary` reads facts of a file without a backend.

mod external;
mod job;
mod model;
mod pace;
pub mod protobuf;
mod queue;
mod signature;
mod summary;
mod worker;

pub(crate) use model::{OnnxModel, Row};
pub use summary::{OnnxPort, OnnxSummary, Precision};
