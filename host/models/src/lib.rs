//! Sources of models: carried by the program, pulled into the cache folder, at a path, or written
//! as dummies with random weights.
//!
//! # Layout
//!
//! - `source`: the source of a model or component
//! - `builtin`: the models and guests that the program carries, and its folders
//! - `weights`: loads and verifies the weights of a source
//! - `pull`: fetches a model's file; `store`: files by their content; `disk`: free space and atomic
//!   writes
//! - `convert`: makes ONNX files from safetensors
//! - `import`: writes the weights of a model in the form of the Hugging Face hub
//! - `limits`: the fixed limits of pulls and imports
//! - `dummy`: writes GGUF files with random weights

pub mod builtin;
pub mod convert;
pub mod disk;
pub mod dummy;
pub mod import;
mod limits;
pub mod preset;
pub mod pull;
pub mod source;
pub mod store;
pub mod weights;
