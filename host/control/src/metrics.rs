//! Counters and histograms exported at `/metrics`, in the text format of OpenMetrics. Names begin
//! with `infer_` and end with their unit.
//!
//! `counted` has the table of the metrics that are counted as events happen, `scraped` that of
//! those that are read at each scrape. Labels have few values: the routes of the route table, and
//! the configured components and models.

mod counted;
mod scraped;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use infer_engine::Model;
use infer_sandbox::{CallError, Outcome, RequestMemory};
use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::limits::MAX_EVENT_NAMES;
use counted::{
    Counted, component_batch_rows, component_calls, component_events, component_memory, component_stage,
    component_tensor, guard, guard_blocks, guard_delay, guard_held_tokens, guard_texts, reloads, request,
    requests,
};
pub use scraped::DROPPED_LOG_LINES;
use scraped::{LiveModels, Scraped};
pub use upstream::UpstreamRecorder;

/// Content type of the exposition format.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Label of events beyond the names that have one of their own.
const OTHER_EVENT: &str = "other";

/// All metrics of a server.
pub struct Metrics {
    exposition: Registry,
    counted: Counted,
    models: LiveModels,
    event_names: EventNames,
    written: Mutex<Option<Written>>,
}

/// Names of the events of each component.
type EventNames = Arc<std::sync::Mutex<BTreeMap<Arc<str>, BTreeSet<String>>>>;

/// The exposition that was encoded last; requests share it.
struct Written {
    began: Instant,
    /// Earliest time at which it is encoded again.
    next: Instant,
    text: Bytes,
}

/// Records the calls of one component.
#[derive(Clone)]
pub struct Recorder {
    component: Arc<str>,
    counted: Counted,
    event_names: EventNames,
}

impl Metrics {
    /// Creates the metrics. The bytes in use are read from `memory` at each scrape.
    #[must_use]
    pub fn new(memory: &RequestMemory, backend: &str) -> Self {
        let mut exposition = Registry::with_prefix("infer");
        let counted = Counted::new(&mut exposition);
        let build = vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("backend", backend.to_owned())];
        exposition.register("build", "The program", Info::new(build));
        let models = LiveModels::default();
        let scraped = Scraped { models: models.clone(), memory: memory.clone() };
        exposition.register_collector(Box::new(scraped));
        Metrics { exposition, counted, models, event_names: EventNames::default(), written: Mutex::default() }
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
        self.counted.reloads.get_or_create(&reloads::Labels { outcome }).inc();
    }

    /// Returns the recorder for the calls of `component`.
    #[must_use]
    pub fn recorder(&self, component: &str) -> Recorder {
        let (counted, event_names) = (self.counted.clone(), self.event_names.clone());
        Recorder { component: component.into(), counted, event_names }
    }

    /// Returns the recorder for the requests to the upstream `name`.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamRecorder {
        UpstreamRecorder::new(name, self.counted.clone())
    }

    /// Counts a request to `route`, a path of the route table.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        let route = || route.to_owned();
        self.counted.requests.get_or_create(&requests::Labels { route: route(), status }).inc();
        self.counted.request.get_or_create(&request::Labels { route: route() }).observe(took.as_secs_f64());
    }

    /// Returns all metrics as text. Concurrent scrapes share one result, and encoding takes at most
    /// a tenth of one thread's time, so clients may scrape as often as they like.
    ///
    /// # Errors
    ///
    /// If memory for the text cannot be allocated.
    pub async fn text(&self) -> Result<Bytes, fmt::Error> {
        let requested = Instant::now();
        let mut written = self.written.lock().await;
        if let Some(written) = written.as_ref().filter(|written| written.began >= requested) {
            return Ok(written.text.clone());
        }
        if let Some(written) = &*written {
            sleep_until(written.next).await;
        }
        let began = Instant::now();
        let mut text = String::new();
        text::encode(&mut text, &self.exposition)?;
        let next = Instant::now() + began.elapsed() * 9;
        let text = Bytes::from(text);
        *written = Some(Written { began, next, text: text.clone() });
        Ok(text)
    }
}

impl Recorder {
    /// Counts a call, what it used, and its events.
    pub fn called<T>(&self, Outcome { result, usage, annotations }: &Outcome<T>) {
        let Recorder { component, counted, .. } = self;
        let component = || component.clone();
        let outcome = match result {
            Ok(_) => "ok",
            Err(CallError::Fault { .. }) => "fault",
            Err(CallError::Answer { .. } | CallError::World { .. }) => "wrong_answer",
            Err(CallError::Stopped { cause, .. }) => cause.label(),
            Err(CallError::Deadline { .. }) => "deadline",
            Err(CallError::Busy { .. }) => "busy",
        };
        let labels = component_calls::Labels { component: component(), outcome };
        counted.component_calls.get_or_create(&labels).inc();
        let stages = [
            ("queue", usage.queue),
            ("instantiate", usage.instantiate),
            ("guest", usage.guest),
            ("compute", usage.compute),
        ];
        for (stage, took) in stages {
            let labels = component_stage::Labels { component: component(), stage };
            counted.component_stage.get_or_create(&labels).observe(took.as_secs_f64());
        }
        if usage.batch > 0 {
            let labels = component_batch_rows::Labels { component: component() };
            counted.component_batch_rows.get_or_create(&labels).observe(usage.batch as f64);
        }
        let labels = component_memory::Labels { component: component() };
        counted.component_memory.get_or_create(&labels).observe(usage.memory_bytes_peak as f64);
        let labels = component_tensor::Labels { component: component() };
        counted.component_tensor.get_or_create(&labels).observe(usage.tensor_bytes_peak as f64);
        self.count(&annotations.events);
    }

    /// Counts a text of a chat that was judged in `took`, with the categories that flagged it, or
    /// `None` if the call failed.
    pub fn guarded(&self, took: Duration, categories: Option<&[String]>) {
        let component = || self.component.clone();
        let outcome = match categories {
            Some([]) => "clean",
            Some(_) => "flagged",
            None => "error",
        };
        self.counted
            .guard_texts
            .get_or_create(&guard_texts::Labels { component: component(), outcome })
            .inc();
        let labels = guard::Labels { component: component() };
        self.counted.guard.get_or_create(&labels).observe(took.as_secs_f64());
        for category in categories.into_iter().flatten() {
            let category = if self.is_known(category) { category } else { OTHER_EVENT };
            let labels = guard_blocks::Labels { component: component(), category: category.to_owned() };
            self.counted.guard_blocks.get_or_create(&labels).inc();
        }
    }

    /// Counts tokens of an answer that were sent after `delay`.
    pub fn held(&self, tokens: usize, delay: Duration) {
        let component = || self.component.clone();
        let labels = guard_held_tokens::Labels { component: component() };
        self.counted.guard_held_tokens.get_or_create(&labels).inc_by(tokens as u64);
        let labels = guard_delay::Labels { component: component() };
        self.counted.guard_delay.get_or_create(&labels).observe(delay.as_secs_f64());
    }

    /// Counts the events of a call. The first names of a component have series of their own.
    fn count(&self, events: &BTreeSet<String>) {
        for event in events {
            let event = if self.is_known(event) { event } else { OTHER_EVENT };
            let labels =
                component_events::Labels { component: self.component.clone(), event: event.to_owned() };
            self.counted.component_events.get_or_create(&labels).inc();
        }
    }

    fn is_known(&self, event: &str) -> bool {
        let mut names = self.event_names.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.entry(self.component.clone()).or_default();
        names.contains(event) || (names.len() < MAX_EVENT_NAMES && names.insert(event.to_owned()))
    }
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

    #[tokio::test]
    async fn further_events_share_a_label() {
        let metrics = Metrics::new(&RequestMemory::default(), "none");
        for turn in 0..2 {
            // A recorder of a later load has the names of the first one.
            let recorder = metrics.recorder("a");
            for number in 0..MAX_EVENT_NAMES + 3 {
                recorder.count(&BTreeSet::from([format!("e{number}")]));
            }
            metrics.recorder("b").count(&BTreeSet::from([format!("turn:{turn}")]));
        }
        let text = String::from_utf8(metrics.text().await.unwrap().to_vec()).unwrap();
        for line in [
            r#"infer_component_events_total{component="a",event="e0"} 2"#,
            r#"infer_component_events_total{component="a",event="other"} 6"#,
            r#"infer_component_events_total{component="b",event="turn:1"} 1"#,
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains(&format!(r#"event="e{MAX_EVENT_NAMES}""#)), "{text}");
    }
}
