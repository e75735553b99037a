//! Where models come from: carried by the program, pulled into the cache folder, at a path, or
//! written as dummies with random weights.
//!
//! # Layout
//!
//! - `source`: where a model or component is loaded from
//! - `builtin`: the weights and guests inside the program, and its folders
//! - `weights`: from a source to verified weights
//! - `pull`: fetching a model's file; `store`: files by their content; `disk`: free space and
//!   atomic replacement
//! - `dummy`: GGUF files of random weights

pub mod builtin;
pub mod disk;
pub mod dummy;
pub mod pull;
pub mod source;
pub mod store;
pub mod weights;
