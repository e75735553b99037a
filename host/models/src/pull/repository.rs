//! Files of a repository on the hub whose sizes and hashes no card has.

use std::io::{self, Read as _, Seek as _};

use anyhow::{Context as _, bail};
use infer_engine::files::Folder;
use sha2::{Digest as _, Sha256};
use ureq::http::StatusCode;

use super::growth::Growth;
use super::hub::{Client, Refused, TooSlow, go_on};
use super::transfer;
use crate::disk;
use crate::limits::{MAX_ATTEMPTS, MIN_FREE_BYTES};

/// A repository in one revision.
#[derive(Debug)]
pub(crate) struct Repository {
    /// `OWNER/NAME`
    name: String,
    /// Branch, tag or commit; the commit once the hub has reported it, so that all files belong
    /// together.
    revision: String,
    is_resolved: bool,
}

impl Repository {
    /// The repository `OWNER/NAME` in `revision`, both without characters that need escaping.
    pub(crate) fn new(name: &str, revision: &str) -> Self {
        Repository { name: name.to_owned(), revision: revision.to_owned(), is_resolved: false }
    }

    /// Commit of the fetched files; the requested revision if the hub does not report it.
    pub(crate) fn revision(&self) -> &str {
        &self.revision
    }

    /// Fetches `file`, of at most `max` bytes, as `name` in `folder`. Returns false if the
    /// repository does not have it.
    ///
    /// # Errors
    ///
    /// If the hub cannot be reached or denies access, or the file is larger.
    pub(crate) fn fetch(
        &mut self,
        file: &str,
        max: u64,
        folder: &Folder,
        name: &str,
    ) -> anyhow::Result<bool> {
        let subject = format!("cannot fetch `{file}` of `{}`", self.name);
        let context = || subject.clone();
        let Some((client, size, tag)) = self.find(file).with_context(context)? else { return Ok(false) };
        if size > max {
            bail!("{}: it is {size} bytes, expected at most {max}", context());
        }
        disk::require_space(folder, file, size.saturating_add(MIN_FREE_BYTES))?;
        let created = folder.create_file(name, 0o600).with_context(context)?;
        let mut growth = Growth::new(created, 0, size).with_context(context)?;
        let bar = transfer::bar(file, size);
        for attempt in 1.. {
            if growth.room() == 0 {
                break;
            }
            let before = growth.bytes();
            if let Err(error) = go_on(&bar, &client, &mut growth) {
                let came = growth.bytes() > before;
                if !came || attempt == MAX_ATTEMPTS || error.is::<TooSlow>() {
                    return Err(error.context(context()));
                }
            }
        }
        bar.finish_and_clear();
        let mut fetched = growth.into_file();
        // The tag of a large file is its SHA-256.
        if let Some(tag) = tag.filter(|tag| tag.len() == 64) {
            let found = sha256(&mut fetched).with_context(context)?;
            if found != tag.to_ascii_lowercase() {
                bail!("{}: its sha256 is {found}, the hub reports {}", context(), tag.escape_debug());
            }
        }
        Ok(true)
    }

    /// Size and SHA-256 of `file`, as the hub states them; `None` if the repository does not have
    /// it.
    ///
    /// # Errors
    ///
    /// If the hub cannot be reached, denies access, or states no hash, as for small files.
    pub(crate) fn describe(&mut self, file: &str) -> anyhow::Result<Option<(u64, String)>> {
        let Some((_, size, tag)) = self.find(file)? else { return Ok(None) };
        let is_hash = |tag: &String| tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sha256 = tag.filter(is_hash).context("the server states no sha256 that a card could pin")?;
        Ok(Some((size, sha256.to_ascii_lowercase())))
    }

    /// True if the repository has `file`.
    pub(crate) fn has(&mut self, file: &str) -> bool {
        self.find(file).is_ok_and(|found| found.is_some())
    }

    /// Requests the size of `file`. Returns a client for it, its size and its tag; `None` if the
    /// repository does not have it.
    fn find(&mut self, file: &str) -> anyhow::Result<Option<(Client, u64, Option<String>)>> {
        let client = Client::new(&self.name, &self.revision, file)?;
        let answer = match client.get("bytes=0-0") {
            Ok(answer) => answer,
            Err(error) => match error.downcast_ref::<Refused>() {
                // An empty file has no first byte.
                Some(Refused(StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE)) => return Ok(None),
                Some(Refused(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))) => bail!(
                    "the server returned {status}: `{}` does not exist, is private, or needs a consent on its page; \
                     a token in `$HF_HOME/token` gives access",
                    self.name
                ),
                _ => return Err(error),
            },
        };
        let commit = answer.commit.filter(|commit| {
            commit.len() <= 64 && !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit())
        });
        if let Some(commit) = commit.filter(|_| !self.is_resolved) {
            (self.revision, self.is_resolved) = (commit, true);
        }
        let size = answer.size.context("the server does not report its size")?;
        Ok(Some((client, size, answer.tag)))
    }
}

fn sha256(file: &mut std::fs::File) -> io::Result<String> {
    file.rewind()?;
    let (mut hash, mut piece) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hash.update(&piece[..read]),
        }
    }
}
