//! Converts sentence encoders of BERT and MPNet from safetensors to ONNX with int8 weights.
//!
//! The same file and settings always yield the same bytes, so a card can state their hash. Weights
//! have one scale per output channel. Activations are quantised when the model runs, with one scale
//! per token: a scale per text, as `DynamicQuantizeLinear` computes it, loses the small values
//! beside the few large ones of MPNet, and makes a text depend on the others of its batch.
//!
//! The file is not trusted. It is read tensor by tensor: memory holds the result and one tensor.
//!
//! # Layout
//!
//! - `safetensors`: the tensors of the file; `quantise`: int8 values and their scales
//! - `message`: writes Protocol Buffers; `graph`: nodes and constants of an ONNX file
//! - `shape`: architecture and sizes, from the names and shapes of the tensors
//! - `encoder`: the graph of an encoder

mod encoder;
mod graph;
mod message;
mod quantise;
mod safetensors;
mod shape;
#[cfg(test)]
mod tests;

pub use encoder::{Answer, Settings, convert};
pub use graph::Onnx;
