//! Files and links that receive their name atomically, once they are complete.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::folder::Folder;
use super::name::{partial_name, plain, unique};

/// A temporary file, which is removed unless it receives its final name.
#[derive(Debug)]
pub struct Temporary<'f> {
    folder: &'f Folder,
    name: OsString,
    /// Temporary name; `None` once the file has its final name.
    partial: Option<OsString>,
    file: File,
}

impl Temporary<'_> {
    /// The open file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Renames the file to its final name once its bytes are on disk, and replaces an existing
    /// file.
    ///
    /// # Errors
    ///
    /// When the bytes cannot be written, or the file cannot be renamed.
    pub fn persist(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some(partial) = &self.partial {
            self.folder.rename(partial, self.folder, &self.name)?;
        }
        self.partial = None;
        // Syncs the new name. If this fails, the effect is that of a crash before the call.
        let _ = self.folder.sync();
        Ok(())
    }

    /// Links the file to its final name as [`Temporary::persist`] does, without replacing an
    /// existing file.
    ///
    /// # Errors
    ///
    /// As [`Temporary::persist`], and when the name exists.
    pub fn persist_new(self) -> io::Result<()> {
        self.file.sync_all()?;
        match &self.partial {
            // Unlike a rename, a link does not replace a file. The temporary name is removed when
            // `self` is dropped.
            Some(partial) => self.folder.link_to(partial, self.folder, &self.name),
            None => Ok(()),
        }
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if let Some(partial) = self.partial.take() {
            let _ = self.folder.remove_file(partial);
        }
    }
}

impl Write for Temporary<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Folder {
    /// Creates a temporary file for `name`. Its own name ends in `.partial`, and it is removed
    /// unless [`Temporary::persist`] renames it to `name`.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn temporary(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Temporary<'_>> {
        let name = plain(name.as_ref())?;
        let (partial, file) = unique(|| partial_name(name), |partial| self.create_file(partial, mode))?;
        Ok(Temporary { folder: self, name: name.to_owned(), partial: Some(partial), file })
    }

    /// Replaces the content of `name` atomically, with the permissions `mode` (less the umask).
    ///
    /// # Errors
    ///
    /// When the folder cannot be written; an existing file is then unchanged.
    pub fn replace(&self, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = self.temporary(name, mode)?;
        file.write_all(bytes)?;
        file.persist()
    }

    /// Replaces `name` atomically by a link to `target`.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn replace_with_link(&self, name: impl AsRef<OsStr>, target: &Path) -> io::Result<()> {
        let name = plain(name.as_ref())?;
        let (partial, ()) = unique(
            || partial_name(name),
            |partial| rustix::fs::symlinkat(target, self, partial).map_err(Into::into),
        )?;
        self.rename(&partial, self, name).inspect_err(|_| {
            let _ = self.remove_file(&partial);
        })
    }
}
