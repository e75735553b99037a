//! Inference engine: loads models and computes tensors, with queues, batches and deadlines.
//!
//! A [`Model`] is loaded once from its [`Weights`], a [`Card`] with the files that it lists, and
//! runs on the backend of the [`Runtime`]. Callers pass named [`Tensor`]s and a deadline. Jobs wait
//! in a bounded queue, are computed in batches where the model permits it, and return a [`Reply`]
//! with the time of each part.
//!
//! # Layout
//!
//! Each module imports only modules of earlier lines.
//!
//! - `limits`: the fixed limits of files, models and requests
//! - `dtype`, `tensor`: the seven element types, and arrays of them
//! - `text`: untrusted text, bounded and escaped for messages
//! - `files`: files and folders that others may write, opened without following links or blocking
//! - `weights`: files of a model on disk: hashed, verified, mapped and cached
//! - `card`: the description of a model, read from `card.toml`
//! - `model::options`, `model::stats` and other leaves of `model`: types that both kinds of model
//!   use
//! - `backend`, `runtime`: ONNX Runtime and rten, and the choice between them
//! - `onnx`: ONNX models; `signature` checks tensors, `queue` forms batches, and a `worker`
//!   computes them on a session of the backend
//! - `encoder`: text models; a tokenizer in front of an ONNX model, and scores, embeddings or spans
//!   behind it
//! - `language`: language models; `scheduler` forms passes of a `decoder` from the tokens of all
//!   requests, over shared key-value blocks
//! - `guard`: language models that judge texts by the questions of their card
//! - `offload`: work that would hold a thread of the runtime for long
//! - `footprint`: memory of a model, predicted before it is loaded
//! - `model`: verified weights, and loading and running a model of any kind

mod backend;
mod card;
mod dtype;
mod encoder;
pub mod files;
mod footprint;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod language;
pub mod limits;
mod model;
mod offload;
mod onnx;
mod runtime;
mod tensor;
pub mod text;
mod weights;

pub use backend::RuntimeError;
pub use card::{
    Activation, Axis, Calibration, Card, CardFile, Category, Channels, Combine, Conversion, Download, Emoji,
    Evasion, Expected, Format, Head, HeadFile, Hub, ImageSpec, InputSpec, OutputSpec, Pattern, PipPackages,
    Pooling, Question, Requirement, Role, Rule, SelfTest, Task, TestInput, TextSpec,
};
pub use dtype::{DType, Element, UnknownDType};
pub use footprint::{Footprint, FootprintError, Loading, Need};
pub use infer_kernels::{KvType, UnknownInstructionSet, instruction_sets, set_instruction_set};
pub use language::{
    Answer, AnswerFormat, Finish, LanguageModel, Message, Output, Params, Piece, Prompt, Request, Session,
    Supported, TemplateArguments, TokenLogprob, TokenUsage, byte_characters,
};
pub use limits::{MAX_HEAD_BYTES, MAX_SHADOW_BYTES};
pub use model::{
    Capacity, Comparison, Context, Example, GgufSummary, LoadError, Model, ModelOptions, Reply, RunError,
    SelfTestError, Shadow, Stats, Weights,
};
pub use onnx::{OnnxPort, OnnxSummary, Precision, protobuf};
pub use runtime::{Onnxruntime, Runtime, RuntimeOptions};
pub use tensor::{Tensor, TensorError};
pub use weights::{CardError, WeightCache};
