//! Temporary folders of pip clients.

use std::ffi::OsString;
use std::fs::File;

use anyhow::Context as _;
use infer_engine::files::Folder;

use crate::builtin;

/// Temporary folder of one client; it is removed on drop, with its content.
pub(super) struct Workplace {
    parent: Folder,
    name: OsString,
    pub(super) folder: Folder,
    /// Held until this is dropped or the process ends; then other processes may remove the folder.
    _lock: File,
}

/// Prefix of the names of workplaces.
const WORKPLACE: &str = "pip-";

impl Workplace {
    /// Creates a workplace in the cache folder, or without one in the system's temporary folder.
    /// Removes workplaces that killed pulls have left in the cache folder.
    pub(super) fn new() -> anyhow::Result<Self> {
        let parent = match builtin::cache_folder() {
            Some(cache) => Folder::create(cache.join("pull")),
            None => Folder::open(std::env::temp_dir()),
        };
        let parent =
            parent.context("cannot create a folder for the pip client; set INFER_CACHE to a cache folder")?;
        let context = || format!("cannot write into `{}`", parent.path().display());
        for name in parent.names().with_context(context)? {
            if builtin::cache_folder().is_some() && name.to_string_lossy().starts_with(WORKPLACE) {
                remove_abandoned(&parent, &name);
            }
        }
        let (name, folder) = parent.new_folder(WORKPLACE).with_context(context)?;
        let lock = folder.lock_file(LOCK).with_context(context)?;
        lock.lock().with_context(context)?;
        for inner in ["empty", "tmp", WHEELS] {
            folder.create_folder(inner).with_context(context)?;
        }
        Ok(Workplace { parent, name, folder, _lock: lock })
    }

    /// Removes the files of the last client.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        for name in ["tmp", WHEELS, "empty"] {
            let cleared = self.folder.remove_all(name).and_then(|()| self.folder.create_folder(name));
            cleared.with_context(|| format!("cannot write `{}`", self.folder.join(name).display()))?;
        }
        Ok(())
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = self.parent.remove_all(&self.name);
    }
}

const LOCK: &str = ".lock";

/// Folder of downloaded wheels.
pub(super) const WHEELS: &str = "wheels";

/// Removes the workplace `name` unless the process that locked it is alive.
fn remove_abandoned(parent: &Folder, name: &OsString) {
    let lock = parent.folder(name).and_then(|folder| folder.lock_file(LOCK));
    if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
        let _ = parent.remove_all(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_of_a_killed_pull_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let parent = Folder::create(scratch.path().join("pull")).unwrap();
        let (dead, folder) = parent.new_folder(WORKPLACE).unwrap();
        folder.create_file("wheel", 0o600).unwrap();
        let (alive, folder) = parent.new_folder(WORKPLACE).unwrap();
        let lock = folder.lock_file(LOCK).unwrap();
        lock.lock().unwrap();
        remove_abandoned(&parent, &dead);
        remove_abandoned(&parent, &alive);
        assert_eq!(parent.names().unwrap(), [alive]);
    }
}
