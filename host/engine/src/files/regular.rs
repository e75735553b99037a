//! Opening and reading of regular files; everything else is rejected.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, RawMode};

/// Flags for all files: do not block on a FIFO, and do not acquire a controlling terminal.
pub(super) const FLAGS: OFlags = OFlags::CLOEXEC.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Opens the regular file at `path` for reading. Links are followed.
///
/// # Errors
///
/// When it cannot be opened, or is a FIFO, a socket, a device or a folder.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    let path = path.as_ref();
    // Check before opening, because opening a device may have side effects, and after opening,
    // because the path may have been replaced.
    expect_regular(file_type(&fs::metadata(path)?))?;
    regular(File::from(rustix::fs::open(path, FLAGS | OFlags::RDONLY, Mode::empty())?))
}

/// Reads the regular file at `path` of at most `max` bytes. Links are followed.
///
/// # Errors
///
/// As [`open`], and when the file is longer.
pub fn read(path: impl AsRef<Path>, max: u64) -> io::Result<Vec<u8>> {
    read_opened(open(path)?, max)
}

/// Reads the UTF-8 text at `path` of at most `max` bytes. Links are followed.
///
/// # Errors
///
/// As [`read`], and when the file is not UTF-8.
pub fn read_to_string(path: impl AsRef<Path>, max: u64) -> io::Result<String> {
    text(read(path, max)?)
}

/// Reads at most `max` bytes of an open file from its current position.
///
/// # Errors
///
/// When it cannot be read, or has more bytes.
pub fn read_opened(file: File, max: u64) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len();
    if size > max {
        return Err(too_long(max));
    }
    let mut bytes = Vec::with_capacity(size as usize + 1);
    // The file may grow while it is read.
    file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(too_long(max));
    }
    Ok(bytes)
}

pub(super) fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 at byte {at}"))
    })
}

fn too_long(max: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {max} bytes"))
}

pub(super) fn regular(file: File) -> io::Result<File> {
    expect_regular(file_type(&file.metadata()?))?;
    Ok(file)
}

fn file_type(found: &Metadata) -> FileType {
    FileType::from_raw_mode(found.mode() as RawMode)
}

pub(super) fn expect_regular(found: FileType) -> io::Result<()> {
    if found.is_file() { Ok(()) } else { Err(unexpected(found, "a regular file")) }
}

/// Checks that a file with `links` names may be written: the user id `owner` is the current user's,
/// and no other name refers to the file.
pub(super) fn expect_own(links: u64, owner: u32) -> io::Result<()> {
    let found = if links != 1 {
        format!("has {links} names, expected one")
    } else if owner != rustix::process::geteuid().as_raw() {
        format!("belongs to user {owner}, expected the current user")
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("it {found}")))
}

pub(super) fn unexpected(found: FileType, expected: &str) -> io::Error {
    let found = match found {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "of an unknown type",
    };
    io::Error::new(io::ErrorKind::InvalidData, format!("it is {found}, expected {expected}"))
}
