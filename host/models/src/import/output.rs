//! The weights folder that an import writes. It has a temporary name until it is complete.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use infer_engine::Role;
use infer_engine::files::{self, Folder};
use sha2::{Digest as _, Sha256};

use super::card::Written;

/// Size of the copy buffer.
const PIECE_BYTES: usize = 1 << 20;

/// Name of the card.
pub(super) const CARD: &str = "card.toml";

/// A folder in the making, which is removed unless it is finished.
#[derive(Debug)]
pub(super) struct Output {
    parent: Folder,
    name: OsString,
    /// Temporary name; `None` once the folder has its final name.
    partial: Option<OsString>,
    folder: Folder,
}

impl Output {
    /// Creates a temporary folder beside `destination`.
    ///
    /// # Errors
    ///
    /// If `destination` has files, or cannot be created.
    pub(super) fn create(destination: &Path) -> anyhow::Result<Self> {
        let shown = destination.display();
        let Some(name) = destination.file_name() else {
            bail!("`{shown}` is no name for a new folder; choose another with `-o`");
        };
        let is_empty =
            |folder: &Path| std::fs::read_dir(folder).is_ok_and(|mut names| names.next().is_none());
        if destination.symlink_metadata().is_ok() && !is_empty(destination) {
            bail!("`{shown}` exists, expected a new folder; choose another with `-o`, or remove it");
        }
        let parent = match destination.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => {
                std::fs::create_dir_all(parent)
                    .with_context(|| format!("cannot create `{}`", parent.display()))?;
                parent
            }
            None => Path::new("."),
        };
        let create = || format!("cannot create a folder in `{}`", parent.display());
        let parent = Folder::open(parent).with_context(create)?;
        let (partial, folder) = parent.new_folder(".infer-import-").with_context(create)?;
        Ok(Output { parent, name: name.to_owned(), partial: Some(partial), folder })
    }

    /// Path of the temporary folder.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Writes `bytes` as the file `name`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn write(&self, name: &str, role: Role, bytes: &[u8]) -> anyhow::Result<Written> {
        let failed = || format!("cannot write `{}`", self.folder.join(name).display());
        let mut file = self.folder.create_file(name, 0o644).with_context(failed)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).with_context(failed)?;
        Ok(written(name, role, bytes.len() as u64, Sha256::new_with_prefix(bytes)))
    }

    /// Copies the file at `from`, of at most `max` bytes, as the file `name`.
    ///
    /// # Errors
    ///
    /// If it is longer, or cannot be read or written.
    pub(super) fn copy(&self, name: &str, role: Role, from: &Path, max: u64) -> anyhow::Result<Written> {
        let failed = || format!("cannot copy `{}`", from.display());
        let mut source = files::open(from).with_context(failed)?;
        let mut target: File = self.folder.create_file(name, 0o644).with_context(failed)?;
        let (mut hash, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE_BYTES]);
        loop {
            let read = source.read(&mut piece).with_context(failed)?;
            if read == 0 {
                break;
            }
            bytes += read as u64;
            if bytes > max {
                bail!("`{}` has more than {max} bytes, the maximum of a model with its data", from.display());
            }
            hash.update(&piece[..read]);
            target.write_all(&piece[..read]).with_context(failed)?;
        }
        target.sync_all().with_context(failed)?;
        Ok(written(name, role, bytes, hash))
    }

    /// Writes the card, and replaces an earlier one.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub(super) fn card(&self, text: &str) -> anyhow::Result<()> {
        let failed = || format!("cannot write `{}`", self.folder.join(CARD).display());
        let mut file = self.folder.temporary(CARD, 0o644).with_context(failed)?;
        file.write_all(text.as_bytes()).with_context(failed)?;
        file.persist().with_context(failed)
    }

    /// Gives the folder its final name.
    ///
    /// # Errors
    ///
    /// If the name exists meanwhile.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        let Some(partial) = self.partial.take() else { return Ok(()) };
        let place = self.parent.join(&self.name);
        let folder = Path::new(&self.folder.path()).to_owned();
        // The folder was created for its owner only.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder, mode)
            .with_context(|| format!("cannot create `{}`", place.display()))?;
        if let Err(error) = self.parent.rename(&partial, &self.parent, &self.name) {
            self.partial = Some(partial);
            return Err(error).with_context(|| format!("cannot create `{}`", place.display()));
        }
        let _ = self.parent.sync();
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(partial) = &self.partial {
            let _ = self.parent.remove_all(partial);
        }
    }
}

fn written(name: &str, role: Role, bytes: u64, hash: Sha256) -> Written {
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Written { path: name.to_owned(), role, bytes, sha256 }
}
