//! The live snapshot, and its replacement when the configuration changes, while requests continue.
//!
//! A `Registry` is everything that a request may use: models, components, routes, keys, limits. A
//! request takes the live one when its head has arrived and keeps it to its end, so an answer comes
//! from exactly one snapshot. A reload builds the next one beside it and loads only the parts that
//! have changed. It runs the self-tests, swaps the snapshot atomically, and unloads the parts that
//! are no longer used when the last request that uses them has ended. A failure before the swap
//! changes nothing.
//!
//! # Layout
//!
//! - `drain`: unloads a replaced snapshot once its requests have ended
//! - `self_test`: tests models and components before they are served

mod drain;
pub mod self_test;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use drain::Retired;
pub use drain::take_when_sole_owner;
use infer_config::{Change, Config, Resolved};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info};
use utoipa::ToSchema;

use crate::registry::{Registry, Version};

/// Reads the configuration again, for a reload.
pub type Read = Box<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// Publishes the next [`Registry`] to the listeners; called at the moment when it becomes live.
pub type Publish = Box<dyn Fn(&Arc<Registry>) + Send + Sync>;

/// The live [`Registry`], and its replacement by a reload.
pub struct Live {
    current: ArcSwap<Registry>,
    /// `None` for a registry that is never replaced.
    read: Option<Read>,
    publish: Publish,
    /// Held across loading, so only one reload runs at a time. Each waits until the previous one
    /// has drained, so at most two registries are in memory.
    turn: Mutex<Option<JoinHandle<()>>>,
}

/// Outcome of a reload that succeeded.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// True if the reload changed the live snapshot.
    pub applied: bool,
    /// Configuration keys and hashes that have changed.
    pub changes: Vec<Change>,
    /// Names of the models that were loaded for it; the others are shared with the previous
    /// snapshot.
    pub models: Vec<String>,
    /// Names of the components that were loaded for it.
    pub components: Vec<String>,
    /// Time from reading the configuration to the swap.
    pub took_ms: u64,
}

/// A reload that failed; the live snapshot is unchanged.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error:#}; the live configuration is unchanged", step = .step.words())]
pub struct ReloadError {
    /// The step that failed.
    pub step: Step,
    /// The problem, and the remedy.
    pub error: anyhow::Error,
}

/// The steps of a reload that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reads the configuration.
    Read,
    /// Rejects changes that need a restart.
    Fixed,
    /// Verifies and loads models and components.
    Load,
    /// Runs the self-tests.
    SelfTest,
}

impl Step {
    fn label(self) -> &'static str {
        match self {
            Step::Read => "read",
            Step::Fixed => "fixed",
            Step::Load => "load",
            Step::SelfTest => "self_test",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Read => "invalid configuration",
            Step::Fixed => "a restart is required",
            Step::Load => "loading failed",
            Step::SelfTest => "a self-test failed",
        }
    }

    fn refuse(self, error: impl Into<anyhow::Error>) -> ReloadError {
        ReloadError { step: self, error: error.into() }
    }
}

impl Live {
    /// Serves `registry`. A reload calls `read` for the next configuration and `publish` with the
    /// next registry. Without `read`, every reload fails.
    #[must_use]
    pub fn new(registry: Arc<Registry>, read: Option<Read>, publish: Publish) -> Arc<Self> {
        Arc::new(Live { current: ArcSwap::new(registry), read, publish, turn: Mutex::new(None) })
    }

    /// Returns the live registry.
    #[must_use]
    pub fn registry(&self) -> Arc<Registry> {
        self.current.load_full()
    }

    /// Reads the configuration again and replaces the live registry. The reload runs to its end
    /// even if the caller stops waiting. The outcome is logged and counted.
    ///
    /// # Errors
    ///
    /// If a step fails, which leaves the live registry unchanged.
    pub async fn reload(self: &Arc<Self>) -> Result<Report, ReloadError> {
        let live = self.clone();
        let outcome = tokio::spawn(async move { live.turn().await }).await;
        let outcome = outcome.unwrap_or_else(|failure| Err(Step::Load.refuse(failure)));
        let registry = self.registry();
        let metrics = &registry.metrics;
        match &outcome {
            Ok(Report { applied: false, .. }) => {
                metrics.reloaded("unchanged");
                info!("the configuration is unchanged");
            }
            Ok(report) => {
                metrics.reloaded("applied");
                for change in &report.changes {
                    info!("{change}");
                }
                let (models, components) = (report.models.join(","), report.components.join(","));
                info!(took_ms = report.took_ms, models, components, "configuration reloaded");
            }
            Err(refused) => {
                metrics.reloaded(refused.step.label());
                error!(step = refused.step.label(), "{refused}");
            }
        }
        outcome
    }

    async fn turn(self: Arc<Self>) -> Result<Report, ReloadError> {
        let mut turn = self.turn.lock().await;
        if let Some(draining) = turn.take() {
            // Without this wait, versions could pile up in memory. It ends, because requests have
            // deadlines.
            let _ = draining.await;
        }
        let began = Instant::now();
        let old = self.registry();
        let prepare = {
            let (live, old) = (self.clone(), old.clone());
            move || live.prepare(&old)
        };
        let prepared = spawn_blocking(prepare).await.map_err(|failure| Step::Load.refuse(failure))?;
        let Some((registry, changes)) = prepared? else {
            let took_ms = began.elapsed().as_millis() as u64;
            let (models, components) = (Vec::new(), Vec::new());
            return Ok(Report { applied: false, changes: Vec::new(), models, components, took_ms });
        };
        if let Err(error) = self_test::run(&registry, Some(&old)).await {
            drain::unload(registry, old);
            return Err(Step::SelfTest.refuse(error));
        }
        let registry = Arc::new(registry);
        let is_new =
            |version: &Version<'_>| old.versions().all(|before| !Arc::ptr_eq(before.model, version.model));
        let models = registry.versions().filter(is_new).map(|version| version.name.to_owned()).collect();
        let components = registry.components.iter().filter(|(name, loaded)| {
            old.components.get(*name).is_none_or(|before| !Arc::ptr_eq(before, loaded))
        });
        let components = components.map(|(name, _)| name.clone()).collect();
        let retired = Retired::new(&old, &registry);
        drop(old);
        (self.publish)(&registry);
        let old = self.current.swap(registry.clone());
        registry.activate();
        *turn = Some(tokio::spawn(retired.drain(old, registry)));
        let took_ms = began.elapsed().as_millis() as u64;
        Ok(Report { applied: true, changes, models, components, took_ms })
    }

    /// Reads the configuration and loads it beside `old`. Returns the new registry and the changes,
    /// or `None` if nothing has changed.
    fn prepare(&self, old: &Registry) -> Result<Option<(Registry, Vec<Change>)>, ReloadError> {
        let read = self.read.as_ref().ok_or_else(|| {
            Step::Read.refuse(anyhow::anyhow!("the server has no configuration file to reload"))
        })?;
        let config = read().map_err(|error| Step::Read.refuse(error))?;
        let changes = Resolved::of(&old.config).changes(&Resolved::of(&config));
        let fixed: Vec<_> =
            changes.iter().filter(|change| change.is_fixed()).map(ToString::to_string).collect();
        if !fixed.is_empty() {
            let fixed = fixed.join("; ");
            let error = anyhow::anyhow!("{fixed}; start the server again, or put back what was there before");
            return Err(Step::Fixed.refuse(error));
        }
        let registry = old.load_next(config).map_err(|error| Step::Load.refuse(error))?;
        let mut changes = old.resolved().changes(&registry.resolved());
        changes.extend(Resolved::changed_secrets(&old.config, &registry.config));
        Ok((!changes.is_empty()).then_some((registry, changes)))
    }

    /// Releases everything and waits until `deadline` for computations in flight, which use memory
    /// that dropping a model unmaps. Returns false if any was still running at the deadline.
    pub async fn unload(self: Arc<Self>, deadline: Instant) -> bool {
        let unloaded = async {
            let live = take_when_sole_owner(self, deadline).await?;
            if let Some(draining) = live.turn.into_inner() {
                tokio::time::timeout_at(deadline.into(), draining).await.ok()?.ok()?;
            }
            let registry = take_when_sole_owner(live.current.into_inner(), deadline).await?;
            tokio::time::timeout_at(deadline.into(), spawn_blocking(move || drop(registry))).await.ok()?.ok()
        };
        unloaded.await.is_some()
    }
}
