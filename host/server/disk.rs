//! Writing files: whether the disk has room, and whole or not at all.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use indicatif::HumanBytes;

/// Check that the disk of `folder` has `needed` bytes free for `file`.
///
/// # Errors
///
/// When it has not, or cannot be asked.
pub fn room(folder: &Path, file: &str, needed: u64) -> anyhow::Result<()> {
    let free = rustix::fs::statvfs(folder).with_context(|| format!("cannot ask `{}`", folder.display()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < needed {
        bail!(
            "`{}` has {} free, `{file}` needs {} there; make room, or choose a folder on a larger disk",
            folder.display(),
            HumanBytes(free),
            HumanBytes(needed)
        );
    }
    Ok(())
}

/// Put `text` at `path`, whole or not at all, with the rights of the file that was there.
///
/// # Errors
///
/// When the folder cannot be written; what was there is there.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let partial = path.with_file_name(name);
    let write = || -> io::Result<()> {
        fs::write(&partial, text)?;
        if let Ok(there) = fs::metadata(path) {
            fs::set_permissions(&partial, there.permissions())?;
        }
        fs::File::open(&partial)?.sync_all()?;
        fs::rename(&partial, path)
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&partial);
    })
}
