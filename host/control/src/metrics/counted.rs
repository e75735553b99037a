//! Metrics that are counted as events happen. To add one, add its entry to the table below, and the
//! line that counts it to [`Metrics`](super::Metrics) or [`Recorder`](super::Recorder).

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Upper bounds of durations, in seconds: a rejection takes microseconds, a long chat a minute.
const SECONDS: [f64; 18] = [
    5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0,
    60.0,
];

/// Upper bounds of the number of rows in a batch.
const ROWS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Upper bounds of a guest's memory and tensors, in bytes.
const BYTES: [f64; 10] = [
    4096.0,
    65536.0,
    1048576.0,
    2097152.0,
    4194304.0,
    8388608.0,
    16777216.0,
    33554432.0,
    67108864.0,
    134217728.0,
];

/// A family of histograms.
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Declares the families. An entry has the name without prefix and unit, the type, the labels, and
/// the help text. The module of the same name contains the type of its `Labels`.
macro_rules! metrics {
    ($($name:ident: $kind:ident { $($label:ident: $value:ty),* }, $help:literal;)*) => {
        /// All families. Clones share their values.
        #[derive(Clone)]
        pub(super) struct Counted {
            $(pub(super) $name: metrics!(@type $kind, $name::Labels),)*
        }

        impl Counted {
            /// Creates the families and registers them in the order of the table.
            pub(super) fn new(registry: &mut Registry) -> Self {
                let counted = Counted { $($name: metrics!(@new $kind),)* };
                $(metrics!(@register $kind, registry, stringify!($name), $help, counted.$name.clone());)*
                counted
            }
        }

        $(pub(super) mod $name {
            #[allow(unused_imports, reason = "not every metric has such a label")]
            use std::sync::Arc;

            /// Labels of one time series.
            #[derive(Clone, Debug, Hash, PartialEq, Eq, prometheus_client::encoding::EncodeLabelSet)]
            pub(crate) struct Labels {
                $(pub(crate) $label: $value,)*
            }
        })*
    };
    (@type Count, $labels:ty) => { Family<$labels, Counter> };
    (@type Amount, $labels:ty) => { Family<$labels, Counter<f64, AtomicU64>> };
    (@type State, $labels:ty) => { Family<$labels, Gauge> };
    (@type $histogram:ident, $labels:ty) => { Histograms<$labels> };
    (@new Count) => { Family::default() };
    (@new Amount) => { Family::default() };
    (@new State) => { Family::default() };
    (@new Seconds) => { Family::new_with_constructor(|| Histogram::new(SECONDS)) };
    (@new Rows) => { Family::new_with_constructor(|| Histogram::new(ROWS)) };
    (@new Bytes) => { Family::new_with_constructor(|| Histogram::new(BYTES)) };
    (@register Seconds, $registry:ident, $name:expr, $help:literal, $family:expr) => {
        $registry.register_with_unit($name, $help, Unit::Seconds, $family)
    };
    (@register Bytes, $registry:ident, $name:expr, $help:literal, $family:expr) => {
        $registry.register_with_unit($name, $help, Unit::Bytes, $family)
    };
    (@register $unitless:ident, $registry:ident, $name:expr, $help:literal, $family:expr) => {
        $registry.register($name, $help, $family)
    };
}

metrics! {
    requests: Count { route: String, status: u16 },
        "Requests that were answered, by route and status";
    request: Seconds { route: String },
        "Time from a request's head to the response's head; a stream continues after it";
    component_calls: Count { component: Arc<str>, outcome: &'static str },
        "Calls of a component: ok, fault, busy, deadline, wrong answers, and the causes of guests that were stopped";
    component_stage: Seconds { component: Arc<str>, stage: &'static str },
        "Stages of a call: queue, instantiation, guest, and models";
    component_batch_rows: Rows { component: Arc<str> },
        "Rows that a call's models computed together";
    component_events: Count { component: Arc<str>, event: String },
        "Calls of a component with an event that its guest counts, such as that a language model was asked";
    component_memory: Bytes { component: Arc<str> },
        "Peak memory of a call's guest";
    component_tensor: Bytes { component: Arc<str> },
        "Peak size of the tensors of a call";
    guard_texts: Count { component: Arc<str>, outcome: &'static str },
        "Texts of chats that a guard judged: clean, flagged, or error";
    guard_blocks: Count { component: Arc<str>, category: String },
        "Texts of chats that a guard flagged, by category";
    guard: Seconds { component: Arc<str> },
        "Time to judge a text of a chat";
    guard_held_tokens: Count { component: Arc<str> },
        "Tokens of answers that were held back and then sent";
    guard_delay: Seconds { component: Arc<str> },
        "Time for which a part of an answer was held back";
    upstream_requests: Count { upstream: Arc<str>, key: String, outcome: &'static str },
        "Requests to an upstream, by API key: ok, rejected, failed, timeout, open (circuit breaker), busy, cancelled";
    upstream_tokens: Count { upstream: Arc<str>, key: String, kind: &'static str },
        "Tokens that an upstream reported, by API key: input, output";
    upstream_cost: Amount { upstream: Arc<str>, key: String },
        "Cost of these tokens, in the currency of the configured prices";
    upstream_retries: Count { upstream: Arc<str> },
        "Requests that were sent to an upstream again";
    upstream_first_byte: Seconds { upstream: Arc<str> },
        "Time from sending a request to an upstream to the head of its response";
    upstream_breaker_state: State { upstream: Arc<str> },
        "Circuit breaker of an upstream: 0 closed, 1 probing, 2 open";
    reloads: Count { outcome: &'static str },
        "Changed configurations: applied, unchanged, or the step that failed: read, fixed, load, self_test";
}
