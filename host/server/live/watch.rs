//! What is looked at once a second: whether the configuration, or a file that it names, has changed, and whether a model may rest.
//!
//! Files are looked at, and not listened to: that needs no library, is bounded by what is configured, and sees through the
//! renames and network file systems that listening loses. A change is taken up once it has stood still for a look, so that a file that is
//! being written is not read half.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::info;

use super::Live;
use crate::config::{Config, Origin, Source};
use crate::reclaim::reclaim;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The most files of one folder of weights that are looked at.
const MOST_FILES: usize = 64;

/// What tells a file that was written or replaced from what it was: inode, size, seconds and nanoseconds of its change.
type Looks = (u64, u64, i64, i64);

type Seen = BTreeMap<PathBuf, Option<Looks>>;

/// Reload whenever the files change, for as long as this is polled, and while the configuration in use says `watch`.
pub async fn watch(live: Arc<Live>) {
    let mut served: Option<Seen> = None;
    let mut last: Option<Seen> = None;
    loop {
        sleep(LOOK).await;
        let app = live.app();
        if !app.config.server.watch {
            served = None;
            continue;
        }
        let Ok(seen) = spawn_blocking(move || look(&app.config)).await else { continue };
        let still = last.as_ref() == Some(&seen);
        match &served {
            None => served = Some(seen.clone()),
            Some(before) if *before != seen && still => {
                info!("a file of the configuration has changed");
                // Refused or not: it is not tried again before it changes again.
                served = Some(seen.clone());
                let _ = live.reload().await;
                // What is named now may be other files.
                let app = live.app();
                if let Ok(named) = spawn_blocking(move || look(&app.config)).await
                    && !named.keys().eq(seen.keys())
                {
                    served = Some(named);
                }
            }
            Some(_) => {}
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

fn look(config: &Config) -> Seen {
    let mut seen = Seen::new();
    if let Origin::File(path) = &config.origin {
        one(&mut seen, path);
    }
    for component in config.components.values() {
        if let Source::Path(path) = &component.source {
            one(&mut seen, path);
        }
    }
    for (_, model) in config.versions() {
        let Source::Path(path) = &model.source else { continue };
        one(&mut seen, path);
        for entry in fs::read_dir(path).into_iter().flatten().flatten().take(MOST_FILES) {
            one(&mut seen, &entry.path());
        }
    }
    seen
}

fn one(seen: &mut Seen, path: &Path) {
    let found = fs::metadata(path).ok();
    let looks = found.map(|found| (found.ino(), found.size(), found.mtime(), found.mtime_nsec()));
    seen.insert(path.to_owned(), looks);
}
