//! The keys of infer.toml as they are parsed. Unknown keys are rejected.

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

/// A number with its position, so that an error names its line.
pub(super) type Number = Option<Spanned<u64>>;

/// `[server]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Server {
    /// Listen address: an IP address or a name, and a port.
    pub(super) listen: Option<Spanned<String>>,
    /// Listen address of the operator's own endpoints.
    pub(super) admin_listen: Option<Spanned<String>>,
    /// Path of a Unix socket that is served beside `listen`.
    pub(super) unix_socket: Option<PathBuf>,
    /// Permits every client that reaches `listen`, even without keys.
    pub(super) trusted_network: Option<bool>,
    /// TLS certificate of `listen`.
    pub(super) tls: Option<Tls>,
    /// Maximum number of connections.
    pub(super) connections: Number,
    /// Maximum number of connections per client address.
    pub(super) connections_per_ip: Number,
    /// Maximum size of a request's head, in bytes.
    pub(super) max_header_bytes: Number,
    /// Time limit for a handshake and for a request's head, in milliseconds.
    pub(super) header_ms: Number,
    /// Time limit for a request's body, in milliseconds.
    pub(super) body_ms: Number,
    /// Time after which a connection without a request is closed, in milliseconds.
    pub(super) idle_ms: Number,
    /// Time after which a client that reads nothing of an answer is disconnected, in milliseconds.
    pub(super) send_ms: Number,
    /// Requests per second and client address.
    pub(super) rate_per_ip: Number,
    /// Requests of one client address in a burst above the rate.
    pub(super) burst_per_ip: Number,
    /// Time limit for a request, in milliseconds.
    pub(super) deadline_ms: Number,
    /// Time limit for a chat's answer, in milliseconds.
    pub(super) chat_deadline_ms: Number,
    /// Maximum size of a request's body, in bytes.
    pub(super) max_body_bytes: Number,
    /// Memory budget for all request bodies, in bytes.
    pub(super) body_memory_bytes: Number,
    /// Memory budget of the process, in bytes.
    pub(super) memory_bytes: Number,
    /// Maximum number of inputs in a `/moderate` request.
    pub(super) max_inputs: Number,
    /// Maximum number of guest instances.
    pub(super) instances: Number,
    /// Inputs that may wait for an instance; beyond it requests get 429.
    pub(super) waiting: Number,
    /// Maximum expected wait for an instance, in milliseconds; beyond it requests get 429.
    pub(super) queue_ms: Number,
    /// Time limit for requests in flight after a signal to stop, in milliseconds.
    pub(super) drain_ms: Number,
    /// Reloads the configuration when it or a file that it names changes.
    pub(super) watch: Option<bool>,
    /// Other names of moderators that clients may send in `model`.
    #[serde(default)]
    pub(super) aliases: BTreeMap<String, Spanned<String>>,
    /// Origins whose pages may send requests and read the answers; `*` for any.
    #[serde(default)]
    pub(super) cors_origins: Vec<Spanned<String>>,
    /// `auto`, `off`, or the path of a libonnxruntime shared library. The environment variable
    /// ORT_DYLIB_PATH takes precedence.
    pub(super) onnxruntime: Option<Spanned<String>>,
}

/// `[server.tls]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// PEM file with the certificate and its intermediates.
    pub(super) certificate: Spanned<PathBuf>,
    /// PEM file with the certificate's private key.
    pub(super) key: Spanned<PathBuf>,
}

/// `[keys.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// `sha256:` and the key's SHA-256 in hexadecimal.
    pub(super) hash: Spanned<String>,
    /// Components that it may use; without a list all of them.
    pub(super) components: Option<Vec<Spanned<String>>>,
    /// Models that it may use by name; without a list all of them.
    pub(super) models: Option<Vec<Spanned<String>>>,
    /// Requests per second.
    pub(super) rate: Number,
    /// Requests in a burst above the rate.
    pub(super) burst: Number,
    /// Maximum number of requests in flight.
    pub(super) concurrency: Number,
}

/// `[models.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    /// `builtin:NAME`, a folder with a card.toml, or a GGUF file.
    pub(super) source: Spanned<String>,
    /// Number of copies of the model that compute concurrently.
    pub(super) sessions: Number,
    /// Threads of each session.
    pub(super) threads: Number,
    /// Jobs that may wait for a session; beyond it requests get 429.
    pub(super) queue_capacity: Number,
    /// Maximum rows of a batch, if the model's batch axis is dynamic; for a language model, tokens.
    pub(super) max_batch: Number,
    /// Maximum tokens of one session of a language model.
    pub(super) context_tokens: Number,
    /// Memory for a language model's keys and values, in bytes.
    pub(super) kv_bytes: Number,
    /// Idle time after which the model is unloaded, in milliseconds.
    pub(super) keep_alive_ms: Number,
    /// Caches a language model's packed weights for later starts.
    pub(super) packed_cache: Option<bool>,
    /// A second version that is tried beside this one.
    pub(super) next: Option<Next>,
    /// The source before `infer promote`, which `infer rollback` restores.
    pub(super) previous: Option<String>,
}

/// `next` of `[models.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Next {
    /// As the model's `source`.
    pub(super) source: Spanned<String>,
    /// Share of the requests that it answers, in percent.
    pub(super) percent: Option<Spanned<f64>>,
    /// True if it gets copies of the model's inputs, and its answers are only compared.
    pub(super) shadow: Option<bool>,
    /// Largest difference of two values that counts as agreement.
    pub(super) tolerance: Option<Spanned<f64>>,
}

/// `[components.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Component {
    /// `builtin:NAME`, or the path of a component's file.
    pub(super) source: Spanned<String>,
    /// The path that it answers.
    pub(super) route: Option<Spanned<String>>,
    /// Models that it may use: the configuration's names by the guest's names.
    #[serde(default)]
    pub(super) models: BTreeMap<String, Spanned<String>>,
    /// Settings that the guest reads through `wasi:config/store`.
    #[serde(default)]
    pub(super) settings: BTreeMap<String, Setting>,
    /// Limits of each instance.
    #[serde(default)]
    pub(super) limits: LimitsTable,
    /// Hosts that an HTTP component may call.
    #[serde(default)]
    pub(super) allowed_outbound_hosts: Vec<Spanned<String>>,
    /// Clock of an HTTP component: `system` or `frozen`.
    pub(super) clock: Option<Spanned<String>>,
    /// Seed of an HTTP component's random numbers.
    pub(super) random_seed: Option<u64>,
    /// Self-tests before it is served.
    #[serde(default)]
    pub(super) tests: Vec<Test>,
}

/// `[[components.NAME.tests]]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    /// Text of the request.
    pub(super) input: Option<String>,
    /// Path of an image, or a `data:` URL in base64.
    pub(super) image: Option<Spanned<String>>,
    /// Expected verdict of a moderator.
    pub(super) flagged: Option<bool>,
    /// Expected scores of a moderator, by category.
    #[serde(default)]
    pub(super) scores: BTreeMap<String, f64>,
    /// Expected first label of a classifier.
    pub(super) label: Option<String>,
    /// Maximum difference of a score.
    pub(super) tolerance: Option<f64>,
}

/// A setting; the guest reads it as a string.
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
    /// Maximum number of instances.
    pub(super) instances: Number,
    /// Linear memory, in bytes.
    pub(super) memory_bytes: Number,
    /// Elements of each table.
    pub(super) table_elements: Number,
    /// Live resource handles.
    pub(super) handles: Number,
    /// Tensors that the host holds at any one time, in bytes.
    pub(super) tensor_bytes: Number,
    /// Processor time, in milliseconds.
    pub(super) guest_ms: Number,
    /// Time in models, including their queues, in milliseconds.
    pub(super) compute_ms: Number,
    /// Log lines per request.
    pub(super) log_lines: Number,
    /// Requests that an HTTP component may send.
    pub(super) outbound_requests: Number,
}
