//! Errors of loading and calling components.

use std::path::PathBuf;
use std::time::Duration;

use infer_engine::RunError;

use crate::bindings::infer::guest::types::Fault;
use crate::world::World;

/// The instance pool cannot be created, or the processor cannot run the engine.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot create a pool of {instances} guest instances: {message}; lower `instances` or raise `ulimit -v`"
)]
pub struct PoolError {
    /// Number of requested instances.
    pub instances: u32,
    /// The reason, from the WebAssembly engine.
    pub message: String,
}

/// A component that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("component `{component}`: cannot read `{}`", path.display())]
    Read {
        /// The component's name in the configuration.
        component: String,
        /// Path of the file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The bytes are not a component that compiles.
    #[error("component `{component}`: not a WebAssembly component that this host can run: {message}")]
    Compile {
        /// The component's name in the configuration.
        component: String,
        /// The compiler's message, with a hint if there is one.
        message: String,
    },
    /// The component imports an interface that guests may not use.
    #[error(
        "component `{component}`: imports {imports}, which guests may not import; a guest may import wasi:nn, \
         wasi:config/store, infer:guest/log, infer:guest/notes, infer:guest/spans, infer:guest/regions, infer:guest/explanations and infer:guest/events (build it for wasm32-unknown-unknown, which adds no WASI imports); one that \
         exports wasi:http/incoming-handler may import all of WASI 0.2 except wasi:sockets"
    )]
    Import {
        /// The component's name in the configuration.
        component: String,
        /// The rejected imports, in backticks.
        imports: String,
    },
    /// The component exports no interface that this host calls.
    #[error(
        "component `{component}`: exports {exports}, expected one of `infer:guest/moderation`, \
         `infer:guest/classification` and `infer:guest/prediction` at version 0.1.0 (see wit/infer.wit), or \
         `wasi:http/incoming-handler` at version 0.2"
    )]
    Export {
        /// The component's name in the configuration.
        component: String,
        /// The exports found, in backticks.
        exports: String,
    },
    /// The component has more or larger parts than an instance may have.
    #[error("component `{component}`: exceeds its limits: {message}")]
    Limit {
        /// The component's name in the configuration.
        component: String,
        /// The exceeded limit, from the WebAssembly engine.
        message: String,
    },
}

/// A call without an answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The guest reported why it cannot answer.
    #[error("component `{component}` returned a fault: {}", describe(fault))]
    Fault {
        /// The component's name in the configuration.
        component: String,
        /// The guest's fault.
        fault: Fault,
        /// The last error of a model in this call. It distinguishes a full queue from a broken
        /// model.
        model: Option<RunError>,
    },
    /// The answer breaks the rules of `wit/infer.wit`.
    #[error("component `{component}` returned an invalid response: {message}")]
    Answer {
        /// The component's name in the configuration.
        component: String,
        /// The broken rule.
        message: String,
    },
    /// The host stopped the guest.
    #[error("component `{component}` was stopped: {cause}")]
    Stopped {
        /// The component's name in the configuration.
        component: String,
        /// The reason.
        cause: Cause,
    },
    /// The request's deadline passed.
    #[error("component `{component}` did not answer before the request's deadline")]
    Deadline {
        /// The component's name in the configuration.
        component: String,
    },
    /// All instances are busy.
    #[error("component `{component}`: all {instances} guest instances are busy")]
    Busy {
        /// The component's name in the configuration.
        component: String,
        /// Number of instances.
        instances: u32,
    },
    /// The component has another world than the call needs.
    #[error("component `{component}` is a {found}, expected a {expected}")]
    World {
        /// The component's name in the configuration.
        component: String,
        /// World that the call needs.
        expected: World,
        /// World of the component.
        found: World,
    },
}

/// Reason for which the host stopped a guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// `guest_ms` ran out.
    #[error("exceeded its guest time of {} ms", .0.as_millis())]
    GuestTime(Duration),
    /// A memory was refused growth past `memory_bytes`, and the guest gave up.
    #[error("exceeded its memory limit of {0} bytes")]
    Memory(usize),
    /// A table was refused growth past `table_elements`, and the guest gave up.
    #[error("exceeded its table limit of {0} elements")]
    Table(usize),
    /// The tensors held, or the data of one host call, exceeded `tensor_bytes`.
    #[error("exceeded its tensor limit of {0} bytes")]
    TensorBytes(usize),
    /// The guest had more live handles than `handles`.
    #[error("exceeded its limit of {0} handles")]
    Handles(usize),
    /// The client disconnected before it had its answer.
    #[error("the client disconnected")]
    Gone,
    /// The guest's allocation would have exceeded the memory of all requests.
    #[error("request memory budget of {0} bytes is exhausted")]
    ServerMemory(usize),
    /// The guest's own failure: a panic, an exhausted stack, an access out of bounds.
    #[error("{0}")]
    Trap(String),
}

impl Cause {
    /// Label for logs and metrics.
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
