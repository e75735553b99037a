//! Whether a disk has room for what is about to be written.

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
