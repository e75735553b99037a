//! The folders of the store, and the names in them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use infer_engine::files::Folder;

use crate::builtin;

/// Folder of blobs.
pub(super) const BLOBS: &str = "blobs";

/// Folder of names.
pub(super) const MODELS: &str = "models";

/// Prefix of a blob's name.
const PREFIX: &str = "sha256-";

/// Lock file, held while a blob is stored and named, and while unreferenced blobs are removed.
pub(super) const LOCK: &str = ".lock";

/// Folder of packed weights.
pub(super) const PACKED: &str = "packed";

/// Folder of partial downloads, inside a model's folder.
pub(crate) const SCRATCH: &str = ".pull";

/// Lock file in a model's folder, held by a running pull.
pub(crate) const PULL_LOCK: &str = ".pull.lock";

/// The store of a cache folder.
#[derive(Clone, Debug)]
pub struct Store {
    pub(super) cache: PathBuf,
}

impl Store {
    /// Opens the store in the cache folder.
    ///
    /// # Errors
    ///
    /// If there is no cache folder.
    pub fn open() -> anyhow::Result<Self> {
        Ok(Store { cache: builtin::cache_folder().context(builtin::NO_CACHE)? })
    }

    /// Path of the folder of the model `name`.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.cache.join(MODELS).join(name)
    }

    /// Opens the folder of the model `name`, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// If it cannot be created, or is a link.
    pub fn model(&self, name: &str) -> anyhow::Result<Folder> {
        let folder = self.create(MODELS)?.create_folder(name);
        folder.with_context(|| format!("cannot open `{}`", self.folder(name).display()))
    }

    /// Path of the blob with this hash.
    #[must_use]
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.cache.join(BLOBS).join(blob_name(sha256))
    }

    /// Opens the folder of blobs and locks it.
    pub(super) fn lock(&self) -> anyhow::Result<(Folder, File)> {
        let blobs = self.create(BLOBS)?;
        let lock = blobs.lock_file(LOCK).and_then(|lock| {
            // Waits at most as long as another process hashes a file.
            lock.lock()?;
            Ok(lock)
        });
        let lock = lock.with_context(|| format!("cannot lock `{}`", blobs.join(LOCK).display()))?;
        Ok((blobs, lock))
    }

    pub(super) fn create(&self, name: &str) -> anyhow::Result<Folder> {
        let folder = Folder::create(self.cache.join(name));
        folder.with_context(|| format!("cannot open `{}`", self.cache.join(name).display()))
    }

    /// Opens the folder `name` of the cache, if it exists.
    pub(super) fn existing(&self, name: &str) -> anyhow::Result<Option<Folder>> {
        match Folder::existing(self.cache.join(name)) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot open `{}`", self.cache.join(name).display()))
            }
        }
    }
}

/// Returns the hash in a blob's name.
#[must_use]
pub fn sha256(blob: &Path) -> Option<&str> {
    let digits = blob.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
}

/// Returns the name of the blob with this hash.
pub(super) fn blob_name(sha256: &str) -> String {
    format!("{PREFIX}{sha256}")
}

/// Returns the names in `folder`.
pub(super) fn names(folder: &Folder) -> anyhow::Result<Vec<OsString>> {
    folder.names().with_context(|| format!("cannot read `{}`", folder.path().display()))
}
