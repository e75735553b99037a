//! ONNX models. A caller computes a short job itself on a free session; other jobs go through a
//! queue to worker threads.

mod external;
mod model;
mod pace;
mod protobuf;
mod queue;
mod signature;
mod worker;

pub(crate) use model::OnnxModel;
