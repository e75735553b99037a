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
mod watch;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};
use utoipa::ToSchema;

use crate::app::App;
use crate::config::{Change, Config, Resolved};
use crate::routes::{self, RequestContext};
use crate::serve::Listeners;
use crate::versions::Version;
use drain::Retired;

pub use watch::{rest, watch};

/// Where a configuration is read again.
pub type Read = Box<dyn Fn() -> anyhow::Result<Config> + Send + Sync>;

/// What is served now.
pub struct Live {
    current: ArcSwap<Snapshot>,
    /// None for what is served as it was made, and never replaced.
    read: Option<Read>,
    /// The address of the operator's listener, where there is one.
    admin: Option<SocketAddr>,
    stopping: AtomicBool,
    /// One reload at a time, each after the last one's end: at most two snapshots are in memory.
    /// Held across loading.
    turn: Mutex<Option<JoinHandle<()>>>,
}

/// What requests of one moment are answered from.
struct Snapshot {
    app: Arc<App>,
    context: Arc<RequestContext>,
    public: Router,
    admin: Router,
    /// The routes of the requests that a canary answers.
    canary: Option<Router>,
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
    /// Serve `app` from now on, and what `read` says at each reload. Requests are handled on the
    /// runtime that this is called on.
    #[must_use]
    pub fn new(app: Arc<App>, listeners: &Listeners, read: Option<Read>) -> Arc<Self> {
        let admin = listeners.admin_address();
        Arc::new_cyclic(|live: &Weak<Live>| {
            let context = RequestContext::new(app.clone(), live.clone());
            Live {
                current: ArcSwap::from_pointee(Snapshot::new(app, context, admin)),
                read,
                admin,
                stopping: AtomicBool::new(false),
                turn: Mutex::new(None),
            }
        })
    }

    /// The routes of this moment, the operator's or everybody's.
    pub fn router(&self, admin: bool) -> Router {
        let current = self.current.load();
        let router = match (&current.canary, &current.app.canary) {
            _ if admin => &current.admin,
            (Some(router), Some(canary)) if canary.draws() => router,
            _ => &current.public,
        };
        router.clone()
    }

    /// What is served at this moment.
    #[must_use]
    pub fn app(&self) -> Arc<App> {
        self.current.load().app.clone()
    }

    /// From now on the server says that it is not ready.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
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
        let metrics = &self.current.load().app.metrics;
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
        let context = self.current.load().context.next(app.clone());
        let next = Arc::new(Snapshot::new(app.clone(), context, self.admin));
        let old = self.current.swap(next);
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
        let changes = Resolved::of_app(old).changes(&Resolved::of_app(&app));
        Ok((!changes.is_empty()).then_some((app, changes)))
    }

    /// Let go of everything, and wait for what still computes, for as long as `most`: a computation
    /// under way holds memory that the model's end unmaps.
    pub async fn unload(self: Arc<Self>, most: Duration) {
        let until = Instant::now() + most;
        let unloaded = async {
            let live = drain::own(self, until).await?;
            if let Some(draining) = live.turn.into_inner() {
                tokio::time::timeout_at(until.into(), draining).await.ok()?.ok()?;
            }
            let Snapshot { app, .. } = drain::own(live.current.into_inner(), until).await?;
            let app = drain::own(app, until).await?;
            tokio::time::timeout_at(until.into(), spawn_blocking(move || drop(app))).await.ok()?.ok()
        };
        if unloaded.await.is_none() {
            warn!("a request or a model still runs; it is not waited for");
        }
    }
}

impl Snapshot {
    fn new(app: Arc<App>, context: RequestContext, admin: Option<SocketAddr>) -> Self {
        let context = Arc::new(context);
        let public = routes::router(&context, admin.is_some());
        let operators = routes::admin(&context, admin);
        let canary = app.canary.as_ref().map(|canary| {
            let context = Arc::new(context.next(canary.app.clone()));
            routes::router(&context, admin.is_some())
        });
        Snapshot { app, context, public, admin: operators, canary }
    }
}
