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

// The export macros name this crate by path, also for the code generated in it.
extern crate self as guest_sdk;

pub mod bindings;
pub mod card;
pub mod http;
pub mod image;
pub mod json;
pub mod language;
pub mod log;
pub mod nn;
pub mod settings;
pub mod text;

/// A guest starts with 4 MiB (.cargo/config.toml). To use these before any that it asks for keeps
/// the host from changing the bounds of an instance's memory twice a request, which interrupts
/// every processor.
#[cfg(target_arch = "wasm32")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

pub use bindings::classifier::exports::infer::guest::classification::{Guest as Classifier, Label};
pub use bindings::infer::guest::notes::note;
pub use bindings::infer::guest::types::{Fault, ModelFailure};
pub use bindings::moderator::exports::infer::guest::moderation::{
    CategoryScore, Gap, Guest as Moderator, Kinds, Part, Tier, Verdict,
};
pub use bindings::predictor::exports::infer::guest::prediction::{Guest as Predictor, NamedTensor};

/// Export a type that implements [`Moderator`] as the guest of this component.
#[macro_export]
macro_rules! export_moderator {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::Moderator, $crate::bindings::moderator);
    };
}

/// Export a type that implements [`Classifier`] as the guest of this component.
#[macro_export]
macro_rules! export_classifier {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::Classifier, $crate::bindings::classifier);
    };
}

/// Export a type that implements [`Predictor`] as the guest of this component.
#[macro_export]
macro_rules! export_predictor {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::Predictor, $crate::bindings::predictor);
    };
}

/// Export a type that implements [`http::Handler`] as the guest of this component.
#[macro_export]
macro_rules! export_handler {
    ($guest:ident) => {
        $crate::__export!($guest, $crate::http::Handler, $crate::bindings::handler);
    };
}

/// Export `$guest` from a WebAssembly module. Elsewhere, where linkers refuse a component's names
/// for symbols, it is only checked for its trait.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($guest:ident, $world:path, $($bindings:tt)+) => {
        #[cfg(target_family = "wasm")]
        $($bindings)+::export!($guest with_types_in $($bindings)+);
        #[cfg(not(target_family = "wasm"))]
        const _: () = {
            const fn implements<Guest: $world>() {}
            implements::<$guest>()
        };
    };
}

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
