//! The guest SDK: a library for components of the infer server that judge, classify, predict or
//! answer HTTP requests.
//!
//! A guest implements one trait ([`Moderator`], [`Classifier`], [`Predictor`] or [`http::Handler`])
//! and passes its type to the macro that exports it; `guest-models/README.md` shows one in a page.
//! The parts that need the host (settings, models, the log) are bindings of `wit/infer.wit`; the
//! rest is plain Rust that also runs natively, so it is tested without a sandbox.
//!
//! # Layout
//!
//! - [`settings`]: the operator's settings, typed; [`card`]: models' inputs and outputs, from the
//!   same store
//! - [`nn`]: runs models; [`texts`]: text models; [`language`]: language models
//! - [`log`]: lines in the host's log; [`report`]: spans for the caller;
//!   [`report_regions`]: texts in images; [`report_contributions`], [`report_sentences`]:
//!   explanations of scores; [`count`]: events in the host's metrics
//! - [`image`]: converts untrusted image files to the numbers that a model takes
//! - [`http`]: answers HTTP requests, and sends requests
//! - [`json`]: minimal JSON; [`text`]: invisible characters and compatibility forms
//! - [`bindings`]: generated from `wit/`
//! - `export`: macros that export a guest; `allocator`: the memory allocator of guests

// The export macros refer to this crate by its path, also within the crate.
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
pub mod texts;

pub use bindings::classifier::exports::infer::guest::classification::{Guest as Classifier, Label};
pub use bindings::infer::guest::events::count;
pub use bindings::infer::guest::explanations::{
    Contribution, Sentence, report_contributions, report_sentences,
};
pub use bindings::infer::guest::notes::note;
pub use bindings::infer::guest::regions::{Region as TextRegion, report as report_regions};
pub use bindings::infer::guest::spans::{Span, report};
pub use bindings::infer::guest::types::{Fault, ModelFailure};
pub use bindings::moderator::exports::infer::guest::moderation::{
    CategoryScore, Gap, Guest as Moderator, Kinds, Part, Tier, Verdict,
};
pub use bindings::predictor::exports::infer::guest::prediction::{Guest as Predictor, NamedTensor};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
