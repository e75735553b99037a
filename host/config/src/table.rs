//! The keys of infer.toml: type, range, default, reload rule and documentation of each. This table
//! is the only source of parsing, checks, `infer check --diff`, the reload rules and the lists of
//! keys in docs/CONFIGURATION.md, which `make docs` writes.

use std::ops::Bound::{Excluded, Included};

use infer_sandbox::Limits as GuestLimits;

use crate::key::{DefaultValue, Entry, Key, Kind, Reload, Values, presence, section, types};
use crate::setting::Setting;

mod chat;

pub(crate) use chat::{Chat, Guard, GuardValues};

/// Longest duration of most keys, in milliseconds.
const HOUR: u64 = 3_600_000;

/// Defaults of the sandbox.
const GUEST: GuestLimits = GuestLimits::DEFAULT;

/// The sections, by their paths. `NAME` is a name that the configuration chooses.
pub(crate) const SECTIONS: [(&str, &[Key]); 11] = [
    ("server", Server::KEYS),
    ("server.tls", Tls::KEYS),
    ("keys.NAME", ApiKey::KEYS),
    ("models.NAME", Model::KEYS),
    ("models.NAME.next", Next::KEYS),
    ("chat", Chat::KEYS),
    ("chat.guard", Guard::KEYS),
    ("components.NAME", Component::KEYS),
    ("components.NAME.limits", Limits::KEYS),
    ("components.NAME.tests", Test::KEYS),
    ("upstreams.NAME", Upstream::KEYS),
];

section! {
    /// `[server]`
    #[derive(Default)]
    Server, ServerValues {
        /// Address or [name](#names) of the public listener. An address of another interface needs
        /// keys or `trusted_network`, see [Authentication and
        /// listeners](#authentication-and-listeners).
        listen: Address = Text("127.0.0.1:8080"), Fixed;
        /// A socket beside `listen`, for its owner and group. Limits by address do not apply to it;
        /// keys do.
        unix_socket: Path = Unset, Fixed;
        /// Address or [name](#names) of [the operator's listener](#the-operators-listener).
        admin_listen: Address = Unset, Fixed;
        /// Accepts requests without a key from every client that reaches the listeners.
        trusted_network: Boolean = Flag(false), Live;
        /// [TLS](#tls) on `listen`: `{ certificate = "cert.pem", key = "key.pem" }`.
        tls: Table<Tls> = Unset, Fixed;
        /// Origins such as `"https://app.example"` whose pages may call the server and read its
        /// responses, or `"*"`. Never applies to `/healthz`, `/readyz` and `/metrics`.
        cors_origins: List = Unset, Live;
        /// `{ "name" = "component" }`: additional names of moderators for the `model` of
        /// `/v1/moderations`.
        aliases: Map<types::Text> = Unset, Live;

        /// Maximum duration of a request.
        deadline_ms: Milliseconds(1..=HOUR) = Number(5_000), Live;
        /// Maximum duration of a request to `/v1/chat/completions` or `/v1/completions`.
        chat_deadline_ms: Milliseconds(1..=HOUR) = Number(120_000), Live;
        /// Maximum size of a request body.
        max_body_bytes: Bytes(1..=1 << 30) = Number(10 << 20), Live;
        /// Maximum number of inputs of one `/moderate` request.
        max_inputs: Count(1..=65_536) = Number(128), Live;
        /// Guest instances at any one time.
        instances: Count(1..=1_000) = Number(32), Live;
        /// Inputs that may wait for an instance; beyond it requests get 429.
        waiting: Count(0..=65_536) = Number(256), Live;
        /// Maximum expected wait of an input, estimated from recent ones; beyond it requests get
        /// 429. Admitted requests wait up to this time. 10 keeps latency under overload close to
        /// the idle latency; a larger value rejects less of a burst.
        queue_ms: Milliseconds(1..=HOUR) = Derived("a twentieth of `deadline_ms`"), Live;
        /// Memory limit of the process. Whatever does not fit is rejected at start; requests beyond
        /// the rest get 429. See [Memory](#memory).
        memory_bytes: Bytes(32 << 20..=1 << 44) = Unset, Live;

        /// Time for requests in flight to finish after SIGTERM.
        drain_ms: Milliseconds(1..=HOUR) = Number(10_000), Live;
        /// Reloads when this file, its lock or a file that it names has changed and then stayed
        /// unchanged for a second. See [Reload](#reload).
        watch: Boolean = Flag(false), Live;
        /// `auto`, `off`, or the path of a libonnxruntime 1.24 or later. `ORT_DYLIB_PATH` takes
        /// precedence. `auto` searches the cache folder (`INFER_CACHE`, else
        /// `$XDG_CACHE_HOME/infer`, else `~/.cache/infer`) and the system's library folders.
        onnxruntime: Text = Text("auto"), Fixed;

        /// Open connections. Beyond it, an idle connection is closed for the new one; without an
        /// idle one, the new connection gets 429 and is closed. The number is reduced, with a log
        /// line, if the process may not open as many files.
        connections: Count(1..=1_000_000) = Number(1_024), Fixed;
        /// Open connections of one address, by default no more than `connections`. An address is an
        /// IPv4 address or an IPv6 network of 64 bits. Beyond it as for `connections`.
        connections_per_ip: Count(1..=1_000_000) = Number(256), Fixed;
        // hyper's read buffer has at least 8 KiB.
        /// Maximum size of a request head; beyond it 431.
        max_header_bytes: Bytes(8 << 10..=1 << 20) = Number(32 << 10), Fixed;
        /// Maximum time of a TLS handshake and of each request head; the connection is closed. A
        /// body must bring at least 4 KB in this time; else 408.
        header_ms: Milliseconds(1..=HOUR) = Number(10_000), Fixed;
        /// Maximum time of a body; beyond it 408.
        body_ms: Milliseconds(1..=HOUR) = Derived("`deadline_ms`"), Live;
        /// A connection without a request for this time is closed.
        idle_ms: Milliseconds(1..=HOUR) = Number(60_000), Fixed;
        /// A client must read at least 4 KB of a response in this time, and all of it within this
        /// time after the deadline. Otherwise the HTTP/2 stream is reset or the connection closed.
        send_ms: Milliseconds(1..=HOUR) = Number(10_000), Fixed;
        /// Memory of all request bodies, at least `max_body_bytes`; beyond it 429. A body without
        /// progress for 500 ms is dropped for another one, with 408. A client with several bodies
        /// at once leaves an eighth of the memory that others leave free.
        body_memory_bytes: Bytes(1..=1 << 40) = Number(128 << 20), Live;
        /// Requests per second of one address; beyond it, and the burst, 429. Health checks do not
        /// count.
        rate_per_ip: Count(1..=1_000_000) = Unset, Live;
        /// Requests of one address in a burst, before `rate_per_ip` applies.
        burst_per_ip: Count(1..=1_000_000) = Derived("`rate_per_ip`"), Live;
    }
}

section! {
    /// `[server.tls]`
    Tls, TlsValues {
        /// PEM file with the certificate and its intermediates.
        certificate: Path = Required, Fixed;
        /// PEM file with the certificate's private key.
        key: Path = Required, Fixed;
    }
}

section! {
    /// `[keys.NAME]`
    ApiKey, ApiKeyValues {
        /// `sha256:` and 64 hexadecimal digits, as `infer key new` prints it.
        hash: Text = Required, Live;
        /// Components that the key may use.
        components: List = Derived("all"), Live;
        /// Models that it may name in requests, also those of [upstreams](#upstreamsname).
        /// `/v1/models` lists what a key may use.
        models: List = Derived("all"), Live;
        /// Requests per second; beyond it, and the burst, 429.
        rate: Count(1..=1_000_000) = Unset, Live;
        /// Requests in a burst, before `rate` applies.
        burst: Count(1..=1_000_000) = Derived("`rate`"), Live;
        /// Requests in flight; beyond it 429.
        concurrency: Count(1..=65_536) = Unset, Live;
    }
}

section! {
    /// `[models.NAME]`
    Model, ModelValues {
        /// `builtin:` and a name from the table below, a folder with a [card.toml](#cards), a GGUF
        /// file, whatever its name, or `hub:OWNER/NAME@REVISION`, which `infer pull`
        /// [imports](#imported-models).
        source: Text = Required, Live;
        /// Files of [heads](#heads) for an encoder, as `infer train` writes them. A label or
        /// category that the model's card already has is replaced.
        heads: List = Unset, Live;
        /// Concurrent computations. For a language model they share each pass, and a component
        /// without one in flight may start one more. An ONNX model with neither `sessions` nor
        /// `threads` has one more session, with all cores: it computes while no other does, and
        /// takes the memory of one.
        sessions: Count(1..=64) = Derived("number of cores, 16 for language models"), Live;
        /// Threads of one computation.
        threads: Count(1..=256) = Derived("1, number of cores for language models"), Live;
        /// Waiting jobs; beyond it requests get 429.
        queue_capacity: Count(1..=65_536) = Derived("64"), Live;
        /// Rows computed together, if the card says `batch_axis = 0`; for a language model, tokens.
        max_batch: Count(1..=4_096) = Derived("8, 128 for language models"), Live;
        /// Maximum tokens of a session of a language model, prompt and answer together.
        context_tokens: Count(16..=1 << 20) = Derived("4096"), Live;
        /// Memory for keys and values of a language model, including cached prefixes: 1,024 tokens
        /// of Phi-3 Mini, 14,000 of Qwen2.5 1.5B. `infer check` warns if it is less than one
        /// context. The two built-in policies have about 1,240 tokens with Phi-3: 805306368 (2,048
        /// tokens) keeps both, and posts may have 800; with less each question displaces the other.
        kv_bytes: Bytes(1 << 20..=1 << 40) = Derived("402653184"), Live;
        /// Type of keys and values: `f16`, or `int8` for 1.8 times as many tokens in `kv_bytes`,
        /// with [a small loss](BENCHMARKS.md#int8-keys-and-values).
        kv_type: Text = Derived("`f16`"), Live;
        /// Keeps keys and values of a language model's pinned prefixes, such as policies, in the
        /// cache folder, in at most this size, so that a restart does not compute them again; see
        /// [Files kept for later starts](#files-kept-for-later-starts). Needs `packed_cache`.
        prefix_cache_bytes: Bytes(1 << 20..=1 << 40) = Unset, Live;
        // The minimum keeps a model loaded between two requests of one client.
        /// Unloads the model after this time without a request, and loads it again for the next
        /// one. Requests wait for that, up to `queue_capacity` of them and until their deadlines.
        /// By default the model stays loaded.
        keep_alive_ms: Milliseconds(1_000..=7 * 24 * HOUR) = Unset, Live;
        /// Keeps a language model's packed weights in the cache folder for later starts, as large
        /// as the model's file; see [Files kept for later starts](#files-kept-for-later-starts).
        packed_cache: Boolean = Flag(true), Live;
        /// A second version, [tried beside it](#two-versions-of-a-model).
        next: Table<Next> = Unset, Live;
        /// [Moderators of its chats](#guards-of-chats), instead of those of `[chat.guard]`. An
        /// empty section switches them off.
        guard: Table<Guard> = Unset, Live;
        /// Written by `infer promote` for `infer rollback`; not loaded.
        previous: Text = Unset, Live;
    }
}

section! {
    /// `next` of `[models.NAME]`
    Next, NextValues {
        /// As the model's `source`.
        source: Text = Required, Live;
        /// Share of requests that a canary answers, in percent.
        percent: Real(Excluded(0.0), Included(100.0)) = Unset, Live;
        /// Tries the version as a shadow, which gets the same inputs, and whose outputs are only
        /// compared.
        shadow: Boolean = Flag(false), Live;
        // Probabilities that differ by less seldom lead to another decision.
        /// Largest difference of two values at which a shadow's outputs agree.
        tolerance: Real(Excluded(0.0), Excluded(f64::INFINITY)) = Real(0.05), Live;
    }
}

section! {
    /// `[components.NAME]`
    Component, ComponentValues {
        /// `builtin:` and `classify`, `moderate` or `predict`; or the file of a component.
        source: Text = Required, Live;
        /// The path that it serves. Without one, only the command line reaches it.
        route: Text = Unset, Live;
        /// `{ name-in-the-guest = "model" }`: the models that it may use, and no others.
        models: Map<types::Text> = Unset, Live;
        /// Strings, numbers and booleans that the guest reads through `wasi:config/store`.
        settings: Map<Setting> = Unset, Live;
        /// File of thresholds that [`infer calibrate`](#calibrated-thresholds) wrote. They become
        /// the settings `threshold.CATEGORY`, and hold for the component, settings and models that
        /// they were fitted to; with others the configuration is rejected.
        thresholds: Path = Unset, Live;
        /// Limits of each instance, see below.
        limits: Table<Limits> = Unset, Live;
        /// Hosts that an HTTP component may call, each as `scheme://host[:port]`. The scheme is
        /// `http`, `https` or `*`. The host is a name, `*.` and a name for those below it, an IP
        /// address, a network such as `10.0.0.0/8`, or `*`. The port is a number or `*`; without
        /// one, the default port of the scheme.
        allowed_outbound_hosts: List = Unset, Live;
        /// Clock of an HTTP component. With `"frozen"` its clocks show the time at which the
        /// instance was made.
        clock: Text = Text("system"), Live;
        /// Seed of all random numbers of an HTTP component, the same for each request. Without one
        /// they come from the system.
        random_seed: Integer = Unset, Live;
        /// [Self-tests](#self-tests).
        tests: Tables<Test> = Unset, Live;
    }
}

section! {
    /// `[components.NAME.limits]`
    #[derive(Default)]
    Limits, LimitsValues {
        // At least one page; at most the size that the pool reserves for a memory.
        /// Linear memory. Beyond it memory does not grow; most guests then trap.
        memory_bytes: Bytes(65_536..=4 << 30) = Number(GUEST.memory_bytes as u64), Live;
        // An instruction on a table cannot be interrupted while it runs. With a million elements it
        // takes some milliseconds.
        /// Elements of each table. Beyond it tables do not grow.
        table_elements: Count(1..=1_000_000) = Number(GUEST.table_elements as u64), Live;
        /// Live resource handles. Beyond it the guest is stopped.
        handles: Count(1..=1_000_000) = Number(GUEST.handles as u64), Live;
        /// Tensors in the host at any one time, and data of one call. Beyond it the guest is
        /// stopped.
        tensor_bytes: Bytes(1_024..=4 << 30) = Number(GUEST.tensor_bytes as u64), Live;
        /// Processor time of the guest, without waiting for models. Beyond it the guest is stopped,
        /// with 504.
        guest_ms: Milliseconds(1..=HOUR) = Number(GUEST.guest_time.as_millis() as u64), Live;
        /// Time in models, including their queues. Beyond it wasi:nn returns `timeout`.
        compute_ms: Milliseconds(1..=HOUR) = Number(GUEST.compute_time.as_millis() as u64), Live;
        /// Instances of this component at any one time, out of `server.instances`. Further requests
        /// get 429, so a component that waits does not use up the others' instances.
        instances: Count(1..=1_000) = Derived("all"), Live;
        /// Log lines of a request. Further lines are dropped. A line is cut at 1,024 bytes.
        log_lines: Count(0..=1_000_000) = Number(GUEST.log_lines as u64), Live;
        /// Requests that an HTTP component sends. Further ones are denied.
        outbound_requests: Count(0..=1_000) = Number(GUEST.outbound_requests as u64), Live;
    }
}

section! {
    /// `[[components.NAME.tests]]`
    Test, TestValues {
        /// Text of the request.
        input: Text = Unset, Live;
        /// Image of the request: a path, or a `data:` URL in base64. A test has `input`, `image` or
        /// both.
        image: Text = Unset, Live;
        /// Expected verdict of a moderator.
        flagged: Boolean = Unset, Live;
        /// Expected scores of a moderator by category, each from 0 to 1.
        scores: Map<types::Real> = Unset, Live;
        /// Expected first label of a classifier.
        label: Text = Unset, Live;
        /// Maximum difference of a score.
        tolerance: Real(Included(0.0), Included(1.0)) = Real(0.01), Live;
    }
}

section! {
    /// `[upstreams.NAME]`
    Upstream, UpstreamValues {
        /// Base of the paths, such as `"https://llm.example/v1"`. `http` is permitted for
        /// `localhost`, loopback and private IP addresses, and with `private_addresses`.
        url: Text = Required, Live;
        /// `{ "name-here" = "name-there" }`: the names that clients send in `model`, and the
        /// upstream's.
        models: Map<types::Text> = Required, Live;
        /// File with the upstream's API key.
        key_file: Path = Unset, Live;
        /// Variable of the server's environment with the upstream's API key.
        key_env: Text = Unset, Live;
        /// PEM file of the root certificates to trust, instead of the system's.
        ca_file: Path = Unset, Live;
        /// Permits loopback and private addresses, also if `url` names neither `localhost` nor one.
        private_addresses: Boolean = Flag(false), Live;
        /// Maximum time to resolve the name, to connect and to agree on TLS.
        connect_ms: Milliseconds(1..=HOUR) = Number(5_000), Live;
        /// Maximum time from then to the head of the response. The head of an answer that is not
        /// streamed arrives when all of it has been generated.
        first_byte_ms: Milliseconds(1..=HOUR) = Number(60_000), Live;
        /// Maximum time between two parts of a response.
        idle_ms: Milliseconds(1..=HOUR) = Number(30_000), Live;
        /// Connections, each with one request in flight; beyond it requests get 429. Idle
        /// connections are kept for a minute.
        connections: Count(1..=1_024) = Number(64), Live;
        /// Maximum number of retries of one request, before the first byte of its response, if the
        /// connection failed or for the statuses 429, 502, 503 and 504.
        retries: Count(0..=10) = Number(2), Live;
        /// Retries of all requests, in percent of them. Ten more are permitted after a time without
        /// retries.
        retry_percent: Real(Included(0.0), Included(100.0)) = Real(20.0), Live;
        /// Consecutive failures that open the circuit breaker.
        breaker_failures: Count(1..=1_000) = Number(5), Live;
        /// Time for which requests then fail at once. After it a single request tries again.
        breaker_ms: Milliseconds(1..=HOUR) = Number(10_000), Live;
        /// Maximum size of a request's body; beyond it 413.
        max_body_bytes: Bytes(1..=1 << 30) = Derived("that of the server"), Live;
        /// Maximum size of a response, streamed or not.
        max_response_bytes: Bytes(1_024..=1 << 30) = Number(16 << 20), Live;
        /// Maximum size of one event of a stream.
        max_event_bytes: Bytes(1_024..=16 << 20) = Number(1 << 20), Live;
        /// Price of a million tokens of requests, in any currency, for the metric of costs.
        input_price: Real(Included(0.0), Included(1e6)) = Unset, Live;
        /// Price of a million tokens of responses.
        output_price: Real(Included(0.0), Included(1e6)) = Unset, Live;
        /// [Moderators of its chats](#guards-of-chats), instead of those of `[chat.guard]`.
        guard: Table<Guard> = Unset, Live;
    }
}

#[cfg(test)]
mod tests;
