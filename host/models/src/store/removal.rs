//! Removes models from the store.

use std::collections::BTreeSet;
use std::ffi::OsString;

use anyhow::{Context as _, bail};
use infer_engine::files::Folder;
use infer_engine::text;

use super::cache::{MODELS, PACKED, PULL_LOCK, Store, blob_name, names, sha256};
use super::listing::stored;

/// Files and bytes that a removal has freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Number of files.
    pub files: usize,
    /// Total size of the files, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Removes the model `name`, and its blob unless another model shares it.
    ///
    /// # Errors
    ///
    /// If there is no such model, a pull of it is in progress, or it cannot be removed.
    pub fn remove(&self, name: &str) -> anyhow::Result<Freed> {
        let is_plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0']);
        let models = self.existing(MODELS)?;
        let folder = match &models {
            Some(models) if is_plain => models.folder(name).ok().map(|folder| (models, folder)),
            _ => None,
        };
        let Some((models, folder)) = folder else {
            let known: BTreeSet<_> = self.list()?.into_iter().map(|stored| stored.name).collect();
            let known = if known.is_empty() {
                "the store is empty".to_owned()
            } else {
                format!("expected one of {}", text::names(known))
            };
            bail!(
                "no model `{}` is in `{}`; {known}",
                name.escape_debug(),
                self.cache.join(MODELS).display()
            );
        };
        let shown = folder.path().display();
        let pulling = folder.lock_file(PULL_LOCK).with_context(|| format!("cannot write into `{shown}`"))?;
        if pulling.try_lock().is_err() {
            bail!("an `infer pull` is running in `{shown}`; wait until it ends");
        }
        let (blobs, _lock) = self.lock()?;
        let mut freed = Freed::default();
        let mut hashes: BTreeSet<String> = BTreeSet::new();
        for stored in stored(name, &folder) {
            hashes.extend(stored.blob.as_deref().and_then(sha256).map(str::to_owned));
            hashes.extend(stored.file.map(|file| file.sha256));
            if stored.blob.is_none() {
                freed.files += usize::from(stored.bytes.is_some());
                freed.bytes += stored.bytes.unwrap_or(0);
            }
            freed.bytes += stored.partial_bytes;
        }
        models.remove_all(name).with_context(|| format!("cannot remove `{shown}`"))?;
        for blob in self.unreferenced_in(&blobs)? {
            freed.add(&blobs, &blob)?;
        }
        // Packed weights go with their blob; those of a blob that another model shares stay.
        if let Some(packed) = self.existing(PACKED)? {
            for name in names(&packed)? {
                let is_of_it =
                    name.to_str().and_then(|name| name.split_once("-v")).is_some_and(|(sha256, _)| {
                        hashes.contains(sha256) && matches!(blobs.status(blob_name(sha256)), Ok(None))
                    });
                if is_of_it {
                    freed.add(&packed, &name)?;
                }
            }
        }
        Ok(freed)
    }
}

impl Freed {
    fn add(&mut self, folder: &Folder, name: &OsString) -> anyhow::Result<()> {
        let context = || format!("cannot remove `{}`", folder.join(name).display());
        let bytes = folder.status(name).with_context(context)?.map_or(0, |found| found.bytes);
        folder.remove_file(name).with_context(context)?;
        self.files += 1;
        self.bytes += bytes;
        Ok(())
    }
}
