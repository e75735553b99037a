//! Unloads a replaced snapshot once the last request that uses it has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use infer_engine::Model;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::reclaim::reclaim;
use crate::registry::Registry;

/// Interval between checks whether a snapshot is still in use.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Time after which requests that still hold a replaced snapshot are logged.
const WARN_AFTER: Duration = Duration::from_secs(60);

/// The models of a replaced snapshot that the next one does not share.
pub(super) struct Retired {
    models: Vec<Arc<Model>>,
}

impl Retired {
    pub(super) fn new(old: &Registry, new: &Registry) -> Self {
        let is_shared = |model: &Arc<Model>| new.versions().any(|version| Arc::ptr_eq(version.model, model));
        let gone = old.versions().map(|version| version.model).filter(|model| !is_shared(model));
        Retired { models: gone.cloned().collect() }
    }

    /// Waits until no request uses `old`, then unloads it.
    ///
    /// The last reference is dropped here, on a blocking thread: dropping a model waits for its
    /// threads, which must not block a thread that serves requests.
    pub(super) async fn drain(self, old: Arc<Registry>, next: Arc<Registry>) {
        let began = Instant::now();
        let mut registry = wait_for_sole_owner(old).await;
        let canary = match registry.canary.take() {
            Some(canary) => Some(wait_for_sole_owner(canary.registry).await),
            None => None,
        };
        // Components hold models too, and a shadow sends requests to one.
        let _ = spawn_blocking(move || drop((registry, canary))).await;
        for model in self.models {
            let name = model.name().to_owned();
            let model = wait_for_sole_owner(model).await;
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

/// Unloads `registry`, which was never live; `old` stays live.
pub(super) fn unload(registry: Registry, old: Arc<Registry>) {
    spawn_blocking(move || {
        drop(registry);
        reclaim();
        settle(&old);
    });
}

fn settle(registry: &Registry) {
    if let Err(error) = registry.restore_memory() {
        warn!("cannot restore the request memory budget after a reload: {error:#}");
    }
}

/// Waits until `shared` has no other owner, and returns its value.
async fn wait_for_sole_owner<T>(shared: Arc<T>) -> T {
    let mut shared = shared;
    let mut due = Instant::now() + WARN_AFTER;
    loop {
        match Arc::try_unwrap(shared) {
            Ok(own) => return own,
            Err(others) => shared = others,
        }
        if Instant::now() > due {
            warn!(
                "requests in flight still use the previous configuration; it stays in memory until they end"
            );
            due += WARN_AFTER;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// As `wait_for_sole_owner`, but returns `None` at `until`.
pub async fn take_when_sole_owner<T>(shared: Arc<T>, until: Instant) -> Option<T> {
    tokio::time::timeout_at(until.into(), wait_for_sole_owner(shared)).await.ok()
}
