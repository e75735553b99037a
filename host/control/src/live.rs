//! What is served now, and its replacement by what a changed configuration says, while requests go
//! on.
//!
//! A `Snapshot` is everything that a request may meet: models, components, routes, keys, limits.
//! Each request takes one when its head has come and keeps it to its end, so an answer comes from
//! exactly one. A reload makes the next one beside it, of which only what has changed is loaded;
//! tests it; puts it in place in one step; and unloads what has gone when the last request that
//! knows it has ended. Whatever fails before that step leaves everything as it was.
//!
//! # Layout
//!
//! - `drain`: the end of what is served no more; `watch`: reloading when files change, and
//!   unloading what nobody asks
//! - `self_test`: what models and components are asked before they are served

mod drain;
pub mod self_test;

use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use drain::Retired;
pub use drain::own;
use infer_config::{Change, Config, Resolved};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info};
use utoipa::ToSchema;

use crate::registry::{App, Version};

/// Where a configuration is read again.
pub type Read = Box<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// Called with the next [`App`] at the moment from which it is served.
pub type Publish = Box<dyn Fn(&Arc<App>) + Send + Sync>;

/// The [`App`] that is served now, and its replacement.
pub struct Live {
    current: ArcSwap<App>,
    /// None for an app that is never replaced.
    read: Option<Read>,
    publish: Publish,
    /// One reload at a time, each after the last one's end: at most two apps are in memory.
    /// Held across loading.
    turn: Mutex<Option<JoinHandle<()>>>,
}

/// What a reload did.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Report {
    /// Whether anything is served that was not before.
    pub applied: bool,
    /// What has changed.
    pub changes: Vec<Change>,
    /// Names of models that were loaded for it; the others are the same as before.
    pub models: Vec<String>,
    /// Names of components that were loaded for it.
    pub components: Vec<String>,
    /// From the reading of the configuration to the step that put it in place.
    pub took_ms: u64,
}

/// Why everything stays as it was.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error:#}; what was served before is served on", step = .step.words())]
pub struct Refused {
    /// How far it came.
    pub step: Step,
    /// What is wrong, and the way out.
    pub error: anyhow::Error,
}

/// The steps of a reload that may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Reading the configuration.
    Read,
    /// Comparing what only a restart changes.
    Fixed,
    /// Verifying and loading models and components.
    Load,
    /// Asking them.
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
            Step::Read => "the configuration cannot be used",
            Step::Fixed => "the server has to be started again for it",
            Step::Load => "not everything loads",
            Step::SelfTest => "a self-test failed",
        }
    }

    fn refuse(self, error: impl Into<anyhow::Error>) -> Refused {
        Refused { step: self, error: error.into() }
    }
}

impl Live {
    /// Serves `app` from now on, and after each reload what `read` returns, which `publish` hands
    /// to the listeners.
    #[must_use]
    pub fn new(app: Arc<App>, read: Option<Read>, publish: Publish) -> Arc<Self> {
        Arc::new(Live { current: ArcSwap::new(app), read, publish, turn: Mutex::new(None) })
    }

    /// The app that is served at this moment.
    #[must_use]
    pub fn app(&self) -> Arc<App> {
        self.current.load_full()
    }

    /// Read the configuration again, and serve what it says. It goes on to its end also where its
    /// caller does not wait, and is told in the log and counted either way.
    ///
    /// # Errors
    ///
    /// What is wrong; everything is as it was.
    pub async fn reload(self: &Arc<Self>) -> Result<Report, Refused> {
        let live = self.clone();
        let outcome = tokio::spawn(async move { live.turn().await }).await;
        let outcome = outcome.unwrap_or_else(|failure| Err(Step::Load.refuse(failure)));
        let app = self.app();
        let metrics = &app.metrics;
        match &outcome {
            Ok(Report { applied: false, .. }) => {
                metrics.reloaded("unchanged");
                info!("the configuration says what is served already");
            }
            Ok(report) => {
                metrics.reloaded("applied");
                for change in &report.changes {
                    info!("{change}");
                }
                let (models, components) = (report.models.join(","), report.components.join(","));
                info!(took_ms = report.took_ms, models, components, "the changed configuration is served");
            }
            Err(refused) => {
                metrics.reloaded(refused.step.label());
                error!(step = refused.step.label(), "{refused}");
            }
        }
        outcome
    }

    async fn turn(self: Arc<Self>) -> Result<Report, Refused> {
        let mut turn = self.turn.lock().await;
        if let Some(draining) = turn.take() {
            // Its requests have deadlines, so this ends; were it not waited for, versions could
            // pile up in memory.
            let _ = draining.await;
        }
        let began = Instant::now();
        let old = self.app();
        let prepare = {
            let (live, old) = (self.clone(), old.clone());
            move || live.prepare(&old)
        };
        let prepared = spawn_blocking(prepare).await.map_err(|failure| Step::Load.refuse(failure))?;
        let Some((app, changes)) = prepared? else {
            let took_ms = began.elapsed().as_millis() as u64;
            let (models, components) = (Vec::new(), Vec::new());
            return Ok(Report { applied: false, changes: Vec::new(), models, components, took_ms });
        };
        if let Err(error) = self_test::run(&app, Some(&old)).await {
            drain::unload(app, old);
            return Err(Step::SelfTest.refuse(error));
        }
        let app = Arc::new(app);
        let is_new =
            |version: &Version<'_>| old.versions().all(|before| !Arc::ptr_eq(before.model, version.model));
        let models = app.versions().filter(is_new).map(|version| version.name.to_owned()).collect();
        let components = app.components.iter().filter(|(name, policy)| {
            old.components.get(*name).is_none_or(|before| !Arc::ptr_eq(before, policy))
        });
        let components = components.map(|(name, _)| name.clone()).collect();
        let retired = Retired::new(&old, &app);
        drop(old);
        (self.publish)(&app);
        let old = self.current.swap(app.clone());
        app.take_over();
        *turn = Some(tokio::spawn(retired.drain(old, app)));
        let took_ms = began.elapsed().as_millis() as u64;
        Ok(Report { applied: true, changes, models, components, took_ms })
    }

    /// What the configuration says now, loaded beside `old`, and what has changed; nothing where
    /// nothing has.
    fn prepare(&self, old: &App) -> Result<Option<(App, Vec<Change>)>, Refused> {
        let read = self.read.as_ref().ok_or_else(|| {
            Step::Read.refuse(anyhow::anyhow!("this server was started without a configuration to read"))
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
        let app = old.next(config).map_err(|error| Step::Load.refuse(error))?;
        let changes = old.resolved().changes(&app.resolved());
        Ok((!changes.is_empty()).then_some((app, changes)))
    }

    /// Releases everything and waits until `deadline` for running computations, which hold memory
    /// that the end of a model unmaps. False if something still ran then.
    pub async fn unload(self: Arc<Self>, deadline: Instant) -> bool {
        let unloaded = async {
            let live = own(self, deadline).await?;
            if let Some(draining) = live.turn.into_inner() {
                tokio::time::timeout_at(deadline.into(), draining).await.ok()?.ok()?;
            }
            let app = own(live.current.into_inner(), deadline).await?;
            tokio::time::timeout_at(deadline.into(), spawn_blocking(move || drop(app))).await.ok()?.ok()
        };
        unloaded.await.is_some()
    }
}
