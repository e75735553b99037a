//! Language models: GGUF files, run by a decoder of our own for many sessions at once.
//!
//! # Layout
//!
//! - `gguf`, `tokenizer`, `template`: what a file holds, checked; `jinja`: the language of
//!   templates
//! - `config`, `decoder`: the graph, and one pass through it
//! - `footprint`: what all of it takes of memory
//! - `packed`: the file that keeps packed weights for later starts
//! - `kv`, `prefix`: keys and values in shared blocks, and finding them again
//! - `request`, `tensors`: what is asked, and how `wasi:nn` carries it
//! - `preparation`: from a request to tokens
//! - `inbox`, `scheduler`, `task`, `sampler`: from tokens to the answer, together with all others

mod config;
mod decoder;
pub(crate) mod footprint;
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
mod scheduler;
mod session;
mod task;
mod template;
mod tensors;
#[cfg(test)]
mod tests;
mod tokenizer;

pub(crate) use gguf::DUMMY;
pub use model::LanguageModel;
pub use request::{
    Answer, Finish, Message, Output, Params, Piece, Prompt, Request, TokenLogprob, TokenUsage,
};
pub use session::Session;
