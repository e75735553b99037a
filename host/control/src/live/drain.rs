//! The end of what is served no more: it goes when the last request that knows it has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_engine::Model;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::reclaim::reclaim;
use crate::registry::App;

/// How often it is looked whether anybody is left.
const LOOK: Duration = Duration::from_millis(10);

/// How long requests may hold what is served no more before the log says so.
const LONG: Duration = Duration::from_secs(60);

/// The models of one version that the next has not.
pub(super) struct Retired {
    models: Vec<Arc<Model>>,
}

impl Retired {
    pub(super) fn new(old: &App, new: &App) -> Self {
        let is_kept = |model: &Arc<Model>| new.versions().any(|kept| Arc::ptr_eq(kept.model, model));
        let gone = old.versions().map(|version| version.model).filter(|model| !is_kept(model));
        Retired { models: gone.cloned().collect() }
    }

    /// Wait until nobody is left, then unload.
    ///
    /// The last of each is let go here: a model's end waits for its threads, which belongs on no
    /// thread of requests.
    pub(super) async fn drain(self, old: Arc<App>, next: Arc<App>) {
        let began = Instant::now();
        let mut app = alone(old).await;
        let canary = match app.canary.take() {
            Some(canary) => Some(alone(canary.app).await),
            None => None,
        };
        // Components hold models too, and a shadow is asking one.
        let _ = spawn_blocking(move || drop((app, canary))).await;
        for model in self.models {
            let name = model.name().to_owned();
            let model = alone(model).await;
            let _ = spawn_blocking(move || drop(model)).await;
            info!(model = name, drained_ms = began.elapsed().as_millis() as u64, "unloaded");
        }
        let settle = move || {
            reclaim();
            settle(&next);
        };
        let _ = spawn_blocking(settle).await;
    }
}

/// Unload what was never served, beside `old`.
pub(super) fn unload(app: App, old: Arc<App>) {
    spawn_blocking(move || {
        drop(app);
        reclaim();
        settle(&old);
    });
}

fn settle(app: &App) {
    if let Err(error) = app.alone() {
        warn!(
            "requests keep the smaller share of memory that they had while two versions were there: {error:#}"
        );
    }
}

/// What is shared, once nobody else has it.
async fn alone<T>(shared: Arc<T>) -> T {
    let mut shared = shared;
    let mut due = Instant::now() + LONG;
    loop {
        match Arc::try_unwrap(shared) {
            Ok(own) => return own,
            Err(others) => shared = others,
        }
        if Instant::now() > due {
            warn!("requests hold what is served no more; it stays in memory until they end");
            due += LONG;
        }
        sleep(LOOK).await;
    }
}

/// The same, where that comes about before `until`.
pub async fn own<T>(shared: Arc<T>, until: Instant) -> Option<T> {
    tokio::time::timeout_at(until.into(), alone(shared)).await.ok()
}
