//! Lists the files of the store.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use infer_engine::files::Folder;
use infer_engine::{Card, CardFile, Download, Format};

use super::cache::{BLOBS, MODELS, SCRATCH, Store, names, sha256};
use crate::limits::MAX_SCRATCH_LEVELS;
use crate::source::Source;
use crate::weights;

/// A model's file in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Name of the model, as in `builtin:NAME` and on the command line.
    pub name: String,
    /// Entry of its card; `None` without a card of that name.
    pub file: Option<CardFile>,
    /// Path of its name.
    pub path: PathBuf,
    /// Size in bytes; `None` if the file is missing.
    pub bytes: Option<u64>,
    /// Bytes that interrupted pulls have left.
    pub partial_bytes: u64,
    /// Path of its blob; `None` for a plain file.
    pub blob: Option<PathBuf>,
}

impl Store {
    /// Lists files by model: complete, damaged, and partial ones.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn list(&self) -> anyhow::Result<Vec<Stored>> {
        let mut all = Vec::new();
        if let Some(models) = self.existing(MODELS)? {
            let mut names = names(&models)?;
            names.sort();
            for name in names {
                if let (Some(name), Ok(folder)) = (name.to_str(), models.folder(&name)) {
                    all.extend(stored(name, &folder));
                }
            }
        }
        Ok(all)
    }

    /// Lists blobs without a name.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn unreferenced(&self) -> anyhow::Result<Vec<PathBuf>> {
        let Some(blobs) = self.existing(BLOBS)? else { return Ok(Vec::new()) };
        Ok(self.unreferenced_in(&blobs)?.into_iter().map(|name| blobs.join(name)).collect())
    }

    pub(super) fn unreferenced_in(&self, blobs: &Folder) -> anyhow::Result<Vec<OsString>> {
        let mut named = BTreeSet::new();
        if let Some(models) = self.existing(MODELS)? {
            for name in names(&models)? {
                let Ok(folder) = models.folder(&name) else { continue };
                let links = folder.names().unwrap_or_default().into_iter();
                let targets = links.filter_map(|name| folder.read_link(name).ok());
                named.extend(targets.filter_map(|target| target.file_name().map(ToOwned::to_owned)));
            }
        }
        let mut unreferenced = names(blobs)?;
        unreferenced.retain(|name| sha256(Path::new(name)).is_some() && !named.contains(name));
        Ok(unreferenced)
    }
}

/// Returns the files of the model `name` in its folder: those of its card, or without a card all
/// files.
pub(super) fn stored(name: &str, folder: &Folder) -> Vec<Stored> {
    let scratch = folder.folder(SCRATCH).and_then(|scratch| scratch.bytes(MAX_SCRATCH_LEVELS));
    let partial_bytes = scratch.unwrap_or(0);
    let describe = |file: Option<CardFile>, file_name: &str| {
        let path = folder.join(file_name);
        let bytes = fs::metadata(&path).ok().map(|found| found.len());
        let is_link = folder.status(file_name).ok().flatten().is_some_and(|found| found.is_link());
        let blob = if is_link { fs::canonicalize(&path).ok() } else { None };
        Stored { name: name.to_owned(), file, path, bytes, partial_bytes, blob }
    };
    match card(name).or_else(|| imported(name, folder)) {
        Some(card) => {
            let files = card.model_files().enumerate().map(|(index, file)| Stored {
                // Counted once for the model.
                partial_bytes: if index == 0 { partial_bytes } else { 0 },
                ..describe(Some(file.clone()), &file.path)
            });
            let files: Vec<_> = files.collect();
            let is_there = |file: &Stored| file.bytes.is_some() || file.path.is_symlink();
            if partial_bytes > 0 || files.iter().any(is_there) { files } else { Vec::new() }
        }
        None => {
            let names = folder.names().unwrap_or_default();
            let names = names.iter().filter_map(|name| name.to_str());
            let is_file = |name: &&str| !name.starts_with('.') && folder.join(name).is_file();
            names.filter(is_file).map(|name| describe(None, name)).collect()
        }
    }
}

/// Returns the card of the model `name`, carried by the program or written by it.
fn card(name: &str) -> Option<Card> {
    let source = Source::Builtin(name.to_owned());
    let listed = if weights::exists(name) { weights::list(&source).ok() } else { None };
    let is_fetched = |card: &Card| card.format == Format::Gguf || card.download != Download::default();
    listed.map(|listed| listed.card).filter(is_fetched)
}

/// Returns the card of a model that was imported from the hub: its name has a revision.
fn imported(name: &str, folder: &Folder) -> Option<Card> {
    name.contains('@').then(|| Card::read(folder.path()).ok())?
}
