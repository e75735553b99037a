//! Guests: WebAssembly components that answer one request each, on models that the host has loaded.
//!
//! A component is compiled once ([`Sandbox::load`]), and its machine code kept for later starts. A
//! request takes a slot of the instance pool, instantiates the component there, calls it once and
//! drops it, so no guest sees any effect of an earlier one. Through wasi:nn the guest runs the
//! engine's models by the names in its configuration, within its [`Limits`].
//!
//! # Layout
//!
//! - `sandbox`: the WebAssembly engine, the instance pool, the ticker that interrupts guests
//! - `load`: compiling and linking a component; `start`: measured costs of a start
//! - `component`: a loaded component and its calls: moderate, classify, predict, handle; `world`:
//!   the kinds of component
//! - `call`: the request that a call belongs to, its usage and its outcome
//! - `http`: components that answer HTTP requests themselves, and their WASI
//! - `interruptible`: changes to components before compilation, so that none runs long unchecked
//! - `compiled`: the cache of machine code, a folder of signed files
//! - `answer`: validation of guests' answers
//! - `state`: state and usage of one instance
//! - `nn`: the wasi:nn host; `ambient`: settings and the log; `guest_log`: a guest's lines in it
//! - `clock`: guest time; `guest_limits`: budgets of an instance; `limits`: the fixed limits
//! - `memory`: memory of all requests; `error`: errors
//! - `turns`: scheduling of guests where there are more than processors; `ticker`: interrupts them
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
mod guest_limits;
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

pub use call::{Annotations, Outcome, Request, RequestUsage, Usage};
pub use compiled::CachedCode;
pub use component::Component;
pub use error::{CallError, Cause, LoadError, PoolError};
pub use guest_limits::Limits;
pub use http::{Body, ClockKind, HttpOptions, OutboundHost, UNSENT_BYTES};
pub use load::ComponentOptions;
pub use memory::{Exhausted, INSTANCE_BYTES, RequestMemory, Reservation};
pub use sandbox::{Sandbox, SandboxOptions};
pub use start::StartCost;
pub use world::World;
