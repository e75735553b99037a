//! The status of a name in a folder.

use rustix::fs::FileType;

/// A name in a folder, as it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub(super) kind: FileType,
    /// The numbers of its device and of itself there: equal ones are one file.
    pub identity: (u64, u64),
    /// Its rights.
    pub mode: u32,
    /// Its size.
    pub bytes: u64,
    /// When its content last changed: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

impl Status {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a socket.
    pub fn is_socket(&self) -> bool {
        self.kind == FileType::Socket
    }

    /// Whether it is a symbolic link.
    pub fn is_link(&self) -> bool {
        self.kind == FileType::Symlink
    }
}
