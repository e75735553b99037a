//! infer.toml as it is typed. Every key is listed here; any other is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use infer_sandbox::Limits;
use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) models: BTreeMap<String, Model>,
    #[serde(default)]
    pub(super) components: BTreeMap<String, Component>,
}

/// `[server]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Server {
    /// Address and port. The default is reached from this machine alone.
    pub(super) listen: SocketAddr,
    /// The longest that a request may take, in milliseconds.
    pub(super) deadline_ms: u64,
    /// The largest request body, in bytes.
    pub(super) max_body_bytes: usize,
    /// The most inputs of one `/moderate` request.
    pub(super) max_inputs: usize,
    /// Guest instances at any one time.
    pub(super) instances: u32,
    /// Requests that may wait for an instance; beyond it they get 429.
    pub(super) waiting: u32,
    /// How long requests under way may take to finish after a signal to stop, in milliseconds.
    pub(super) drain_ms: u64,
    /// `auto`, `off` or the path of a libonnxruntime shared library. ORT_DYLIB_PATH in the environment wins.
    pub(super) onnxruntime: Option<Spanned<String>>,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            deadline_ms: 5_000,
            max_body_bytes: 10 << 20,
            max_inputs: 128,
            instances: 32,
            waiting: 256,
            drain_ms: 10_000,
            onnxruntime: None,
        }
    }
}

/// `[models.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    /// `builtin:NAME`, or a folder with a card.toml.
    pub(super) source: Spanned<String>,
    /// Copies of the model that compute side by side.
    pub(super) sessions: Option<usize>,
    /// Threads of each session.
    pub(super) threads: Option<usize>,
    /// Requests that may wait for a session; beyond it they get 429.
    pub(super) queue_capacity: Option<usize>,
    /// The most rows that are computed together, where the model's batch axis is dynamic.
    pub(super) max_batch: Option<usize>,
}

/// `[components.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Component {
    /// `builtin:NAME`, or a component's file.
    pub(super) source: Spanned<String>,
    /// The path that it answers.
    pub(super) route: Option<Spanned<String>>,
    /// The guest's name for each model that it may use, and the configuration's name.
    #[serde(default)]
    pub(super) models: BTreeMap<String, Spanned<String>>,
    /// What the guest reads through `wasi:config/store`.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Setting>,
    /// The budgets of each instance.
    #[serde(default)]
    pub(super) limits: LimitsTable,
}

/// A setting, which reaches the guest as a string.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a setting is a string, a number or a boolean")]
pub(super) enum Setting {
    Text(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Text(text) => f.write_str(text),
            Setting::Integer(number) => number.fmt(f),
            Setting::Float(number) => number.fmt(f),
            Setting::Boolean(truth) => truth.fmt(f),
        }
    }
}

/// `[components.NAME.limits]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitsTable {
    /// Linear memory, in bytes.
    memory_bytes: Option<usize>,
    /// Elements of each table.
    table_elements: Option<usize>,
    /// Live resource handles.
    handles: Option<usize>,
    /// Tensors held by the host at any one time, in bytes.
    tensor_bytes: Option<usize>,
    /// Time on a processor, in milliseconds.
    guest_ms: Option<u64>,
    /// Time in models, their queues included, in milliseconds.
    compute_ms: Option<u64>,
    /// Log lines a request.
    log_lines: Option<usize>,
}

impl From<LimitsTable> for Limits {
    fn from(table: LimitsTable) -> Limits {
        let defaults = Limits::default();
        Limits {
            memory_bytes: table.memory_bytes.unwrap_or(defaults.memory_bytes),
            table_elements: table.table_elements.unwrap_or(defaults.table_elements),
            handles: table.handles.unwrap_or(defaults.handles),
            tensor_bytes: table.tensor_bytes.unwrap_or(defaults.tensor_bytes),
            guest_time: table.guest_ms.map_or(defaults.guest_time, Duration::from_millis),
            compute_time: table.compute_ms.map_or(defaults.compute_time, Duration::from_millis),
            log_lines: table.log_lines.unwrap_or(defaults.log_lines),
        }
    }
}
