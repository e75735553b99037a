//! Models, and everything between a caller's tensors and their outputs.
//!
//! A [`Model`] is loaded once from its [`Weights`], which are a [`Card`] and the files that it
//! lists, and runs on the backend of the [`Runtime`]. Callers give it named [`Tensor`]s and a
//! deadline. Their jobs wait in a bounded queue, are computed together where the model allows it,
//! and come back as a [`Reply`] that says how long each part took.
//!
//! # Layout
//!
//! - `dtype`, `tensor`: the seven element types, and arrays of them
//! - `files`: files and folders that others may write, opened without following links or waiting
//! - `text`: what others have written, bounded for messages
//! - `card`, `weights`: what a model is, and its files, verified
//! - `footprint`: what a model takes of memory, before it is loaded
//! - `model`: loading and running a model of either kind
//! - `onnx`: the one kind; its `signature` checks tensors, its `queue` forms batches, its `worker`s
//!   compute them on a `backend`, which is `onnxruntime` or `rten` as `runtime` decides
//! - `language`: the other; its `scheduler` forms passes of a `decoder` out of the tokens of all
//!   requests, over key-value blocks that they share

mod backend;
mod card;
mod dtype;
pub mod files;
mod footprint;
#[cfg(fuzzing)]
pub mod fuzzing;
mod language;
mod model;
mod onnx;
mod runtime;
mod tensor;
pub mod text;
mod weights;

pub use backend::RuntimeError;
pub use card::{
    Axis, Card, CardFile, Channels, Download, Expected, Format, Hub, ImageSpec, InputSpec, OutputSpec,
    Pattern, PipPackages, Requirement, Role, SelfTest, Task, TestInput, TextSpec,
};
pub use dtype::{DType, Element, UnknownDType};
pub use footprint::{Footprint, FootprintError, Loading, Need};
pub use infer_kernels::{UnknownInstructionSet, instruction_sets, set_instruction_set};
pub use language::{
    Answer, Finish, LanguageModel, Message, Output, Params, Piece, Prompt, Request, Session, TokenLogprob,
    TokenUsage,
};
pub use model::{
    Capacity, Comparison, Context, Example, GgufSummary, LoadError, MIRROR_BYTES, Mirror, Model,
    ModelOptions, Reply, RunError, SelfTestError, Stats, Weights,
};
pub use runtime::{Onnxruntime, Runtime, RuntimeOptions};
pub use tensor::{Tensor, TensorError};
pub use weights::{CardError, WeightCache};
