//! An ONNX model: sessions, callers that compute with a free one themselves where that is short,
//! and a queue with workers for all else.

mod external;
mod model;
mod pace;
mod protobuf;
mod queue;
mod signature;
mod worker;

pub(crate) use model::OnnxModel;
