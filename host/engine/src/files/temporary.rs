//! Files and links that take their name in one step, once they are complete.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::folder::Folder;
use super::name::{partial_name, plain, unique};

/// A file that is removed again unless it is given its name.
#[derive(Debug)]
pub struct Temporary<'f> {
    folder: &'f Folder,
    name: OsString,
    /// Its name until then; none once it has its own.
    partial: Option<OsString>,
    file: File,
}

impl Temporary<'_> {
    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name, in the place of what is there, once its bytes have reached the
    /// disk.
    ///
    /// # Errors
    ///
    /// When they cannot be written, or the file cannot be renamed.
    pub fn persist(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        if let Some(partial) = &self.partial {
            self.folder.rename(partial, self.folder, &self.name)?;
        }
        self.partial = None;
        // The name itself; what this loses is what a crash before it would have lost.
        let _ = self.folder.sync();
        Ok(())
    }

    /// As [`Temporary::persist`], but in nobody's place.
    ///
    /// # Errors
    ///
    /// As [`Temporary::persist`], and when something of that name exists.
    pub fn persist_new(self) -> io::Result<()> {
        self.file.sync_all()?;
        match &self.partial {
            // Unlike a rename, a link takes nobody's place. The temporary name goes when `self` is
            // dropped.
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
    /// Creates a file under a name of its own, which is removed again unless it is given the name
    /// `name` with [`Temporary::persist`]. It ends in `.partial`.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn temporary(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<Temporary<'_>> {
        let name = plain(name.as_ref())?;
        let (partial, file) = unique(|| partial_name(name), |partial| self.create_file(partial, mode))?;
        Ok(Temporary { folder: self, name: name.to_owned(), partial: Some(partial), file })
    }

    /// Puts `bytes` into `name`, whole or not at all, with the rights `mode` (less the umask).
    ///
    /// # Errors
    ///
    /// When the folder cannot be written; an earlier file of that name is as it was.
    pub fn replace(&self, name: impl AsRef<OsStr>, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = self.temporary(name, mode)?;
        file.write_all(bytes)?;
        file.persist()
    }

    /// Makes `name` a link to `target`, in one step.
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
