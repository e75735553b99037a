//! Language models: GGUF files, run by this crate's own decoder for many sessions at once.
//!
//! # Layout
//!
//! - `model`, `session`: a loaded model, and the conversation of one caller
//! - `supported`: the kinds of files that can be loaded
//! - `gguf`, `tokenizer`, `template`: the contents of a file, validated; `jinja`: the template
//!   language
//! - `architecture`, `config`, `decoder`, `forward`: the families, the graph, and one forward pass
//! - `footprint`: the predicted memory use
//! - `packed`: the file that caches packed weights for later starts
//! - `kv`, `prefix`: keys and values in shared blocks, and the prefix cache
//! - `request`, `tensors`: requests and answers, and their encoding as `wasi:nn` tensors
//! - `preparation`: from a request to tokens
//! - `inbox`, `job`, `clock`: the bounded queue of requests, and its time
//! - `choices`: answers to score; `format`: constraints on answers to generate
//! - `scheduler`, `task`, `generation`, `sampler`: continuous batching, from tokens to answers

mod architecture;
mod choices;
mod clock;
mod config;
mod decoder;
pub(crate) mod footprint;
mod format;
mod forward;
mod generation;
pub(crate) mod gguf;
#[cfg(any(test, fuzzing))]
pub(crate) mod hostile;
mod inbox;
mod jinja;
mod job;
mod kv;
mod model;
mod packed;
mod prefix;
mod preparation;
mod request;
mod sampler;
mod saved;
mod scheduler;
mod session;
mod supported;
mod task;
mod template;
mod tensors;
#[cfg(test)]
mod tests;
mod tokenizer;

pub(crate) use gguf::DUMMY;
pub use model::LanguageModel;
pub(crate) use preparation::THINKING;
pub use request::{
    Answer, AnswerFormat, Finish, Message, Output, Params, Piece, Prompt, Request, TemplateArguments,
    TokenLogprob, TokenUsage,
};
pub use session::Session;
pub use supported::Supported;
pub use tokenizer::byte_characters;
