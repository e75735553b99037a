//! Status of a name in a folder.

use rustix::fs::FileType;

/// Status of a name in a folder at one point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub(super) kind: FileType,
    /// Device and inode. Names with the same identity are the same file.
    pub identity: (u64, u64),
    /// Permission bits.
    pub mode: u32,
    /// Number of hard links.
    pub links: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Modification time: seconds since 1970, and nanoseconds.
    pub modified: (i64, u32),
}

impl Status {
    /// True for a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// True for a folder.
    pub fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// True for a socket.
    pub fn is_socket(&self) -> bool {
        self.kind == FileType::Socket
    }

    /// True for a symbolic link.
    pub fn is_link(&self) -> bool {
        self.kind == FileType::Symlink
    }
}
