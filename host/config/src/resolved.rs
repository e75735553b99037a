//! A configuration as a list of keys and values, and the difference of two, which a reload applies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use infer_engine::{ModelOptions, Onnxruntime};
use infer_models::source::Source;
use infer_models::weights::Reuse;
use infer_sandbox::{ClockKind, HttpOptions, Limits, SandboxOptions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ComponentConfig, Config, ConnectionLimits, KeyConfig, ModelConfig, Next, Rate, ServerConfig, Trial,
};

/// Keys that only a restart changes: listeners, connection limits, and the one ONNX Runtime that a
/// process can load.
const FIXED: [&str; 12] = [
    "server.listen",
    "server.admin_listen",
    "server.unix_socket",
    "server.tls.certificate",
    "server.tls.key",
    "server.connections",
    "server.connections_per_ip",
    "server.max_header_bytes",
    "server.header_ms",
    "server.idle_ms",
    "server.send_ms",
    "server.onnxruntime",
];

/// Maximum characters of a value that are shown.
const SHOWN: usize = 60;

/// Every key that is configured or has a default, and the hashes of models and components.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolved(BTreeMap<String, String>);

/// A key whose value has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// Key such as `models.toxic-bilstm.source`.
    pub key: String,
    /// The value before; `None` for a new key.
    pub before: Option<String>,
    /// The value after; `None` for a removed key.
    pub after: Option<String>,
}

impl Resolved {
    /// Lists the keys and values of `config`, without reading any file.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        // Destructured, so that a new field cannot be forgotten here.
        let Config { origin: _, lock: _, files: _, server, keys, sandbox, onnxruntime, models, components } =
            config;
        let mut resolved = Resolved::default();
        resolved.server(server);
        let SandboxOptions { instances, waiting, .. } = sandbox;
        resolved.put("server.instances", instances);
        resolved.put("server.waiting", waiting);
        let onnxruntime = match onnxruntime {
            Onnxruntime::Auto { .. } => "auto".to_owned(),
            Onnxruntime::Off => "off".to_owned(),
            Onnxruntime::Path(path) => absolute(path),
        };
        resolved.put("server.onnxruntime", onnxruntime);
        for (name, key) in keys {
            resolved.key(&format!("keys.{name}"), key);
        }
        for (name, model) in models {
            resolved.model(&format!("models.{name}"), model);
        }
        for (name, component) in components {
            resolved.component(&format!("components.{name}"), component);
        }
        resolved
    }

    /// Returns the keys whose values differ in `after`.
    #[must_use]
    pub fn changes(&self, after: &Resolved) -> Vec<Change> {
        let keys: BTreeSet<_> = self.0.keys().chain(after.0.keys()).collect();
        let change = |key: &String| {
            let (before, after) = (self.0.get(key).cloned(), after.0.get(key).cloned());
            (before != after).then(|| Change { key: key.clone(), before, after })
        };
        keys.into_iter().filter_map(change).collect()
    }

    /// Sets the value of `key`.
    pub fn put(&mut self, key: &str, value: impl fmt::Display) {
        self.0.insert(key.to_owned(), value.to_string());
    }

    fn maybe(&mut self, key: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn time(&mut self, key: &str, time: Duration) {
        self.put(key, time.as_millis());
    }

    fn server(&mut self, server: &ServerConfig) {
        let ServerConfig {
            listen,
            admin_listen,
            unix_socket,
            trusted_network,
            tls,
            connections,
            rate_per_ip,
            deadline,
            chat_deadline,
            body_time,
            max_body_bytes,
            body_memory_bytes,
            max_inputs,
            aliases,
            cors_origins,
            queue_time,
            drain,
            watch,
            memory,
        } = server;
        self.put("server.listen", listen);
        self.maybe("server.admin_listen", *admin_listen);
        self.maybe("server.unix_socket", unix_socket.as_deref().map(absolute));
        self.put("server.trusted_network", trusted_network);
        self.maybe("server.tls.certificate", tls.as_ref().map(|tls| absolute(&tls.certificate)));
        self.maybe("server.tls.key", tls.as_ref().map(|tls| absolute(&tls.key)));
        let ConnectionLimits { most, most_per_ip, header_bytes, header_time, idle_time, send_time } =
            connections;
        self.put("server.connections", most);
        self.put("server.connections_per_ip", most_per_ip);
        self.put("server.max_header_bytes", header_bytes);
        self.time("server.header_ms", *header_time);
        self.time("server.idle_ms", *idle_time);
        self.time("server.send_ms", *send_time);
        self.rate(("server.rate_per_ip", "server.burst_per_ip"), *rate_per_ip);
        self.time("server.deadline_ms", *deadline);
        self.time("server.chat_deadline_ms", *chat_deadline);
        self.time("server.body_ms", *body_time);
        self.put("server.max_body_bytes", max_body_bytes);
        self.put("server.body_memory_bytes", body_memory_bytes);
        self.put("server.max_inputs", max_inputs);
        if !cors_origins.is_empty() {
            self.put("server.cors_origins", cors_origins.join(", "));
        }
        for (alias, component) in aliases {
            self.put(&format!("server.aliases.{alias}"), component);
        }
        self.time("server.queue_ms", *queue_time);
        self.time("server.drain_ms", *drain);
        self.put("server.watch", watch);
        self.maybe("server.memory_bytes", memory.as_ref().map(|contract| contract.bytes));
    }

    fn rate(&mut self, (rate_key, burst_key): (&str, &str), rate: Option<Rate>) {
        self.maybe(rate_key, rate.map(|rate| rate.per_second));
        self.maybe(burst_key, rate.map(|rate| rate.burst));
    }

    fn key(&mut self, at: &str, key: &KeyConfig) {
        let KeyConfig { hash, components, models, rate, concurrency } = key;
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        self.put(&format!("{at}.hash"), hash);
        self.maybe(&format!("{at}.components"), components.as_ref().map(list));
        self.maybe(&format!("{at}.models"), models.as_ref().map(list));
        self.rate((&format!("{at}.rate"), &format!("{at}.burst")), *rate);
        self.maybe(&format!("{at}.concurrency"), *concurrency);
    }

    fn model(&mut self, at: &str, model: &ModelConfig) {
        let ModelConfig { at: _, source, options, reuse, keep_alive, next, previous } = model;
        let ModelOptions { sessions, threads, queue_capacity, max_batch, context_tokens, kv_bytes } = options;
        self.put(&format!("{at}.source"), resolve(source));
        let sizes = [
            ("sessions", sessions),
            ("threads", threads),
            ("queue_capacity", queue_capacity),
            ("max_batch", max_batch),
            ("context_tokens", context_tokens),
            ("kv_bytes", kv_bytes),
        ];
        for (key, size) in sizes {
            self.maybe(&format!("{at}.{key}"), *size);
        }
        self.maybe(&format!("{at}.keep_alive_ms"), keep_alive.map(|time| time.as_millis()));
        // Only on or off counts: `infer check` hashes files again that the server has already
        // verified.
        self.put(&format!("{at}.packed_cache"), *reuse != Reuse::Off);
        if let Some(Next { at: _, source, trial }) = next {
            self.put(&format!("{at}.next.source"), resolve(source));
            match trial {
                Trial::Canary { percent } => self.put(&format!("{at}.next.percent"), percent),
                Trial::Shadow { tolerance } => {
                    self.put(&format!("{at}.next.shadow"), true);
                    self.put(&format!("{at}.next.tolerance"), tolerance);
                }
            }
        }
        self.maybe(&format!("{at}.previous"), previous.as_ref());
    }

    fn component(&mut self, at: &str, component: &ComponentConfig) {
        let ComponentConfig { at: _, source, route, models, settings, limits, http, tests } = component;
        self.put(&format!("{at}.source"), resolve(source));
        self.maybe(&format!("{at}.route"), route.as_ref());
        for (wanted, model) in models {
            self.put(&format!("{at}.models.{wanted}"), model);
        }
        for (key, value) in settings {
            self.put(&format!("{at}.settings.{key}"), value);
        }
        let Limits {
            instances,
            memory_bytes,
            table_elements,
            handles,
            tensor_bytes,
            guest_time,
            compute_time,
            log_lines,
            outbound_requests,
        } = limits;
        let sizes = [
            ("memory_bytes", memory_bytes),
            ("table_elements", table_elements),
            ("handles", handles),
            ("tensor_bytes", tensor_bytes),
            ("log_lines", log_lines),
            ("outbound_requests", outbound_requests),
        ];
        for (key, size) in sizes {
            self.put(&format!("{at}.limits.{key}"), size);
        }
        self.maybe(&format!("{at}.limits.instances"), *instances);
        self.time(&format!("{at}.limits.guest_ms"), *guest_time);
        self.time(&format!("{at}.limits.compute_ms"), *compute_time);
        let HttpOptions { outbound, clock, random_seed } = http;
        for (index, host) in outbound.iter().enumerate() {
            self.put(&format!("{at}.allowed_outbound_hosts.{index}"), host);
        }
        let clock = match clock {
            ClockKind::System => "system",
            ClockKind::Frozen => "frozen",
        };
        self.put(&format!("{at}.clock"), clock);
        self.maybe(&format!("{at}.random_seed"), *random_seed);
        for (index, test) in tests.iter().enumerate() {
            self.put(&format!("{at}.tests.{index}"), test);
        }
    }
}

impl Change {
    /// Returns true if the change needs a restart.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        FIXED.contains(&&*self.key)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &str| {
            let line: String = value.escape_debug().take(SHOWN).collect();
            if line.len() < value.len() { format!("{line}…") } else { line }
        };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{}: {} -> {}", self.key, shown(before), shown(after)),
            (None, Some(after)) => write!(f, "{}: new, {}", self.key, shown(after)),
            (Some(before), None) => write!(f, "{}: gone, was {}", self.key, shown(before)),
            (None, None) => f.write_str(&self.key),
        }
    }
}

fn resolve(source: &Source) -> String {
    match source {
        Source::Builtin(_) => source.to_string(),
        Source::Path(path) => absolute(path),
    }
}

/// Makes `path` absolute, because two processes may have different working folders.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).as_deref().unwrap_or(path).display().to_string()
}
