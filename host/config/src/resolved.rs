//! A configuration as a list of keys and values, and the difference of two, which a reload applies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::time::Duration;

use infer_engine::{KvType, ModelOptions, Onnxruntime};
use infer_models::source::Source;
use infer_models::weights::Reuse;
use infer_sandbox::{ClockKind, HttpOptions, Limits, SandboxOptions};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::key::{Reload, Values};
use crate::limits::MAX_VALUE_CHARACTERS;
use crate::table::{
    ApiKeyValues, ComponentValues, GuardValues, LimitsValues, ModelValues, NextValues, SECTIONS,
    ServerValues, TlsValues, UpstreamValues,
};
use crate::upstream::{KeySource, Resilience, UpstreamConfig};
use crate::{
    ComponentConfig, Config, ConnectionLimits, GuardConfig, KeyConfig, ModelConfig, Next, Rate, ServerConfig,
    Trial, Windows,
};

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
        let mut resolved = Resolved::default();
        let mut section = |path: &str, values: Values| {
            for (key, value) in values {
                resolved.put(&format!("{path}.{key}"), value);
            }
        };
        section("server", server(config).list());
        for (name, config) in &config.keys {
            section(&format!("keys.{name}"), api_key(config).list());
        }
        for (name, config) in &config.models {
            section(&format!("models.{name}"), model(config).list());
        }
        for (path, config) in config.guards.iter() {
            section(&path, guard(config).list());
        }
        for (name, config) in &config.components {
            section(&format!("components.{name}"), component(config).list());
        }
        for (name, config) in &config.upstreams {
            section(&format!("upstreams.{name}"), upstream(config).list());
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

    /// Returns the upstreams' keys that differ in `after`. Their values are not shown.
    #[must_use]
    pub fn changed_secrets(before: &Config, after: &Config) -> Vec<Change> {
        let changed = before.upstreams.iter().filter(|(name, upstream)| {
            after
                .upstreams
                .get(*name)
                .is_some_and(|next| next.key_source == upstream.key_source && next.key != upstream.key)
        });
        let hidden = |words: &str| Some(words.to_owned());
        changed
            .map(|(name, _)| Change {
                key: format!("upstreams.{name}.key"),
                before: hidden("one key"),
                after: hidden("another key"),
            })
            .collect()
    }

    /// Sets the value of `key`.
    pub fn put(&mut self, key: &str, value: impl fmt::Display) {
        self.0.insert(key.to_owned(), value.to_string());
    }
}

// The sections are destructured, so that a new field cannot be forgotten, and the structs of their
// values have a field for every key of the table.

fn server(config: &Config) -> ServerValues {
    let Config {
        origin: _,
        lock: _,
        files: _,
        server,
        keys: _,
        sandbox,
        onnxruntime,
        models: _,
        components: _,
        guards: _,
        upstreams: _,
    } = config;
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
    let ConnectionLimits { max_connections, max_per_ip, max_header_bytes, header_time, idle_time, send_time } =
        connections;
    let SandboxOptions { instances, waiting, .. } = sandbox;
    let tls = tls.as_ref().map(|files| TlsValues {
        certificate: one(absolute(&files.certificate)),
        key: one(absolute(&files.key)),
    });
    ServerValues {
        listen: one(listen),
        unix_socket: optional(unix_socket.as_deref().map(absolute)),
        admin_listen: optional(*admin_listen),
        trusted_network: one(trusted_network),
        tls: tls.map(TlsValues::list).unwrap_or_default(),
        cors_origins: optional((!cors_origins.is_empty()).then(|| cors_origins.join(", "))),
        aliases: named(aliases),
        deadline_ms: milliseconds(*deadline),
        chat_deadline_ms: milliseconds(*chat_deadline),
        max_body_bytes: one(max_body_bytes),
        max_inputs: one(max_inputs),
        instances: one(instances),
        waiting: one(waiting),
        queue_ms: milliseconds(*queue_time),
        memory_bytes: optional(memory.as_ref().map(|contract| contract.bytes)),
        drain_ms: milliseconds(*drain),
        watch: one(watch),
        onnxruntime: match onnxruntime {
            Onnxruntime::Auto { .. } => one("auto"),
            Onnxruntime::Off => one("off"),
            Onnxruntime::Path(path) => one(absolute(path)),
        },
        connections: one(max_connections),
        connections_per_ip: one(max_per_ip),
        max_header_bytes: one(max_header_bytes),
        header_ms: milliseconds(*header_time),
        body_ms: milliseconds(*body_time),
        idle_ms: milliseconds(*idle_time),
        send_ms: milliseconds(*send_time),
        body_memory_bytes: one(body_memory_bytes),
        rate_per_ip: per_second(*rate_per_ip),
        burst_per_ip: burst(*rate_per_ip),
    }
}

fn api_key(config: &KeyConfig) -> ApiKeyValues {
    let KeyConfig { hash, components, models, rate, concurrency } = config;
    ApiKeyValues {
        hash: one(hash),
        components: optional(components.as_ref().map(list)),
        models: optional(models.as_ref().map(list)),
        rate: per_second(*rate),
        burst: burst(*rate),
        concurrency: optional(*concurrency),
    }
}

fn model(config: &ModelConfig) -> ModelValues {
    let ModelConfig { at: _, source, heads, options, reuse, keep_alive, next, previous } = config;
    let ModelOptions { sessions, threads, queue_capacity, max_batch, context_tokens, .. } = options;
    let ModelOptions { kv_bytes, kv_type, prefix_cache_bytes, .. } = options;
    let next = next.as_ref().map(|Next { at: _, source, trial }| {
        let source = one(resolve(source));
        let (percent, shadow, tolerance) = match trial {
            Trial::Canary { percent } => (one(percent), Values::new(), Values::new()),
            Trial::Shadow { tolerance } => (Values::new(), one(true), one(tolerance)),
        };
        NextValues { source, percent, shadow, tolerance }
    });
    ModelValues {
        source: one(resolve(source)),
        heads: named(heads.iter().map(|head| absolute(head)).enumerate()),
        sessions: optional(*sessions),
        threads: optional(*threads),
        queue_capacity: optional(*queue_capacity),
        max_batch: optional(*max_batch),
        context_tokens: optional(*context_tokens),
        kv_bytes: optional(*kv_bytes),
        kv_type: optional(kv_type.map(KvType::name)),
        prefix_cache_bytes: optional(*prefix_cache_bytes),
        keep_alive_ms: optional(keep_alive.map(|time| time.as_millis())),
        // Only on or off counts: `infer check` hashes files again that the server has already
        // verified.
        packed_cache: one(*reuse != Reuse::Off),
        next: next.map(NextValues::list).unwrap_or_default(),
        // Listed by itself, as that of `[chat.guard]`.
        guard: Values::new(),
        previous: optional(previous.as_ref()),
    }
}

fn guard(config: &GuardConfig) -> GuardValues {
    let GuardConfig { input, output, judges_system, windows, on_flag, on_error, .. } = config;
    let GuardConfig { blocked_input, refusal, redaction, categories, thresholds, .. } = config;
    let Windows { hold_back, stride, window } = windows;
    GuardValues {
        input: optional(input.as_ref()),
        output: optional(output.as_ref()),
        judge_system: one(judges_system),
        hold_back_tokens: one(hold_back),
        stride_tokens: one(stride),
        window_tokens: one(window),
        on_flag: one(on_flag.name()),
        on_error: one(on_error.name()),
        blocked_input: one(blocked_input.name()),
        refusal: one(refusal),
        redaction: one(redaction),
        categories: optional(categories.as_ref().map(list)),
        thresholds: named(thresholds),
    }
}

fn component(config: &ComponentConfig) -> ComponentValues {
    let ComponentConfig { at: _, source, route, models, settings, thresholds, limits, http, tests } = config;
    let HttpOptions { outbound, clock, random_seed } = http;
    let clock = match clock {
        ClockKind::System => "system",
        ClockKind::Frozen => "frozen",
    };
    ComponentValues {
        source: one(resolve(source)),
        route: optional(route.as_ref()),
        models: named(models),
        settings: named(settings),
        thresholds: thresholds.as_ref().map(|file| named(&file.thresholds)).unwrap_or_default(),
        limits: limits_values(limits).list(),
        allowed_outbound_hosts: named(outbound.iter().enumerate()),
        clock: one(clock),
        random_seed: optional(*random_seed),
        tests: named(tests.iter().enumerate()),
    }
}

fn limits_values(limits: &Limits) -> LimitsValues {
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
    LimitsValues {
        memory_bytes: one(memory_bytes),
        table_elements: one(table_elements),
        handles: one(handles),
        tensor_bytes: one(tensor_bytes),
        guest_ms: milliseconds(*guest_time),
        compute_ms: milliseconds(*compute_time),
        instances: optional(*instances),
        log_lines: one(log_lines),
        outbound_requests: one(outbound_requests),
    }
}

fn upstream(config: &UpstreamConfig) -> UpstreamValues {
    let UpstreamConfig { at: _, url, key_source, key: _, models, roots, private_addresses, .. } = config;
    let UpstreamConfig { times, connections, resilience, max_body_bytes, .. } = config;
    let UpstreamConfig { max_response_bytes, max_event_bytes, prices: [input, output], .. } = config;
    let Resilience { retries, retry_percent, breaker_failures, breaker_time } = resilience;
    let (file, variable) = match key_source {
        Some(KeySource::File(path)) => (Some(absolute(path)), None),
        Some(KeySource::Environment(name)) => (None, Some(name)),
        None => (None, None),
    };
    UpstreamValues {
        url: one(url),
        models: named(models),
        key_file: optional(file),
        key_env: optional(variable),
        ca_file: optional(roots.as_deref().map(absolute)),
        private_addresses: one(private_addresses),
        connect_ms: milliseconds(times.connect),
        first_byte_ms: milliseconds(times.first_byte),
        idle_ms: milliseconds(times.idle),
        connections: one(connections),
        retries: one(retries),
        retry_percent: one(retry_percent),
        breaker_failures: one(breaker_failures),
        breaker_ms: milliseconds(*breaker_time),
        max_body_bytes: one(max_body_bytes),
        max_response_bytes: one(max_response_bytes),
        max_event_bytes: one(max_event_bytes),
        input_price: optional(*input),
        output_price: optional(*output),
        // Listed by itself, as that of `[chat.guard]`.
        guard: Values::new(),
    }
}

fn one(value: impl fmt::Display) -> Values {
    vec![(String::new(), value.to_string())]
}

fn optional(value: Option<impl fmt::Display>) -> Values {
    value.map(one).unwrap_or_default()
}

fn named<N: fmt::Display, V: fmt::Display>(values: impl IntoIterator<Item = (N, V)>) -> Values {
    values.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn milliseconds(time: Duration) -> Values {
    one(time.as_millis())
}

fn per_second(rate: Option<Rate>) -> Values {
    optional(rate.map(|rate| rate.per_second))
}

fn burst(rate: Option<Rate>) -> Values {
    optional(rate.map(|rate| rate.burst))
}

impl Change {
    /// Returns true if the change needs a restart.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        SECTIONS.iter().any(|(section, keys)| {
            let name = self.key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
            keys.iter().any(|key| key.reload == Reload::Fixed && name == Some(key.name))
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |value: &str| {
            let line: String = value.escape_debug().take(MAX_VALUE_CHARACTERS).collect();
            if line.len() < value.len() { format!("{line}…") } else { line }
        };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{}: {} -> {}", self.key, short(before), short(after)),
            (None, Some(after)) => write!(f, "{}: new, {}", self.key, short(after)),
            (Some(before), None) => write!(f, "{}: gone, was {}", self.key, short(before)),
            (None, None) => f.write_str(&self.key),
        }
    }
}

fn resolve(source: &Source) -> String {
    match source {
        Source::Builtin(_) | Source::Hub(_) => source.to_string(),
        Source::Path(path) => absolute(path),
    }
}

/// Makes `path` absolute, because two processes may have different working folders.
fn absolute(path: &Path) -> String {
    std::path::absolute(path).as_deref().unwrap_or(path).display().to_string()
}
