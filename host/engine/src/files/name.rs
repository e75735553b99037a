//! Names of files in a folder: single components, and free ones for temporary files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;

/// Attempts at a name that nobody has taken.
const ATTEMPTS: usize = 16;

pub(super) fn partial_name(name: &OsStr) -> OsString {
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(format!(".{:016x}.partial", fastrand::u64(..)));
    partial
}

/// What `create` creates under the first of the names that is free, and that name.
pub(super) fn unique<T>(
    mut name: impl FnMut() -> OsString,
    mut create: impl FnMut(&OsStr) -> io::Result<T>,
) -> io::Result<(OsString, T)> {
    for _ in 0..ATTEMPTS {
        let name = name();
        match create(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return created.map(|created| (name, created)),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no name is free for a temporary file"))
}

/// `name`, if it is one name and does not lead out of its folder.
pub(super) fn plain(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
        return Err(not_plain(name));
    }
    Ok(name)
}

pub(super) fn not_plain(name: &OsStr) -> io::Error {
    let shown = name.to_string_lossy();
    let message = format!("`{}` is not a plain file name", shown.escape_debug());
    io::Error::new(io::ErrorKind::InvalidInput, message)
}
