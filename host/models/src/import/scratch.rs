//! A temporary folder that is removed on drop.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context as _;
use infer_engine::files::Folder;

/// A temporary folder, which only its owner may access.
#[derive(Debug)]
pub struct Scratch {
    parent: Folder,
    name: OsString,
    folder: Folder,
}

impl Scratch {
    /// Creates the folder in the system's folder for temporary files.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn new() -> anyhow::Result<Self> {
        Scratch::within(&std::env::temp_dir())
    }

    /// Creates the folder in `parent`.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub(crate) fn within(parent: &Path) -> anyhow::Result<Self> {
        let context = || format!("cannot create a folder in `{}`", parent.display());
        let parent = Folder::open(parent).with_context(context)?;
        let (name, folder) = parent.new_folder(".infer-import-").with_context(context)?;
        Ok(Scratch { parent, name, folder })
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The folder itself.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.parent.remove_all(&self.name);
    }
}
