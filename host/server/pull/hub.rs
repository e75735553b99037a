//! From the Hugging Face hub, through its own client. HF_ENDPOINT names a mirror, HF_HOME the folder of a token.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, bail};
use hf_hub::api::Progress;
use hf_hub::api::sync::{ApiBuilder, ApiRepo};
use hf_hub::{Repo, RepoType};
use indicatif::ProgressBar;
use infer_engine::Hub;

use super::{Pull, SILENCE};

/// Connections that may break in one pull; each new one goes on where the last ended.
const ATTEMPTS: usize = 5;

/// The file, fetched and not yet verified.
pub(super) fn fetch(pull: &Pull<'_>, hub: &Hub) -> anyhow::Result<PathBuf> {
    let cache = pull.scratch.join("hub");
    let api = ApiBuilder::from_env().with_cache_dir(cache.clone()).build()?;
    let repo = Repo::with_revision(hub.repository.clone(), RepoType::Model, hub.revision.clone());
    let blobs = cache.join(repo.folder_name()).join("blobs");
    let url = api.repo(repo.clone()).url(&hub.file);
    // Another file is told before it is fetched. For large files the hub's tag is the SHA-256; and it names a file below.
    let asked = {
        let api = api.clone();
        watched(SILENCE, || 0, move || api.metadata(&url).map_err(|error| anyhow!("{error}")))
    };
    let metadata = asked.flatten().map_err(|error| anyhow!("cannot ask for `{}`: {error}", hub.file))?;
    let (tag, size) = (metadata.etag(), metadata.size() as u64);
    if size != pull.file.bytes {
        bail!("`{}` is {size} bytes there, its card says {}", hub.file, pull.file.bytes);
    }
    if tag.len() == 64 && tag != pull.file.sha256 {
        bail!("`{}` has sha256 {tag} there, its card says {}", hub.file, pull.file.sha256);
    }
    if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        bail!("`{}` has the tag `{}` there, expected letters and digits", hub.file, tag.escape_debug());
    }
    let (part, whole) = (blobs.join(tag).with_extension("part"), blobs.join(tag));
    let found = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
    for attempt in 1.. {
        if found(&whole) == size {
            return Ok(whole);
        }
        match found(&part) {
            // The client asks for what lies beyond the end, which servers refuse.
            held if held == size => return Ok(part),
            held if held > size => fs::remove_file(&part)?,
            _ => {}
        }
        let before = found(&part);
        let fetched = {
            let (repo, file, bar) = (api.repo(repo.clone()), hub.file.clone(), pull.bar.clone());
            watched(SILENCE, || found(&part), move || download(&repo, &file, bar))
        };
        let fetched = fetched.map_err(|error| {
            anyhow!("{} of {size} bytes are fetched, then: {error}; pull again to go on", found(&part))
        })?;
        match fetched {
            Ok(path) => return Ok(fs::canonicalize(path)?),
            Err(_) if attempt < ATTEMPTS && found(&part) > before => {}
            Err(error) => bail!("{} of {size} bytes are fetched, then: {error}", found(&part)),
        }
    }
    bail!("the connection broke {ATTEMPTS} times")
}

fn download(repo: &ApiRepo, file: &str, bar: ProgressBar) -> anyhow::Result<PathBuf> {
    bar.reset();
    // The client's messages hold those of their sources.
    repo.download_with_progress(file, Bar(bar)).map_err(|error| anyhow!("{error}"))
}

/// What `work` gives, on a thread of its own that is left behind when `progress` stands still for `silence`.
fn watched<T: Send + 'static>(
    silence: Duration,
    progress: impl Fn() -> u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("pull".to_owned()).spawn(move || sender.send(work()))?;
    let mut last = progress();
    loop {
        match receiver.recv_timeout(silence) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => bail!("the download ended with a panic"),
            Err(RecvTimeoutError::Timeout) => {
                let now = progress();
                if now == last {
                    bail!("nothing came for {} seconds", silence.as_secs());
                }
                last = now;
            }
        }
    }
}

/// The client's progress on our bar.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, _: &str) {
        self.0.set_length(size as u64);
        self.0.set_position(0);
    }

    fn update(&mut self, bytes: usize) {
        self.0.inc(bytes as u64);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_connections_end_in_an_error_and_slow_ones_do_not() {
        let (hold, held) = mpsc::channel::<()>();
        let silent = watched(Duration::from_millis(20), || 0, move || held.recv());
        assert_eq!(silent.unwrap_err().to_string(), "nothing came for 0 seconds");
        drop(hold);

        let bytes = std::cell::Cell::new(0);
        let (done, wait) = mpsc::channel();
        // The work ends when the third look has seen progress.
        let slow = watched(
            Duration::from_millis(20),
            || {
                bytes.set(bytes.get() + 1);
                if bytes.get() == 3 {
                    let _ = done.send("file");
                }
                bytes.get()
            },
            move || wait.recv(),
        );
        assert_eq!(slow.unwrap(), Ok("file"));
        assert!(bytes.get() >= 3);
    }
}
