//! Free space on a disk.

use std::io;
use std::os::fd::AsFd;

/// Bytes of the disk that caches leave free for other users.
pub(crate) const RESERVED_BYTES: u64 = 256 << 20;

/// Returns the bytes that are free on the disk of a file or folder.
///
/// # Errors
///
/// If the disk cannot report its free space.
pub fn free_bytes(place: impl AsFd) -> io::Result<u64> {
    let found = rustix::fs::fstatvfs(place)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}
