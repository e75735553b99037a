//! Checks once a second whether the configuration or a file that it names has changed, and whether
//! a model is idle.
//!
//! Files are polled instead of watched with inotify: polling needs no library, its cost is bounded
//! by the configuration, and it notices renames and changes on network file systems. A change is
//! applied only once two consecutive polls agree, so that a file is not read while it is being
//! written.

use std::sync::Arc;
use std::time::Duration;

use infer_config::{Files, Origin};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::info;

use crate::live::Live;
use crate::reclaim::reclaim;

/// Interval between polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Reloads when the files differ from the live snapshot's, while the live configuration has `watch`
/// on. Runs until it is dropped. The snapshot recorded its files before they were read, so an edit
/// between that and the first poll is noticed.
pub async fn watch(live: Arc<Live>) {
    // The files of this loop's last reload. It is not tried again, even if it failed.
    let mut tried: Option<Files> = None;
    let mut last: Option<Files> = None;
    loop {
        sleep(POLL_INTERVAL).await;
        let registry = live.registry();
        let path = match &registry.config.origin {
            Origin::File(path) if registry.config.server.watch => path.clone(),
            _ => {
                (tried, last) = (None, None);
                continue;
            }
        };
        let served = registry.config.files.clone();
        // A reload waits until the old registry has no other owner.
        drop(registry);
        let before = last.clone().unwrap_or_else(|| served.clone());
        let Ok(seen) = spawn_blocking(move || Files::current(&path, &before)).await else { continue };
        let is_known = served.is_same(&seen) || tried.as_ref().is_some_and(|tried| tried.is_same(&seen));
        if !is_known && last.as_ref().is_some_and(|last| seen.is_stable(last)) {
            info!("a file of the configuration has changed");
            tried = Some(seen.clone());
            let _ = live.reload().await;
        }
        last = Some(seen);
    }
}

/// Unloads models that have been idle for their `keep_alive_ms`. Runs until it is dropped.
pub async fn unload_idle(live: Arc<Live>) {
    loop {
        sleep(POLL_INTERVAL).await;
        let models: Vec<_> = live.registry().versions().map(|version| version.model.clone()).collect();
        let unloaded = spawn_blocking(move || {
            let unloaded: Vec<_> = models
                .iter()
                .filter(|model| model.unload_if_idle())
                .map(|model| model.name().to_owned())
                .collect();
            if !unloaded.is_empty() {
                reclaim();
            }
            unloaded
        });
        for model in unloaded.await.unwrap_or_default() {
            info!(model, "model unloaded: idle for `keep_alive_ms`");
        }
    }
}
