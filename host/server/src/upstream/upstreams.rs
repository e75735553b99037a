//! The upstreams of a configuration, with their connections and their state.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::HeaderValue;
use infer_config::Config;
use infer_config::upstream::UpstreamConfig;
use infer_control::metrics::{Metrics, UpstreamRecorder};
use tokio::sync::Semaphore;

use super::breaker::{Breaker, State};
use super::connection::{Connector, Resolver, system_resolver};
use super::pool::Pool;
use super::retry::Budget;

/// All upstreams of a configuration.
#[derive(Default)]
pub(crate) struct Upstreams {
    by_name: BTreeMap<String, Arc<Upstream>>,
}

/// An upstream: its connections and its state.
pub(crate) struct Upstream {
    pub(crate) name: Arc<str>,
    pub(crate) config: UpstreamConfig,
    /// Records its requests in the metrics.
    pub(crate) counts: UpstreamRecorder,
    pub(super) connector: Connector,
    /// One for each connection.
    pub(super) slots: Arc<Semaphore>,
    pub(super) pool: Arc<Pool>,
    pub(super) breaker: Arc<Breaker>,
    pub(super) budget: Budget,
    /// Value of the header `Host`.
    pub(super) host: HeaderValue,
    /// Value of the header `Authorization`.
    pub(super) authorization: Option<HeaderValue>,
}

impl Upstreams {
    /// The upstreams of `config`. Those with the same configuration in `before` are kept, with
    /// their connections and their state.
    pub(crate) fn new(config: &Config, metrics: &Metrics, before: &Upstreams) -> Self {
        let upstream = |(name, config): (&String, &UpstreamConfig)| {
            let kept = before.by_name.get(name).filter(|kept| kept.config.is_same(config));
            let upstream = kept.cloned().unwrap_or_else(|| {
                Arc::new(Upstream::new(name, config, metrics.upstream(name), system_resolver()))
            });
            (name.clone(), upstream)
        };
        Upstreams { by_name: config.upstreams.iter().map(upstream).collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Finds the upstream with the model that clients call `model`, and the upstream's name of it.
    pub(crate) fn find(&self, model: &str) -> Option<(&Arc<Upstream>, &str)> {
        self.by_name
            .values()
            .find_map(|upstream| Some((upstream, upstream.config.models.get(model)?.as_str())))
    }

    /// Iterates over the names of all models, each with its upstream.
    pub(crate) fn models(&self) -> impl Iterator<Item = (&str, &Arc<Upstream>)> {
        self.by_name
            .values()
            .flat_map(|upstream| upstream.config.models.keys().map(move |model| (model.as_str(), upstream)))
    }
}

impl Upstream {
    fn new(name: &str, config: &UpstreamConfig, counts: UpstreamRecorder, resolver: Resolver) -> Self {
        let gauge = counts.clone();
        let report = move |state: State| {
            gauge.breaker(match state {
                State::Closed { .. } => 0,
                State::Probing => 1,
                State::Open { .. } => 2,
            });
        };
        // The configuration permits only visible ASCII in both.
        let authorization = config.key.as_ref().and_then(|key| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", key.reveal())).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Upstream {
            name: name.into(),
            counts,
            connector: Connector::new(config, resolver),
            slots: Arc::new(Semaphore::new(config.connections)),
            pool: Arc::default(),
            breaker: Breaker::new(&config.resilience, Box::new(report)),
            budget: Budget::new(config.resilience.retry_percent),
            host: HeaderValue::try_from(config.url.authority())
                .unwrap_or(HeaderValue::from_static("localhost")),
            authorization,
            config: config.clone(),
        }
    }
}
