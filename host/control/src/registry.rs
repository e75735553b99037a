//! The models and components of one configuration, loaded.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use infer_config::{Config, ModelConfig, Resolved};
use infer_engine::{Model, Runtime, Shadow, Weights};
use infer_sandbox::types::{Label, Part, Verdict};
use infer_sandbox::{Body, Component, Outcome, Sandbox, World};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::metrics::{Metrics, Recorder};

/// Everything that is loaded once. It is immutable: a changed configuration makes
/// [another](Registry::load_next), which shares the unchanged parts with this one.
pub struct Registry {
    /// The configuration that it was loaded from.
    pub config: Config,
    /// The ONNX backend in use.
    pub runtime: Arc<Runtime>,
    /// The WebAssembly engine.
    pub sandbox: Arc<Sandbox>,
    /// Models by name.
    pub models: BTreeMap<String, Arc<Model>>,
    /// Components by name.
    pub components: BTreeMap<String, Arc<LoadedComponent>>,
    /// Metrics since the program started; shared by all snapshots.
    pub metrics: Arc<Metrics>,
    /// A next version that answers a share of the requests.
    pub canary: Option<Canary>,
    /// Shadows by the names of their models.
    pub shadows: BTreeMap<String, Arc<Shadow>>,
}

/// A loaded component with its configuration.
pub struct LoadedComponent {
    /// The component, ready to be called.
    pub component: Component,
    /// SHA-256 of its bytes, in hexadecimal.
    pub hash: String,
    /// The path that it answers; `None` if it has no route.
    pub route: Option<String>,
    /// Records its calls in the metrics.
    pub calls: Recorder,
    /// Counts its calls for the comparison of versions.
    pub count: Count,
}

impl LoadedComponent {
    /// As [`Component::moderate`], and counts the call.
    pub async fn moderate(&self, request: &infer_sandbox::Request, parts: &[Part]) -> Outcome<Verdict> {
        let outcome = self.component.moderate(request, parts).await;
        self.calls.called(&outcome);
        self.count.called(&outcome.result.as_ref().map(|verdict| verdict.flagged));
        outcome
    }

    /// As [`Component::classify`], and counts the call.
    pub async fn classify(
        &self,
        request: &infer_sandbox::Request,
        image: &[u8],
        top: u32,
    ) -> Outcome<Vec<Label>> {
        let outcome = self.component.classify(request, image, top).await;
        self.calls.called(&outcome);
        self.count.called(&outcome.result.as_ref().map(|_| false));
        outcome
    }

    /// As [`Component::handle`], and counts the call.
    pub async fn handle(
        &self,
        request: &infer_sandbox::Request,
        incoming: http::Request<Bytes>,
        head: oneshot::Sender<http::Response<Body>>,
        gone: oneshot::Receiver<()>,
    ) -> Outcome<()> {
        let outcome = self.component.handle(request, incoming, head, gone).await;
        self.calls.called(&outcome);
        self.count.called(&outcome.result.as_ref().map(|()| false));
        outcome
    }
}

/// A loaded version of a model.
pub struct Version<'a> {
    /// The model's name in the configuration.
    pub name: &'a str,
    /// The configuration that it was loaded from.
    pub config: ModelConfig,
    /// The loaded model.
    pub model: &'a Arc<Model>,
}

/// A next version that answers a share of the requests. These are answered from a separate
/// [`Registry`], which shares everything but the model and the components that use it.
pub struct Canary {
    /// The model's name in the configuration.
    pub name: String,
    /// Share of the requests that it answers, in percent.
    pub percent: f64,
    /// The registry that answers them.
    pub registry: Arc<Registry>,
    drawn: AtomicU64,
    /// Calls of each component when the trial began: with the model, and with its next version.
    pub(crate) began: Vec<(String, [Tally; 2])>,
}

/// Counts calls; [`Tally`] is a reading of it.
#[derive(Debug, Default)]
pub struct Count {
    answered: AtomicU64,
    flagged: AtomicU64,
    failed: AtomicU64,
}

/// Number of calls of a component, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tally {
    /// Calls that were answered.
    pub answered: u64,
    /// Answered calls that a moderator flagged.
    pub flagged: u64,
    /// Calls that failed.
    pub failed: u64,
}

impl Registry {
    pub(crate) fn empty(
        config: Config,
        runtime: Arc<Runtime>,
        sandbox: Arc<Sandbox>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (models, components, shadows) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Registry { config, runtime, sandbox, models, components, metrics, canary: None, shadows }
    }

    /// Makes this the live registry: attaches shadows to its models and reports them in the
    /// metrics.
    pub fn activate(&self) {
        for (name, model) in &self.models {
            model.set_shadow(self.shadows.get(name).cloned());
        }
        let next: Vec<_> = self.next_versions().map(|version| version.model).collect();
        self.metrics.set_models(self.models.values(), &next);
    }

    /// Iterates over every model and every next version of one.
    pub fn versions(&self) -> impl Iterator<Item = Version<'_>> {
        let current = self.models.iter().filter_map(|(name, model)| {
            let config = self.config.models.get(name)?.clone();
            Some(Version { name, config: ModelConfig { next: None, previous: None, ..config }, model })
        });
        current.chain(self.next_versions())
    }

    /// Iterates over every next version of a model.
    pub fn next_versions(&self) -> impl Iterator<Item = Version<'_>> {
        self.config.models.iter().filter_map(|(name, model)| {
            let config = model.next_version()?;
            let canary = self.canary.as_ref().filter(|canary| canary.name == *name);
            let model = match canary {
                Some(canary) => canary.registry.models.get(name)?,
                None => self.shadows.get(name)?.next(),
            };
            Some(Version { name, config, model })
        })
    }

    /// Finds a serving model of this name with the same configuration and weights.
    pub(crate) fn find(&self, name: &str, config: &ModelConfig, weights: &Weights) -> Option<&Arc<Model>> {
        let fits = |version: &Version<'_>| {
            version.name == name
                && version.config.is_same(config)
                && version.model.hash() == weights.hash()
                && version.model.is_serving()
        };
        self.versions().find(fits).map(|version| version.model)
    }

    /// Returns its configuration as keys and values, with the hashes of models and components.
    #[must_use]
    pub fn resolved(&self) -> Resolved {
        let mut resolved = Resolved::of(&self.config);
        for (name, model) in &self.models {
            resolved.put(&format!("models.{name}.hash"), model.hash());
        }
        for version in self.next_versions() {
            resolved.put(&format!("models.{}.next.hash", version.model.name()), version.model.hash());
        }
        for (name, loaded) in &self.components {
            resolved.put(&format!("components.{name}.hash"), &loaded.hash);
        }
        resolved
    }

    /// Finds the component `name`, or the only one of `world` if there is no name.
    ///
    /// # Errors
    ///
    /// If no component fits, or several do and `name` does not choose one.
    pub fn component(&self, name: Option<&str>, world: World) -> anyhow::Result<&Arc<LoadedComponent>> {
        let fitting: Vec<_> =
            self.components.values().filter(|loaded| loaded.component.world() == world).collect();
        let names = || fitting.iter().map(|loaded| loaded.component.name()).collect::<Vec<_>>().join("`, `");
        match (name, fitting.as_slice()) {
            (Some(name), _) => {
                let found = fitting.iter().find(|loaded| loaded.component.name() == name);
                found.copied().with_context(|| {
                    format!("no {world} `{name}` in {}; expected one of `{}`", self.config.origin, names())
                })
            }
            (None, [only]) => Ok(only),
            (None, []) => anyhow::bail!("no {world} in {}; add one under [components]", self.config.origin),
            (None, _) => anyhow::bail!("choose a {world} with --component: `{}`", names()),
        }
    }
}

impl Canary {
    /// Begins a trial, or continues `old` if it tries the same model.
    pub fn new(
        name: String,
        percent: f64,
        registry: Arc<Registry>,
        current: &Registry,
        old: Option<&Canary>,
    ) -> Self {
        let began = old
            .filter(|old| {
                old.name == name && Arc::ptr_eq(&old.registry.models[&name], &registry.models[&name])
            })
            .map(|old| old.began.clone());
        let mut canary = Canary { name, percent, registry, drawn: AtomicU64::new(0), began: Vec::new() };
        canary.began = began.unwrap_or_else(|| {
            let pairs = canary.pairs(current);
            pairs.map(|(name, now, next)| (name.to_owned(), [now.count.read(), next.count.read()])).collect()
        });
        canary
    }

    /// Returns true if the canary answers the next request.
    pub fn takes_next(&self) -> bool {
        // The sequence is uniform over the range, in an order that clients cannot predict from
        // their own requests.
        let drawn = fastrand::Rng::with_seed(self.drawn.fetch_add(1, Ordering::Relaxed)).f64();
        drawn * 100.0 < self.percent
    }

    /// Pairs the components that use the model with those that use its next version.
    pub(crate) fn pairs<'a>(
        &'a self,
        current: &'a Registry,
    ) -> impl Iterator<Item = (&'a str, &'a LoadedComponent, &'a LoadedComponent)> {
        current.components.iter().filter_map(|(name, loaded)| {
            let next = self.registry.components.get(name)?;
            (!Arc::ptr_eq(loaded, next)).then_some((name.as_str(), &**loaded, &**next))
        })
    }
}

impl Count {
    /// Counts a call; `flagged` is its answer.
    pub(crate) fn called<E>(&self, flagged: &Result<bool, E>) {
        match flagged {
            Ok(flagged) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                self.flagged.fetch_add(u64::from(*flagged), Ordering::Relaxed);
            }
            Err(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn read(&self) -> Tally {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tally { answered: read(&self.answered), flagged: read(&self.flagged), failed: read(&self.failed) }
    }
}

impl Tally {
    pub(crate) fn since(self, began: Tally) -> Tally {
        Tally {
            answered: self.answered.saturating_sub(began.answered),
            flagged: self.flagged.saturating_sub(began.flagged),
            failed: self.failed.saturating_sub(began.failed),
        }
    }
}
