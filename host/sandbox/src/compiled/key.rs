//! The key that entries are signed with: 32 random bytes, made once, that only their user can read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

const KEY: &str = "key";

const KEY_BYTES: usize = 32;

/// The key of `folder`, which is made where there is none. One that others may read or write is replaced.
///
/// # Errors
///
/// When the folder cannot be written, or when another user's key is there.
pub(super) fn of(folder: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY);
    // Of two programs that make it at once, one makes it, and both read that one.
    for _ in 0..3 {
        match read(&path) {
            Ok(key) => return Ok(key),
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(folder, &path)?,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let shown = path.display();
                tracing::warn!("`{shown}` {error}; a new key is made, and components are compiled anew");
                fs::remove_file(&path)?;
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("`{}` cannot be made", path.display())))
}

fn read(path: &Path) -> io::Result<[u8; KEY_BYTES]> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits() as i32;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let found = file.metadata()?;
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "`{}` belongs to another user; remove it, or choose another cache folder",
                path.display()
            ),
        ));
    }
    let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidData, message);
    if found.mode() & 0o077 != 0 {
        return Err(wrong(format!("has the mode {:03o}, expected 600", found.mode() & 0o777)));
    }
    if !found.is_file() || found.len() != KEY_BYTES as u64 {
        return Err(wrong(format!("is {} bytes, expected {KEY_BYTES}", found.len())));
    }
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key)?;
    Ok(key)
}

/// Write a new key beside its place, and put it there unless one is there by then.
fn make(folder: &Path, path: &Path) -> io::Result<()> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
    fs::create_dir_all(folder)?;
    let partial = folder.join(format!("{KEY}.{}.{}", std::process::id(), super::PARTIAL));
    let _ = fs::remove_file(&partial);
    let write = || -> io::Result<()> {
        let mut file: File = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(&key)?;
        file.sync_all()
    };
    // A link, unlike a rename, takes nobody's place.
    let made = write().and_then(|()| match fs::hard_link(&partial, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let _ = fs::remove_file(&partial);
    made
}
