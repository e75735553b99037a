//! Checks free disk space and writes files atomically.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use indicatif::HumanBytes;
use infer_engine::files::{self, Folder, Status, free_bytes};

/// Checks that the disk of `folder` has `needed` bytes free for `file`.
///
/// # Errors
///
/// If the disk has less space, or cannot report it.
pub fn require_space(folder: &Folder, file: &str, needed: u64) -> anyhow::Result<()> {
    let shown = folder.path().display();
    let free = free_bytes(folder).with_context(|| format!("cannot read the free space of `{shown}`"))?;
    if free < needed {
        bail!(
            "`{shown}` has {} free, `{file}` needs {} there; free some space, or choose a folder on a larger disk",
            HumanBytes(free),
            HumanBytes(needed)
        );
    }
    Ok(())
}

/// Writes `text` to `path` atomically and keeps the permissions of an existing file.
///
/// # Errors
///
/// If the folder cannot be written. An existing file is then unchanged.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let (folder, name) = Folder::of(path)?;
    check_replaceable(&folder, &name)?;
    let mut file = folder.temporary(&name, 0o666)?;
    file.write_all(text.as_bytes())?;
    if let Some(mode) = folder.status(&name)?.filter(Status::is_file).map(|found| found.mode) {
        file.file().set_permissions(std::fs::Permissions::from_mode(mode))?;
    }
    file.persist()
}

/// Checks that a file may replace `name`: it is a regular file, a link to one, or missing.
///
/// # Errors
///
/// If it is a device, a FIFO, a socket or a folder.
pub fn check_replaceable(folder: &Folder, name: &OsStr) -> io::Result<()> {
    match folder.status(name)? {
        None => Ok(()),
        Some(found) if found.is_file() => Ok(()),
        Some(found) if found.is_link() => match files::open(folder.join(name)) {
            // A dangling link may be replaced.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            _ => Ok(()),
        },
        Some(_) => folder.open_file(name).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_are_replaced() {
        let scratch = tempfile::tempdir().unwrap();
        let place = |name: &str| scratch.path().join(name);
        fs::write(place("file"), "before").unwrap();
        fs::set_permissions(place("file"), fs::Permissions::from_mode(0o640)).unwrap();
        replace(&place("file"), "after").unwrap();
        assert_eq!(fs::read_to_string(place("file")).unwrap(), "after");
        assert_eq!(fs::metadata(place("file")).unwrap().permissions().mode() & 0o777, 0o640);
        // The link itself is replaced, not its target.
        symlink("file", place("link")).unwrap();
        replace(&place("link"), "new").unwrap();
        assert_eq!(fs::read_to_string(place("file")).unwrap(), "after");
        assert!(!place("link").is_symlink());
        for name in ["null", "folder"] {
            match name {
                "null" => symlink("/dev/null", place(name)).unwrap(),
                _ => fs::create_dir(place(name)).unwrap(),
            }
            let message = replace(&place(name), "new").unwrap_err().to_string();
            assert!(message.ends_with("expected a regular file"), "{message}");
        }
        let mut names = Folder::open(scratch.path()).unwrap().names().unwrap();
        names.sort();
        assert_eq!(names, ["file", "folder", "link", "null"]);
    }
}
