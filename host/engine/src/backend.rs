//! The seam between a model's queue and what computes it: two traits, and an implementation of both
//! in each file.

mod error;
mod library;
mod onnxruntime;
mod rten;
mod session;

pub use error::RuntimeError;
pub(crate) use library::candidates;
pub(crate) use onnxruntime::OnnxRuntime;
pub(crate) use rten::Rten;
pub(crate) use session::{Backend, BackendError, Port, Session};
