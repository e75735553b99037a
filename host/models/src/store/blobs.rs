//! Adds fetched files to the store, and links them in models' folders.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use infer_engine::CardFile;
use infer_engine::files::Folder;

use super::cache::{BLOBS, Store, blob_name};

/// A verified file that is synced to disk and may become a blob.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedFile<'f> {
    /// Its folder, on the same disk as the store.
    pub folder: &'f Folder,
    /// Its name in that folder.
    pub name: &'f str,
    /// The open file.
    pub file: &'f File,
}

impl Store {
    /// Stores `whole` as the blob of its hash, and links it in the model's folder `place`.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn insert(&self, file: &CardFile, whole: VerifiedFile<'_>, place: &Folder) -> anyhow::Result<()> {
        let (blobs, _lock) = self.lock()?;
        let blob = blob_name(&file.sha256);
        // Read-only, against accidental writes while it is mapped; it can still be replaced or
        // removed.
        let VerifiedFile { folder, name, file: opened } = whole;
        opened
            .set_permissions(fs::Permissions::from_mode(0o444))
            .and_then(|()| folder.rename(name, &blobs, &blob))
            .with_context(|| format!("cannot write `{}`", blobs.join(&blob).display()))?;
        // Makes the rename durable. A blob that a crash loses is fetched again.
        let _ = blobs.sync();
        link(&file.path, &blob, place)
    }

    /// Links the blob of `file` in the model's folder `place`, if it exists and matches the card.
    /// Removes a blob that does not match. Returns true if it was linked.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn link_existing(&self, file: &CardFile, place: &Folder) -> anyhow::Result<bool> {
        let (blobs, _lock) = self.lock()?;
        let blob = blob_name(&file.sha256);
        let path = blobs.join(&blob);
        if blobs.status(&blob)?.is_none() {
            return Ok(false);
        }
        let is_whole = blobs.open_file(&blob).is_ok_and(|opened| file.verify_opened(&path, &opened).is_ok());
        if !is_whole {
            blobs.remove_file(&blob).with_context(|| format!("cannot remove `{}`", path.display()))?;
            return Ok(false);
        }
        link(&file.path, &blob, place)?;
        Ok(true)
    }
}

/// Links the blob `blob` in `place`, a model's folder of the cache.
fn link(name: &str, blob: &str, place: &Folder) -> anyhow::Result<()> {
    // Relative to models/NAME, so that the cache folder may be moved.
    let target = Path::new("../..").join(BLOBS).join(blob);
    place
        .replace_with_link(name, &target)
        .with_context(|| format!("cannot write `{}`", place.join(name).display()))?;
    let _ = place.sync();
    Ok(())
}
