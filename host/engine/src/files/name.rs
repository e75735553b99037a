//! Names in a folder: checks of single components, and unique names for temporary files.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;

/// Number of attempts to find an unused name.
const ATTEMPTS: usize = 16;

pub(super) fn partial_name(name: &OsStr) -> OsString {
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(format!(".{:016x}.partial", fastrand::u64(..)));
    partial
}

/// Calls `create` with names until one is unused, and returns that name with the result.
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
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "found no unused name for a temporary file"))
}

/// Checks that `name` is a single component inside its folder.
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
