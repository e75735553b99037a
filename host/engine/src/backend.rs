//! Backends that compute ONNX files: ONNX Runtime and rten, behind two traits (`session`).

mod error;
mod library;
mod onnxruntime;
mod rten;
mod session;
mod watchdog;

pub use error::RuntimeError;
pub(crate) use library::candidates;
pub(crate) use onnxruntime::OnnxRuntime;
pub(crate) use rten::Rten;
pub(crate) use session::{Backend, BackendError, Port, Session, int8_saturates};
