//! Folder trees: size and removal.

use std::ffi::OsStr;
use std::io;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use super::folder::Folder;
use super::name::plain;
use crate::limits::MAX_REMOVED_LEVELS;

impl Folder {
    /// Removes the file, link or folder `name` with its content, if it exists.
    ///
    /// # Errors
    ///
    /// When something cannot be removed, or folders are nested too deeply.
    pub fn remove_all(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        self.remove_levels(plain(name.as_ref())?, MAX_REMOVED_LEVELS)
    }

    fn remove_levels(&self, name: &OsStr, levels: usize) -> io::Result<()> {
        match rustix::fs::unlinkat(self, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Linux returns the first error, POSIX specifies the second.
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        if levels == 0 {
            let shown = self.join(name);
            let message =
                format!("folders are nested too deep at `{}`; remove them by hand", shown.display());
            return Err(io::Error::other(message));
        }
        let inner = self.folder(name)?;
        for entry in inner.names()? {
            inner.remove_levels(&entry, levels - 1)?;
        }
        Ok(rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR)?)
    }

    /// Total bytes of regular files in the folder and up to `levels` levels below it.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn bytes(&self, levels: usize) -> io::Result<u64> {
        let mut sum: u64 = 0;
        for name in self.names()? {
            // Another program may have removed the name since it was listed.
            let Ok(Some(found)) = self.status(&name) else { continue };
            if found.is_file() {
                sum = sum.saturating_add(found.bytes);
            } else if found.is_folder() && levels > 0 {
                let inner = self.folder(&name).and_then(|folder| folder.bytes(levels - 1));
                sum = sum.saturating_add(inner.unwrap_or(0));
            }
        }
        Ok(sum)
    }
}
