//! Guests: WebAssembly components that answer one request each, on models that the host has loaded.
//!
//! A component is compiled once ([`Sandbox::load`]). A request takes a slot of the instance pool, instantiates the
//! component there, calls it once and drops it; nothing that a guest did is seen by the next. Through wasi:nn the guest
//! runs the engine's models by the names that its configuration gives, within its [`Limits`].
//!
//! # Layout
//!
//! - `sandbox`: the WebAssembly engine, the instance pool, the ticker that interrupts guests
//! - `component`: what is loaded, and the calls: moderate, classify, predict; `start`: what loading costs
//! - `answer`: what a guest's answer must be to be believed
//! - `state`: what one instance holds and has used
//! - `nn`: the wasi:nn host; `ambient`: settings and the log
//! - `clock`, `limits`, `error`: guest time, budgets, what goes wrong
//! - `bindings`: generated from `wit/`

mod ambient;
mod answer;
mod bindings;
mod clock;
mod component;
mod error;
mod limits;
mod nn;
mod sandbox;
mod start;
mod state;

pub use component::{Component, ComponentOptions, Outcome, Request, Usage, World};
pub use error::{CallError, Cause, LoadError, PoolError};
pub use limits::Limits;
pub use sandbox::{Sandbox, SandboxOptions};
pub use start::StartCost;

/// The types of `wit/infer.wit` that calls take and return.
pub mod types {
    pub use crate::bindings::classifier::exports::infer::guest::classification::Label;
    pub use crate::bindings::infer::guest::types::{Fault, ModelFailure};
    pub use crate::bindings::moderator::exports::infer::guest::moderation::{
        CategoryScore, Gap, Kinds, Part, Tier, Verdict,
    };
    pub use crate::bindings::predictor::exports::infer::guest::prediction::NamedTensor;
    pub use crate::bindings::wasi::nn::tensor::TensorType;
}
