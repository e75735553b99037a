//! infer.toml as it is typed. Every key is listed here; any other is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default)]
    pub(super) server: Server,
    #[serde(default)]
    pub(super) keys: BTreeMap<String, Key>,
    #[serde(default)]
    pub(super) models: BTreeMap<String, Model>,
    #[serde(default)]
    pub(super) components: BTreeMap<String, Component>,
}

/// A number and its place, so that one out of range is told with its line.
pub(super) type Number = Option<Spanned<u64>>;

/// `[server]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    /// Address or name, and port.
    pub(super) listen: Option<Spanned<String>>,
    /// Address or name, and port of the operator's own endpoints.
    pub(super) admin_listen: Option<Spanned<String>>,
    /// A socket beside `listen`, for programs on this machine.
    pub(super) unix_socket: Option<PathBuf>,
    /// Whoever reaches `listen` may use the server, keys or not.
    pub(super) trusted_network: Option<bool>,
    /// The certificate that `listen` answers with.
    pub(super) tls: Option<Tls>,
    /// Connections at any one time.
    pub(super) connections: Number,
    /// Connections of one address.
    pub(super) connections_per_ip: Number,
    /// The longest head of a request, in bytes.
    pub(super) max_header_bytes: Number,
    /// How long a handshake and a request's head may take, in milliseconds.
    pub(super) header_ms: Number,
    /// How long a request's body may take, in milliseconds.
    pub(super) body_ms: Number,
    /// How long a connection may stay without a request, in milliseconds.
    pub(super) idle_ms: Number,
    /// How long a client may take nothing of an answer, in milliseconds.
    pub(super) send_ms: Number,
    /// Requests a second of one address.
    pub(super) rate_per_ip: Number,
    /// Requests of one address at once, before the rate holds.
    pub(super) burst_per_ip: Number,
    /// The longest that a request may take, in milliseconds.
    pub(super) deadline_ms: Number,
    /// The longest that a chat's answer may take, in milliseconds.
    pub(super) chat_deadline_ms: Number,
    /// The largest request body, in bytes.
    pub(super) max_body_bytes: Number,
    /// All bodies that are held at any one time, in bytes.
    pub(super) body_memory_bytes: Number,
    /// What the process may take, in bytes.
    pub(super) memory_bytes: Number,
    /// The most inputs of one `/moderate` request.
    pub(super) max_inputs: Number,
    /// Guest instances at any one time.
    pub(super) instances: Number,
    /// Requests that may wait for an instance; beyond it they get 429.
    pub(super) waiting: Number,
    /// The longest that a request is expected to wait for an instance, in milliseconds; beyond it
    /// they get 429.
    pub(super) queue_ms: Number,
    /// How long requests under way may take to finish after a signal to stop, in milliseconds.
    pub(super) drain_ms: Number,
    /// Whether the configuration is read again when it or a file that it names has changed.
    pub(super) watch: Option<bool>,
    /// Other names of moderators, as clients may send them in `model`.
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, Spanned<String>>,
    /// Origins whose pages may ask the server and read its answers; `*` for any.
    #[serde(default)]
    pub(super) cors_origins: Vec<Spanned<String>>,
    /// `auto`, `off` or the path of a libonnxruntime shared library. ORT_DYLIB_PATH in the
    /// environment wins.
    pub(super) onnxruntime: Option<Spanned<String>>,
}

/// `[server.tls]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// A PEM file: the certificate, and those between it and the root.
    pub(super) certificate: Spanned<PathBuf>,
    /// A PEM file: the certificate's private key.
    pub(super) key: Spanned<PathBuf>,
}

/// `[keys.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// `sha256:` and the key's SHA-256 in hexadecimal.
    pub(super) hash: Spanned<String>,
    /// The components that it may use; all of them where there is no list.
    pub(super) components: Option<Vec<Spanned<String>>>,
    /// The models that it may ask by name; all of them where there is no list.
    pub(super) models: Option<Vec<Spanned<String>>>,
    /// Requests a second.
    pub(super) rate: Number,
    /// Requests at once, before the rate holds.
    pub(super) burst: Number,
    /// Requests under way at any one time.
    pub(super) concurrency: Number,
}

/// `[models.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    /// `builtin:NAME`, a folder with a card.toml, or a GGUF file.
    pub(super) source: Spanned<String>,
    /// Copies of the model that compute side by side.
    pub(super) sessions: Number,
    /// Threads of each session.
    pub(super) threads: Number,
    /// Requests that may wait for a session; beyond it they get 429.
    pub(super) queue_capacity: Number,
    /// The most rows that are computed together, where the model's batch axis is dynamic; a
    /// language model's tokens.
    pub(super) max_batch: Number,
    /// The most tokens of one session of a language model.
    pub(super) context_tokens: Number,
    /// Memory for a language model's keys and values, in bytes.
    pub(super) kv_bytes: Number,
    /// How long the model stays loaded while nobody asks it, in milliseconds.
    pub(super) keep_alive_ms: Number,
    /// Whether a language model's packed weights are kept in the cache folder for later starts.
    pub(super) packed_cache: Option<bool>,
    /// A second version that is tried beside it.
    pub(super) next: Option<Next>,
    /// What `infer rollback` puts back: the source before `infer promote`.
    pub(super) previous: Option<String>,
}

/// `next` of `[models.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Next {
    /// As the model's.
    pub(super) source: Spanned<String>,
    /// Requests that it answers, of a hundred.
    pub(super) percent: Option<Spanned<f64>>,
    /// Whether it is asked what the model is asked, and its answers are only compared.
    pub(super) shadow: Option<bool>,
    /// By how much two values may differ without being counted.
    pub(super) tolerance: Option<Spanned<f64>>,
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
    /// Whom an HTTP component may call.
    #[serde(default)]
    pub(super) allowed_outbound_hosts: Vec<Spanned<String>>,
    /// What the clocks of an HTTP component tell: `system` or `frozen`.
    pub(super) clock: Option<Spanned<String>>,
    /// What the random numbers of an HTTP component start from.
    pub(super) random_seed: Option<u64>,
    /// What it is asked before it is served.
    #[serde(default)]
    pub(super) tests: Vec<Test>,
}

/// `[[components.NAME.tests]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// A text.
    pub(super) input: Option<String>,
    /// An image's file, or `data:` with its base64.
    pub(super) image: Option<Spanned<String>>,
    /// Whether a moderator flags it.
    pub(super) flagged: Option<bool>,
    /// A moderator's scores.
    #[serde(default)]
    pub(super) scores: BTreeMap<String, f64>,
    /// A classifier's first label.
    pub(super) label: Option<String>,
    /// The most that a score may differ.
    pub(super) tolerance: Option<f64>,
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
    /// Instances at any one time.
    pub(super) instances: Number,
    /// Linear memory, in bytes.
    pub(super) memory_bytes: Number,
    /// Elements of each table.
    pub(super) table_elements: Number,
    /// Live resource handles.
    pub(super) handles: Number,
    /// Tensors held by the host at any one time, in bytes.
    pub(super) tensor_bytes: Number,
    /// Time on a processor, in milliseconds.
    pub(super) guest_ms: Number,
    /// Time in models, their queues included, in milliseconds.
    pub(super) compute_ms: Number,
    /// Log lines a request.
    pub(super) log_lines: Number,
    /// Requests that an HTTP component sends.
    pub(super) outbound_requests: Number,
}
