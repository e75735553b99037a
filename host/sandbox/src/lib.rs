//! Guests: WebAssembly components that answer one request each, on models that the host has loaded.
//!
//! A component is compiled once ([`Sandbox::load`]), and its machine code kept for later starts. A
//! request takes a slot of the instance pool, instantiates the component there, calls it once and
//! drops it; nothing that a guest did is seen by the next. Through wasi:nn the guest runs the
//! engine's models by the names that its configuration gives, within its [`Limits`].
//!
//! # Layout
//!
//! - `sandbox`: the WebAssembly engine, the instance pool, the ticker that interrupts guests
//! - `load`: compiling and linking a component; `start`: measured costs of a start
//! - `component`: a loaded component and its calls: moderate, classify, predict, handle; `world`:
//!   the kinds of component
//! - `call`: what a call is part of, and what it uses
//! - `http`: components that answer HTTP requests themselves, and what WASI gives them
//! - `interruptible`: what is changed in components before they are compiled, so that none runs
//!   long unchecked
//! - `compiled`: the machine code of components, kept in a folder and signed
//! - `answer`: what a guest's answer must be to be believed
//! - `state`: what one instance holds and has used
//! - `nn`: the wasi:nn host; `ambient`: settings and the log; `guest_log`: a guest's lines in it
//! - `clock`, `limits`, `memory`, `error`: guest time, budgets of an instance, memory of all
//!   requests, what goes wrong
//! - `expectation`: memory that a call is expected to take
//! - `bindings`: generated from `wit/`, with the host's types for resources; `types`: the generated
//!   types that calls take and return

mod ambient;
mod answer;
mod bindings;
mod call;
mod clock;
mod compiled;
mod component;
mod error;
mod expectation;
mod guest_log;
mod http;
mod interruptible;
mod limits;
mod load;
mod memory;
mod nn;
mod sandbox;
mod start;
mod state;
mod ticker;
mod turns;
pub mod types;
mod world;

pub use call::{Account, Outcome, Request, Usage};
pub use compiled::CachedCode;
pub use component::Component;
pub use error::{CallError, Cause, LoadError, PoolError};
pub use http::{Body, ClockKind, HttpOptions, OutboundHost, UNSENT_BYTES};
pub use limits::Limits;
pub use load::ComponentOptions;
pub use memory::{Exhausted, INSTANCE_BYTES, RequestMemory, Reservation};
pub use sandbox::{Sandbox, SandboxOptions};
pub use start::StartCost;
pub use world::World;
