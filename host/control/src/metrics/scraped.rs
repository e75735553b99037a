//! Metrics that are read at each scrape: of models, of the process, of requests' memory and of the
//! log. To add one, add its entry to [`SCRAPED`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use infer_engine::{Comparison, LanguageModel, Model, Stats};
use infer_sandbox::RequestMemory;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Log lines of this process that were dropped because standard error was not read fast enough.
pub static DROPPED_LOG_LINES: AtomicU64 = AtomicU64::new(0);

/// The live models, each with true if it is another's next version. Weak references, so that
/// metrics do not keep a model in memory.
pub(super) type LiveModels = Arc<ArcSwap<Vec<(Weak<Model>, bool)>>>;

/// Samples of one metric, each with its labels.
type Samples<V> = Vec<(Vec<(&'static str, String)>, V)>;

/// A metric that is read at each scrape.
struct Metric {
    /// Name without prefix and unit.
    name: &'static str,
    help: &'static str,
    /// True if the unit is bytes; the other metrics have none.
    is_bytes: bool,
    /// True if the metric is left out while it has no samples.
    is_optional: bool,
    read: Read,
}

/// The type of a metric, and the function that reads it.
enum Read {
    Counter(fn(&Scrape, &mut Samples<u64>)),
    /// A gauge of whole numbers.
    Gauge(fn(&Scrape, &mut Samples<i64>)),
    /// A gauge of fractions.
    Fraction(fn(&Scrape, &mut Samples<f64>)),
}

/// The metrics in the order of the exposition.
const SCRAPED: [Metric; 15] = [
    metric(
        "model_jobs",
        "Jobs of a model: computed, failed, skipped because no client waited for them, refused by a full queue",
        Read::Counter(|scrape, samples| {
            scrape.count(samples, "computed", |stats| stats.computed);
            scrape.count(samples, "failed", |stats| stats.failed);
            scrape.count(samples, "skipped", |stats| stats.skipped);
            scrape.count(samples, "refused", |stats| stats.busy);
        }),
    ),
    metric(
        "model_batches",
        "Computations of a model",
        Read::Counter(|scrape, samples| scrape.count(samples, "", |stats| stats.batches)),
    ),
    metric(
        "model_rows",
        "Rows of all computations of a model",
        Read::Counter(|scrape, samples| scrape.count(samples, "", |stats| stats.rows)),
    ),
    metric(
        "model_tokens",
        "Tokens of a language or text model: of prompts, of these found in the cache, generated, and of padding",
        Read::Counter(|scrape, samples| {
            scrape.count(samples, "prompt", |stats| stats.prompt_tokens);
            scrape.count(samples, "cached", |stats| stats.cached_tokens);
            scrape.count(samples, "generated", |stats| stats.generated_tokens);
            scrape.count(samples, "padding", |stats| stats.padding_tokens);
        }),
    ),
    metric(
        "model_queue_jobs",
        "Jobs that wait for a model",
        Read::Gauge(|scrape, samples| scrape.gauge(samples, |model| Some(model.queue_depth()))),
    ),
    metric(
        "model_kv_tokens",
        "Tokens whose keys and values a language model stores",
        Read::Gauge(|scrape, samples| {
            scrape.gauge(samples, |model| language(model, LanguageModel::kv_tokens_used));
        }),
    ),
    metric(
        "model_kv_capacity_tokens",
        "Maximum number of tokens in `kv_bytes`",
        Read::Gauge(|scrape, samples| {
            scrape.gauge(samples, |model| language(model, LanguageModel::kv_tokens));
        }),
    ),
    optional(metric(
        "shadow_answers",
        "Answers of a shadow version: compared, disagreed (of those), failed, skipped because the queue was full",
        Read::Counter(|scrape, samples| {
            for (model, Comparison { compared, disagreed, failed, skipped, .. }) in &scrape.comparisons {
                let counts = [
                    ("compared", compared),
                    ("disagreed", disagreed),
                    ("failed", failed),
                    ("skipped", skipped),
                ];
                for (kind, count) in counts {
                    samples.push((vec![("model", model.clone()), ("kind", kind.to_owned())], *count));
                }
            }
        }),
    )),
    optional(metric(
        "shadow_difference_max",
        "Largest difference of two values of a model and its next version",
        Read::Fraction(|scrape, samples| {
            for (model, comparison) in &scrape.comparisons {
                samples.push((vec![("model", model.clone())], comparison.largest_difference));
            }
        }),
    )),
    optional(metric(
        "shadow_disagreement",
        "Latest disagreements by a keyed hash of their inputs: the largest difference of two values",
        Read::Fraction(|scrape, samples| {
            for (model, comparison) in &scrape.comparisons {
                // One input may disagree several times, but a series may appear only once.
                let latest: BTreeMap<_, _> =
                    comparison.examples.iter().map(|example| (&*example.input, example.difference)).collect();
                for (input, difference) in latest {
                    let labels = vec![("model", model.clone()), ("input_hash", input.to_owned())];
                    samples.push((labels, difference));
                }
            }
        }),
    )),
    bytes(metric(
        "resident",
        "Memory of the process",
        Read::Gauge(|_, samples| samples.push((Vec::new(), whole(resident_bytes().unwrap_or(0))))),
    )),
    bytes(metric(
        "request_memory",
        "Memory of requests in flight",
        Read::Gauge(|scrape, samples| samples.push((Vec::new(), whole(scrape.memory.used_bytes())))),
    )),
    bytes(metric(
        "request_memory_peak",
        "Peak memory of requests in flight",
        Read::Gauge(|scrape, samples| samples.push((Vec::new(), whole(scrape.memory.peak_bytes())))),
    )),
    bytes(optional(metric(
        "request_memory_limit",
        "Maximum memory of requests under `memory_bytes`",
        Read::Gauge(|scrape, samples| {
            samples.extend(scrape.memory.max_bytes().map(|max| (Vec::new(), whole(max))));
        }),
    ))),
    metric(
        "log_lines_dropped",
        "Log lines that were dropped, because standard error was not read fast enough",
        Read::Counter(|_, samples| samples.push((Vec::new(), DROPPED_LOG_LINES.load(Ordering::Relaxed)))),
    ),
];

const fn metric(name: &'static str, help: &'static str, read: Read) -> Metric {
    Metric { name, help, is_bytes: false, is_optional: false, read }
}

const fn bytes(metric: Metric) -> Metric {
    Metric { is_bytes: true, ..metric }
}

const fn optional(metric: Metric) -> Metric {
    Metric { is_optional: true, ..metric }
}

/// The state that one scrape reads.
struct Scrape {
    /// The live models, each with true if it is another's next version.
    models: Vec<(Arc<Model>, bool, Stats)>,
    /// Names of the models with a shadow version, and the comparison with it.
    comparisons: Vec<(String, Comparison)>,
    memory: RequestMemory,
}

impl Scrape {
    /// Adds a counter of each model, with the label `kind` unless that is empty.
    fn count(&self, samples: &mut Samples<u64>, kind: &str, read: fn(&Stats) -> u64) {
        for (model, is_next, stats) in &self.models {
            let mut labels = labels(model, *is_next);
            labels.extend((!kind.is_empty()).then(|| ("kind", kind.to_owned())));
            samples.push((labels, read(stats)));
        }
    }

    /// Adds a gauge of each model that has it.
    fn gauge(&self, samples: &mut Samples<i64>, read: fn(&Arc<Model>) -> Option<usize>) {
        for (model, is_next, _) in &self.models {
            samples.extend(read(model).map(|value| (labels(model, *is_next), whole(value))));
        }
    }
}

fn labels(model: &Model, is_next: bool) -> Vec<(&'static str, String)> {
    let mut labels = vec![("model", model.name().to_owned())];
    labels.extend(is_next.then(|| ("version", "next".to_owned())));
    labels
}

fn language(model: &Arc<Model>, read: fn(&LanguageModel) -> usize) -> Option<usize> {
    model.loaded()?.language().map(read)
}

fn whole(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Collects all metrics of [`SCRAPED`].
pub(super) struct Scraped {
    pub(super) models: LiveModels,
    pub(super) memory: RequestMemory,
}

impl fmt::Debug for Scraped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scraped")
    }
}

impl Collector for Scraped {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let live = self.models.load();
        let models = live.iter().filter_map(|(model, is_next)| Some((model.upgrade()?, *is_next)));
        let models: Vec<_> = models.map(|(model, is_next)| (model.clone(), is_next, model.stats())).collect();
        let comparisons = models
            .iter()
            .filter_map(|(model, ..)| Some((model.name().to_owned(), model.shadow()?.comparison())));
        let comparisons = comparisons.collect();
        let scrape = Scrape { models, comparisons, memory: self.memory.clone() };
        for metric in &SCRAPED {
            match metric.read {
                Read::Counter(read) => metric.encode(&scrape, read, &mut encoder, ConstCounter::new)?,
                Read::Gauge(read) => metric.encode(&scrape, read, &mut encoder, ConstGauge::new)?,
                Read::Fraction(read) => metric.encode(&scrape, read, &mut encoder, ConstGauge::new)?,
            }
        }
        Ok(())
    }
}

impl Metric {
    fn encode<V, M: EncodeMetric>(
        &self,
        scrape: &Scrape,
        read: fn(&Scrape, &mut Samples<V>),
        encoder: &mut DescriptorEncoder<'_>,
        metric: fn(V) -> M,
    ) -> fmt::Result {
        let mut samples = Vec::new();
        read(scrape, &mut samples);
        if self.is_optional && samples.is_empty() {
            return Ok(());
        }
        let kind = match self.read {
            Read::Counter(_) => MetricType::Counter,
            Read::Gauge(_) | Read::Fraction(_) => MetricType::Gauge,
        };
        let unit = self.is_bytes.then_some(&Unit::Bytes);
        let mut family = encoder.encode_descriptor(self.name, self.help, unit, kind)?;
        if let Some((labels, _)) = samples.first()
            && labels.is_empty()
        {
            return samples.pop().map_or(Ok(()), |(_, value)| metric(value).encode(family));
        }
        for (labels, value) in samples {
            metric(value).encode(family.encode_family(&labels.as_slice())?)?;
        }
        Ok(())
    }
}

/// Resident set size of this process, in bytes.
fn resident_bytes() -> Option<usize> {
    let pages: usize = std::fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size())
}
