//! What is looked at once a second: whether the configuration, or a file that it names, has
//! changed, and whether a model may rest.
//!
//! Files are looked at, and not listened to: that needs no library, is bounded by what is
//! configured, and sees through the renames and network file systems that listening loses. A change
//! is taken up once it has stood still for a look, so that a file that is being written is not read
//! half.

use std::sync::Arc;
use std::time::Duration;

use infer_config::{Files, Origin};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::info;

use crate::live::Live;
use crate::reclaim::reclaim;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Reload whenever the files differ from what is served, for as long as this is polled, and while
/// the configuration in use says `watch`. What is served knows its files from before they were
/// read, so no edit falls between the reading and the first look.
pub async fn watch(live: Arc<Live>) {
    // What the last reload of this loop was to take up: refused or not, it is not tried again.
    let mut tried: Option<Files> = None;
    let mut last: Option<Files> = None;
    loop {
        sleep(LOOK).await;
        let app = live.app();
        let path = match &app.config.origin {
            Origin::File(path) if app.config.server.watch => path.clone(),
            _ => {
                (tried, last) = (None, None);
                continue;
            }
        };
        let served = app.config.files.clone();
        // A reload waits until nobody has what it replaces.
        drop(app);
        let before = last.clone().unwrap_or_else(|| served.clone());
        let Ok(seen) = spawn_blocking(move || Files::look(&path, &before)).await else { continue };
        let is_known = served.is_same(&seen) || tried.as_ref().is_some_and(|tried| tried.is_same(&seen));
        if !is_known && last.as_ref().is_some_and(|last| seen.is_still(last)) {
            info!("a file of the configuration has changed");
            tried = Some(seen.clone());
            let _ = live.reload().await;
        }
        last = Some(seen);
    }
}

/// Unload models that nobody has asked for their time, for as long as this is polled.
pub async fn rest(live: Arc<Live>) {
    loop {
        sleep(LOOK).await;
        let models: Vec<_> = live.app().versions().map(|version| version.model.clone()).collect();
        let rested = spawn_blocking(move || {
            let rested: Vec<_> =
                models.iter().filter(|model| model.rest()).map(|model| model.name().to_owned()).collect();
            if !rested.is_empty() {
                reclaim();
            }
            rested
        });
        for model in rested.await.unwrap_or_default() {
            info!(model, "unloaded: nobody has asked it for its `keep_alive_ms`");
        }
    }
}
