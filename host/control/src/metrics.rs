//! Counters and histograms exported at `/metrics`, in the text format of OpenMetrics. Names begin
//! with `infer_` and end with their unit.
//!
//! Labels have few values: the routes of the route table, and the configured components and models.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use infer_engine::{Comparison, LanguageModel, Model, Stats};
use infer_sandbox::{CallError, RequestMemory, Usage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Log lines of this process that were dropped because standard error was not read fast enough.
pub static DROPPED_LOG_LINES: AtomicU64 = AtomicU64::new(0);

/// Content type of the exposition format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// Registry of all metrics.
pub struct Metrics {
    registry: Registry,
    requests: Family<Answered, Counter>,
    seconds: Histograms<Asked>,
    calls: Calls,
    reloads: Family<Reloaded, Counter>,
    models: Served,
    written: Mutex<Option<Written>>,
}

/// The exposition that was encoded last; requests share it.
struct Written {
    began: Instant,
    /// Earliest time at which it is encoded again.
    next: Instant,
    text: Bytes,
}

/// The live models, each with true if it is another's next version. Weak references, so that
/// metrics do not keep a model in memory.
type Served = Arc<ArcSwap<Vec<(Weak<Model>, bool)>>>;

/// Metrics of all components.
#[derive(Clone)]
struct Calls {
    outcomes: Family<Called, Counter>,
    stages: Histograms<Staged>,
    batch: Histograms<Of>,
    memory: Histograms<Of>,
    tensors: Histograms<Of>,
}

/// Records the calls of one component.
#[derive(Clone)]
pub struct Recorder {
    component: Arc<str>,
    calls: Calls,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Asked {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Called {
    component: Arc<str>,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Staged {
    component: Arc<str>,
    stage: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reloaded {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Of {
    component: Arc<str>,
}

fn durations() -> Histogram {
    Histogram::new(SECONDS)
}

impl Metrics {
    /// Creates the registry. The bytes in use are read from `memory` at each scrape.
    #[must_use]
    pub fn new(memory: &RequestMemory, backend: &str) -> Self {
        let mut registry = Registry::with_prefix("infer");
        let requests: Family<Answered, Counter> = Family::default();
        registry.register("requests", "Requests that were answered, by route and status", requests.clone());
        let seconds = Histograms::<Asked>::new_with_constructor(durations);
        let help = "From a request's head to its answer's; a stream goes on behind it";
        registry.register_with_unit("request", help, Unit::Seconds, seconds.clone());
        let calls = Calls {
            outcomes: Family::default(),
            stages: Family::new_with_constructor(durations),
            batch: Family::new_with_constructor(|| Histogram::new(ROWS)),
            memory: Family::new_with_constructor(|| Histogram::new(BYTES)),
            tensors: Family::new_with_constructor(|| Histogram::new(BYTES)),
        };
        let help = "Calls of a component: ok, fault, busy, deadline, wrong answers, and the causes of guests that were stopped";
        registry.register("component_calls", help, calls.outcomes.clone());
        let help = "Stages of a call: waiting, making the instance, the guest, the models";
        registry.register_with_unit("component_stage", help, Unit::Seconds, calls.stages.clone());
        registry.register(
            "component_batch_rows",
            "Rows that a call's models computed together",
            calls.batch.clone(),
        );
        let help = "The most memory that a call's guest had";
        registry.register_with_unit("component_memory", help, Unit::Bytes, calls.memory.clone());
        let help = "The most tensors that the host held for a call at once";
        registry.register_with_unit("component_tensor", help, Unit::Bytes, calls.tensors.clone());
        let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("backend", backend.to_owned())];
        registry.register("build", "The program", Info::new(build));
        let reloads: Family<Reloaded, Counter> = Family::default();
        let help = "Changed configurations: applied, unchanged, or what failed: read, fixed, load, self_test";
        registry.register("reloads", help, reloads.clone());
        let models = Served::default();
        registry.register_collector(Box::new(Models(models.clone())));
        registry.register_collector(Box::new(Requests(memory.clone())));
        registry.register_collector(Box::new(Log));
        Metrics { registry, requests, seconds, calls, reloads, models, written: Mutex::default() }
    }

    /// Replaces the models that are reported with `models` and the next versions `next`. Their
    /// counters are read at each scrape.
    pub fn set_models<'m>(&self, models: impl Iterator<Item = &'m Arc<Model>>, next: &[&Arc<Model>]) {
        let current = models.map(|model| (Arc::downgrade(model), false));
        let next = next.iter().map(|model| (Arc::downgrade(model), true));
        self.models.store(Arc::new(current.chain(next).collect()));
    }

    /// Counts a reload by its outcome.
    pub fn reloaded(&self, outcome: &'static str) {
        self.reloads.get_or_create(&Reloaded { outcome }).inc();
    }

    /// Returns the recorder for the calls of `component`.
    #[must_use]
    pub fn recorder(&self, component: &str) -> Recorder {
        Recorder { component: component.into(), calls: self.calls.clone() }
    }

    /// Counts a request to `route`, a path of the route table.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        self.requests.get_or_create(&Answered { route: route.to_owned(), status }).inc();
        self.seconds.get_or_create(&Asked { route: route.to_owned() }).observe(took.as_secs_f64());
    }

    /// Returns all metrics as text. Concurrent scrapes share one result, and encoding takes at most
    /// a tenth of one thread's time, so clients may scrape as often as they like.
    ///
    /// # Errors
    ///
    /// If memory for the text cannot be allocated.
    pub async fn text(&self) -> Result<Bytes, fmt::Error> {
        let asked = Instant::now();
        let mut written = self.written.lock().await;
        if let Some(written) = written.as_ref().filter(|written| written.began >= asked) {
            return Ok(written.text.clone());
        }
        if let Some(written) = &*written {
            sleep_until(written.next).await;
        }
        let began = Instant::now();
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        let next = Instant::now() + began.elapsed() * 9;
        let text = Bytes::from(text);
        *written = Some(Written { began, next, text: text.clone() });
        Ok(text)
    }
}

impl Recorder {
    /// Counts a call that took `usage`.
    pub fn called<T>(&self, result: &Result<T, CallError>, usage: &Usage) {
        let Recorder { component, calls } = self;
        let outcome = match result {
            Ok(_) => "ok",
            Err(CallError::Fault { .. }) => "fault",
            Err(CallError::Answer { .. } | CallError::World { .. }) => "wrong_answer",
            Err(CallError::Stopped { cause, .. }) => cause.label(),
            Err(CallError::Deadline { .. }) => "deadline",
            Err(CallError::Busy { .. }) => "busy",
        };
        calls.outcomes.get_or_create(&Called { component: component.clone(), outcome }).inc();
        let stages = [
            ("queue", usage.queue),
            ("instantiate", usage.instantiate),
            ("guest", usage.guest),
            ("compute", usage.compute),
        ];
        for (stage, took) in stages {
            let staged = Staged { component: component.clone(), stage };
            calls.stages.get_or_create(&staged).observe(took.as_secs_f64());
        }
        let of = Of { component: component.clone() };
        if usage.batch > 0 {
            calls.batch.get_or_create(&of).observe(usage.batch as f64);
        }
        calls.memory.get_or_create(&of).observe(usage.memory_bytes_peak as f64);
        calls.tensors.get_or_create(&of).observe(usage.tensor_bytes_peak as f64);
    }
}

/// Collects the counters of models and of the process at each scrape.
struct Models(Served);

/// A counter or gauge of a model: name, help, unit, labels beyond the model's, and its value.
type Number = (&'static str, &'static str, &'static [(&'static str, fn(&Stats) -> u64)]);

const COUNTED: [Number; 4] = [
    (
        "model_jobs",
        "Jobs of a model: computed, failed, skipped since nobody waited for them any more, refused by a full queue",
        &[
            ("computed", |stats| stats.computed),
            ("failed", |stats| stats.failed),
            ("skipped", |stats| stats.skipped),
            ("refused", |stats| stats.busy),
        ],
    ),
    ("model_batches", "Computations of a model", &[("", |stats| stats.batches)]),
    ("model_rows", "Rows in them", &[("", |stats| stats.rows)]),
    (
        "model_tokens",
        "Tokens of a language model: of prompts, of these found computed, and generated",
        &[
            ("prompt", |stats| stats.prompt_tokens),
            ("cached", |stats| stats.cached_tokens),
            ("generated", |stats| stats.generated_tokens),
        ],
    ),
];

impl fmt::Debug for Models {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Models")
    }
}

impl Collector for Models {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let served = self.0.load();
        let models = served.iter().filter_map(|(model, is_next)| Some((model.upgrade()?, *is_next)));
        let models: Vec<_> = models.collect();
        let stats: Vec<_> = models.iter().map(|(model, is_next)| (model, is_next, model.stats())).collect();
        for (name, help, kinds) in COUNTED {
            let mut family = encoder.encode_descriptor(
                name,
                help,
                None,
                prometheus_client::metrics::MetricType::Counter,
            )?;
            for (model, is_next, stats) in &stats {
                for (kind, read) in kinds {
                    let mut labels = labels(model, **is_next);
                    labels.extend((!kind.is_empty()).then_some(("kind", *kind)));
                    ConstCounter::new(read(stats)).encode(family.encode_family(&labels.as_slice())?)?;
                }
            }
        }
        let queued = |model: &Arc<Model>| Some(model.queue_depth());
        let language =
            |model: &Arc<Model>, read: fn(&LanguageModel) -> usize| model.loaded()?.language().map(read);
        let used = |model: &Arc<Model>| language(model, LanguageModel::kv_tokens_used);
        let room = |model: &Arc<Model>| language(model, LanguageModel::kv_tokens);
        type Gauge<'g> = (&'static str, &'static str, &'g dyn Fn(&Arc<Model>) -> Option<usize>);
        let gauges: [Gauge<'_>; 3] = [
            ("model_queue_jobs", "Jobs that wait for a model", &queued),
            ("model_kv_tokens", "Tokens whose keys and values a language model holds", &used),
            ("model_kv_capacity_tokens", "Tokens that `kv_bytes` has room for", &room),
        ];
        let kind = prometheus_client::metrics::MetricType::Gauge;
        for (name, help, read) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for (model, is_next) in &models {
                let Some(value) = read(model) else { continue };
                ConstGauge::new(value as i64)
                    .encode(family.encode_family(&labels(model, *is_next).as_slice())?)?;
            }
        }
        compared(&models, &mut encoder)?;
        let resident =
            encoder.encode_descriptor("resident", "Memory of the process", Some(&Unit::Bytes), kind)?;
        ConstGauge::new(resident_bytes().unwrap_or(0) as i64).encode(resident)
    }
}

fn labels(model: &Model, is_next: bool) -> Vec<(&'static str, &str)> {
    let mut labels = vec![("model", model.name())];
    labels.extend(is_next.then_some(("version", "next")));
    labels
}

/// Encodes the comparisons of models with their shadows.
fn compared(models: &[(Arc<Model>, bool)], encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let found = models.iter().filter_map(|(model, _)| Some((model.name(), model.shadow()?.comparison())));
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Ok(());
    }
    let help = "Answers of a next version in the shadow: compared, disagreed (of those), failed, skipped for too many waited";
    let kind = prometheus_client::metrics::MetricType::Counter;
    let mut family = encoder.encode_descriptor("shadow_answers", help, None, kind)?;
    for (model, Comparison { compared, disagreed, failed, skipped, .. }) in &found {
        let counts =
            [("compared", compared), ("disagreed", disagreed), ("failed", failed), ("skipped", skipped)];
        for (kind, count) in counts {
            let labels = [("model", *model), ("kind", kind)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
    }
    let kind = prometheus_client::metrics::MetricType::Gauge;
    let help = "The largest difference of two values that a model and its next version answered";
    let mut family = encoder.encode_descriptor("shadow_difference_max", help, None, kind)?;
    for (model, comparison) in &found {
        let gauge = ConstGauge::new(comparison.largest_difference);
        gauge.encode(family.encode_family(&[("model", *model)])?)?;
    }
    let help =
        "The latest disagreements by a keyed hash of their inputs: the largest difference of two values";
    let mut family = encoder.encode_descriptor("shadow_disagreement", help, None, kind)?;
    for (model, comparison) in &found {
        // One input may disagree several times, but a series may appear only once.
        let latest: BTreeMap<_, _> =
            comparison.examples.iter().map(|example| (&*example.input, example.difference)).collect();
        for (input, difference) in latest {
            let labels = [("model", *model), ("input_hash", input)];
            ConstGauge::new(difference).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

/// Collects the memory that requests hold: bodies, tensors, and the growth of guests.
#[derive(Debug)]
struct Requests(RequestMemory);

impl Collector for Requests {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Requests(memory) = self;
        let gauges = [
            ("request_memory", "Memory that requests hold", Some(memory.used_bytes())),
            ("request_memory_peak", "The most memory that requests have held", Some(memory.peak_bytes())),
            (
                "request_memory_limit",
                "Memory that requests may hold under `memory_bytes`",
                memory.max_bytes(),
            ),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let kind = prometheus_client::metrics::MetricType::Gauge;
            let gauge = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), kind)?;
            ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(gauge)?;
        }
        Ok(())
    }
}

/// Collects the counters of this process's log.
#[derive(Debug)]
struct Log;

impl Collector for Log {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Log lines that were dropped, as standard error was not read fast enough";
        let kind = prometheus_client::metrics::MetricType::Counter;
        let counter = encoder.encode_descriptor("log_lines_dropped", help, None, kind)?;
        ConstCounter::new(DROPPED_LOG_LINES.load(Ordering::Relaxed)).encode(counter)
    }
}

/// Resident set size of this process, in bytes.
fn resident_bytes() -> Option<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn concurrent_scrapes_share_one_encoding() {
        let metrics = Metrics::new(&RequestMemory::default(), "none");
        let first = metrics.text().await.unwrap();
        let (one, other) = tokio::join!(metrics.text(), metrics.text());
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.as_ptr(), other.as_ptr());
        assert_ne!(first.as_ptr(), one.as_ptr());
        metrics.reloaded("applied");
        let text = String::from_utf8(metrics.text().await.unwrap().to_vec()).unwrap();
        assert!(text.contains(r#"infer_reloads_total{outcome="applied"} 1"#), "{text}");
    }
}
