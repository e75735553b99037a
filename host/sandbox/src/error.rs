//! What can go wrong when a component is loaded, and when it is called.

use std::path::PathBuf;
use std::time::Duration;

use infer_engine::RunError;

use crate::bindings::infer::guest::types::Fault;
use crate::world::World;

/// An instance pool that cannot be made, or an engine that this processor cannot run.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make a pool of {instances} guest instances: {message}; fewer `instances` or a higher `ulimit -v` may help"
)]
pub struct PoolError {
    /// How many instances were wanted.
    pub instances: u32,
    /// What was refused.
    pub message: String,
}

/// A component that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("component `{component}`: cannot read `{}`", path.display())]
    Read {
        /// The component's name in the configuration.
        component: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The bytes are not a component that compiles.
    #[error("component `{component}`: not a WebAssembly component that this host can run: {message}")]
    Compile {
        /// The component's name in the configuration.
        component: String,
        /// What the compiler said, with a hint where there is one.
        message: String,
    },
    /// The component imports what guests are not given.
    #[error(
        "component `{component}`: imports {imports}, which guests are not given; a guest may import wasi:nn, \
         wasi:config/store and infer:guest/log (build it for wasm32-unknown-unknown, which adds no WASI imports); one that \
         exports wasi:http/incoming-handler may import all of WASI 0.2 but wasi:sockets"
    )]
    Import {
        /// The component's name in the configuration.
        component: String,
        /// The imports that are refused, in backticks.
        imports: String,
    },
    /// The component exports nothing that this host calls.
    #[error(
        "component `{component}`: exports {exports}, expected one of `infer:guest/moderation`, \
         `infer:guest/classification` and `infer:guest/prediction` at version 0.1.0 (see wit/infer.wit), or \
         `wasi:http/incoming-handler` at version 0.2"
    )]
    Export {
        /// The component's name in the configuration.
        component: String,
        /// What it does export, in backticks.
        exports: String,
    },
    /// The component is made of more parts, or bigger ones, than an instance may have.
    #[error("component `{component}`: does not fit its limits: {message}")]
    Limit {
        /// The component's name in the configuration.
        component: String,
        /// Which limit, and by how much.
        message: String,
    },
}

/// A call that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The guest said why it cannot answer.
    #[error("component `{component}` answered with a fault: {}", describe(fault))]
    Fault {
        /// The component's name in the configuration.
        component: String,
        /// What the guest said.
        fault: Fault,
        /// The last error that a model gave this guest: it tells a full queue from a broken model.
        model: Option<RunError>,
    },
    /// The guest's answer breaks the rules of `wit/infer.wit`.
    #[error("component `{component}` gave an answer that is none: {message}")]
    Answer {
        /// The component's name in the configuration.
        component: String,
        /// What is wrong with it.
        message: String,
    },
    /// The host stopped the guest.
    #[error("component `{component}` was stopped: {cause}")]
    Stopped {
        /// The component's name in the configuration.
        component: String,
        /// Why.
        cause: Cause,
    },
    /// The request's deadline passed.
    #[error("component `{component}` had not answered at the request's deadline")]
    Deadline {
        /// The component's name in the configuration.
        component: String,
    },
    /// Every instance is taken.
    #[error("component `{component}`: all {instances} guest instances are busy")]
    Busy {
        /// The component's name in the configuration.
        component: String,
        /// How many there are.
        instances: u32,
    },
    /// The component answers another kind of call.
    #[error("component `{component}` is a {found}, expected a {expected}")]
    World {
        /// The component's name in the configuration.
        component: String,
        /// What the call needs.
        expected: World,
        /// What the component is.
        found: World,
    },
}

/// Why the host stopped a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// `guest_ms` ran out.
    #[error("over its guest time of {} ms", .0.as_millis())]
    GuestTime(Duration),
    /// A memory was refused growth past `memory_bytes`, and the guest gave up.
    #[error("over its memory of {0} bytes")]
    Memory(usize),
    /// A table was refused growth past `table_elements`, and the guest gave up.
    #[error("over its table size of {0} elements")]
    Table(usize),
    /// The tensors held, or one call's data, went past `tensor_bytes`.
    #[error("over its {0} bytes of tensors")]
    TensorBytes(usize),
    /// More live handles than `handles`.
    #[error("over its {0} handles")]
    Handles(usize),
    /// The client went away before it had its answer.
    #[error("its client had gone")]
    Gone,
    /// What the guest wanted would have gone past the memory that requests may hold together.
    #[error("the {0} bytes that requests may hold together are held")]
    ServerMemory(usize),
    /// The guest's own failure: a panic, an exhausted stack, an access out of bounds.
    #[error("{0}")]
    Trap(String),
}

impl Cause {
    /// A word for logs and metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Cause::GuestTime(_) => "guest_time",
            Cause::Memory(_) => "memory",
            Cause::Table(_) => "table",
            Cause::TensorBytes(_) => "tensor_bytes",
            Cause::Handles(_) => "handles",
            Cause::Gone => "gone",
            Cause::ServerMemory(_) => "server_memory",
            Cause::Trap(_) => "trap",
        }
    }
}

fn describe(fault: &Fault) -> String {
    match fault {
        Fault::InvalidInput(text) => format!("invalid input: {text}"),
        Fault::UnsupportedMedia(text) => format!("unsupported media: {text}"),
        Fault::TooLarge(text) => format!("too large: {text}"),
        Fault::Model(failure) => format!("model `{}`: {}", failure.model, failure.message),
        Fault::Internal(text) => format!("internal: {text}"),
    }
}
