//! The guest SDK: what a component that judges, classifies or predicts for the infer server starts
//! from.
//!
//! A guest implements one trait ([`Moderator`], [`Classifier`], [`Predictor`] or [`http::Handler`])
//! and names itself in the macro that exports it; `guest-models/README.md` shows one in a page. The
//! parts that need the host (settings, models, the log) are bindings of `wit/infer.wit`; the rest
//! is plain Rust that runs natively as well, so it is tested without a sandbox.
//!
//! # Layout
//!
//! - [`settings`]: the operator's settings, typed; [`card`]: what a model takes and gives, from the
//!   same store
//! - [`nn`]: running models; [`language`]: asking language models; [`log`]: lines in the host's log
//! - [`image`]: from the bytes of an untrusted image file to the numbers that a model takes
//! - [`http`]: answering HTTP requests, and sending some
//! - [`json`]: the little of it that guests need; [`text`]: what the characters of a text stand for
//! - [`bindings`]: generated from `wit/`
//! - `export`: the macros that export a guest; `allocator`: its memory allocator

// The export macros name this crate by path, also for the code generated in it.
extern crate self as guest_sdk;

#[cfg(target_arch = "wasm32")]
mod allocator;
pub mod bindings;
pub mod card;
mod export;
pub mod http;
pub mod image;
pub mod json;
pub mod language;
pub mod log;
pub mod nn;
pub mod settings;
pub mod text;

pub use bindings::classifier::exports::infer::guest::classification::{Guest as Classifier, Label};
pub use bindings::infer::guest::notes::note;
pub use bindings::infer::guest::types::{Fault, ModelFailure};
pub use bindings::moderator::exports::infer::guest::moderation::{
    CategoryScore, Gap, Guest as Moderator, Kinds, Part, Tier, Verdict,
};
pub use bindings::predictor::exports::infer::guest::prediction::{Guest as Predictor, NamedTensor};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
