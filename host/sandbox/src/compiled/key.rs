//! The key that signs entries: 32 random bytes, generated once, that only their user can read.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;

use infer_engine::files::Folder;

const KEY: &str = "key";

const KEY_BYTES: usize = 32;

/// The key of `folder`, created if it does not exist. A key that others may read or write is
/// replaced.
///
/// # Errors
///
/// When the folder cannot be written, or when it contains another user's key.
pub(super) fn of(folder: &Folder) -> io::Result<[u8; KEY_BYTES]> {
    let shown = folder.join(KEY);
    let shown = shown.display();
    // If two programs create it at once, one succeeds, and both read that one.
    for _ in 0..3 {
        match read(folder) {
            Ok(key) => return Ok(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(folder)?,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!("`{shown}`: {error}; creating a new key and recompiling components");
                folder.remove_file(KEY)?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("cannot create `{shown}`")))
}

fn read(folder: &Folder) -> io::Result<[u8; KEY_BYTES]> {
    let mut file = folder.open_file(KEY)?;
    let found = file.metadata()?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "`{}` belongs to another user; remove it, or choose another cache folder",
                folder.join(KEY).display()
            ),
        ));
    }
    let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    if found.mode() & 0o077 != 0 {
        return Err(wrong(format!("mode is {:03o}, expected 600", found.mode() & 0o777)));
    }
    if found.len() != KEY_BYTES as u64 {
        return Err(wrong(format!("length is {} bytes, expected {KEY_BYTES}", found.len())));
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key)?;
    Ok(key)
}

/// Writes a new key beside its place, and renames it unless a key exists by then.
fn make(folder: &Folder) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    let mut file = folder.temporary(KEY, 0o600)?;
    file.write_all(&key)?;
    match file.persist_new() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}
