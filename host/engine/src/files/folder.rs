//! A folder that the program manages, by its descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RawMode};
use rustix::io::Errno;

use super::name::{not_plain, plain, unique};
use super::regular::{FLAGS, expect_own, expect_regular, read_opened, regular, text, unexpected};
use super::status::Status;

/// A folder that the program manages. All names are single components, relative to the folder's
/// descriptor, and links are not followed: reading a link is an error, and replacing or removing
/// one affects the link itself.
#[derive(Debug)]
pub struct Folder {
    descriptor: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens the folder at `path`, which the operator has chosen. Links are followed.
    ///
    /// # Errors
    ///
    /// When the folder does not exist.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let descriptor = rustix::fs::openat(CWD, shown, flags, Mode::empty())?;
        Ok(Folder { descriptor, path: path.to_owned() })
    }

    /// Opens the folder at `path`, and creates it if it is missing. Its last component must not be
    /// a link; the folders above it are the operator's choice.
    ///
    /// # Errors
    ///
    /// When it cannot be created, or `path` is a link or a file.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                fs::create_dir_all(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
                Folder::open(parent)?.create_folder(name)
            }
            _ => Folder::open(path),
        }
    }

    /// Opens the existing folder at `path` as [`Folder::create`] does.
    ///
    /// # Errors
    ///
    /// When the folder does not exist, or `path` is a link or a file.
    pub fn existing(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Folder::open(parent)?.folder(name),
            _ => Folder::open(path),
        }
    }

    /// Opens the folder of the file at `path`, which the operator has chosen, and returns it with
    /// the name of the file.
    ///
    /// # Errors
    ///
    /// When the folder does not exist, or `path` has no file name.
    pub fn of(path: &Path) -> io::Result<(Self, OsString)> {
        let name = path.file_name().ok_or_else(|| not_plain(path.as_os_str()))?;
        Ok((Folder::open(path.parent().unwrap_or(Path::new("")))?, name.to_owned()))
    }

    /// Path by which the folder was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Path of `name` in the folder, for messages.
    pub fn join(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.path.join(name.as_ref())
    }

    /// Opens the subfolder `name`.
    ///
    /// # Errors
    ///
    /// When it does not exist, or is a link or a file.
    pub fn folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = plain(name.as_ref())?;
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        match rustix::fs::openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Folder { descriptor, path: self.join(name) }),
            Err(error @ (Errno::NOTDIR | Errno::LOOP)) => {
                Err(self.file_type(name)?.map_or(error.into(), |found| unexpected(found, "a folder")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the subfolder `name`, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// When it cannot be created, or is a link or a file.
    pub fn create_folder(&self, name: impl AsRef<OsStr>) -> io::Result<Self> {
        let name = plain(name.as_ref())?;
        match rustix::fs::mkdirat(&self.descriptor, name, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => self.folder(name),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a subfolder with a unique name that starts with `prefix`. Only its owner may access
    /// it.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn new_folder(&self, prefix: &str) -> io::Result<(OsString, Self)> {
        let (name, ()) = unique(
            || format!("{prefix}{:016x}", fastrand::u64(..)).into(),
            |name| {
                rustix::fs::mkdirat(&self.descriptor, plain(name)?, Mode::from_raw_mode(0o700))
                    .map_err(Into::into)
            },
        )?;
        let folder = self.folder(&name)?;
        Ok((name, folder))
    }

    /// Opens the regular file `name` for reading.
    ///
    /// # Errors
    ///
    /// When it does not exist, or is a link, a FIFO, a socket, a device or a folder.
    pub fn open_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_existing(name.as_ref(), OFlags::RDONLY)
    }

    /// Opens the regular file `name` for reading and writing. It must belong to the current user
    /// and have no other name: a write to a hard link would change the file of the other name.
    ///
    /// # Errors
    ///
    /// As [`Folder::open_file`], and when the file has another name or another owner.
    pub fn open_to_write(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        let file = self.open_existing(name.as_ref(), OFlags::RDWR)?;
        let found = file.metadata()?;
        expect_own(found.nlink(), found.uid())?;
        Ok(file)
    }

    /// Opens the regular file `name` as [`Folder::open_to_write`] does. If that fails, removes
    /// `name` and creates a file with the permissions `mode` (less the umask).
    ///
    /// # Errors
    ///
    /// When `name` cannot be removed, or the file cannot be created.
    pub fn open_or_create(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        let name = name.as_ref();
        match self.open_to_write(name) {
            Ok(file) => Ok(file),
            Err(_) => {
                self.remove_all(name)?;
                self.create_file(name, mode)
            }
        }
    }

    fn open_existing(&self, name: &OsStr, flags: OFlags) -> io::Result<File> {
        let name = plain(name)?;
        match self.file_type(name)? {
            Some(found) => expect_regular(found)?,
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        self.open_at(name, flags, 0)
    }

    fn open_at(&self, name: &OsStr, flags: OFlags, mode: u32) -> io::Result<File> {
        let flags = FLAGS | OFlags::NOFOLLOW | flags;
        match rustix::fs::openat(&self.descriptor, name, flags, Mode::from_raw_mode(mode as RawMode)) {
            Ok(descriptor) => regular(File::from(descriptor)),
            // A link or a socket.
            Err(error @ (Errno::LOOP | Errno::NXIO | Errno::ISDIR)) => {
                Err(self.file_type(name)?.map_or(error.into(), |found| unexpected(found, "a regular file")))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the regular file `name` of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// As [`Folder::open_file`], and when the file is longer.
    pub fn read(&self, name: impl AsRef<OsStr>, max: u64) -> io::Result<Vec<u8>> {
        read_opened(self.open_file(name)?, max)
    }

    /// Reads the UTF-8 text in `name` of at most `max` bytes.
    ///
    /// # Errors
    ///
    /// As [`Folder::read`], and when the file is not UTF-8.
    pub fn read_to_string(&self, name: impl AsRef<OsStr>, max: u64) -> io::Result<String> {
        text(self.read(name, max)?)
    }

    /// Opens the lock file `name`, and creates it if it is missing. It is never truncated. The
    /// caller locks it.
    ///
    /// # Errors
    ///
    /// When it cannot be created, or is not a regular file.
    pub fn lock_file(&self, name: impl AsRef<OsStr>) -> io::Result<File> {
        self.open_at(plain(name.as_ref())?, OFlags::RDWR | OFlags::CREATE, 0o666)
    }

    /// Creates the file `name` with the permissions `mode` (less the umask), for reading and
    /// writing.
    ///
    /// # Errors
    ///
    /// When it cannot be created, or `name` exists.
    pub fn create_file(&self, name: impl AsRef<OsStr>, mode: u32) -> io::Result<File> {
        self.open_at(plain(name.as_ref())?, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, mode)
    }

    /// Renames `from` to `to` in the folder `other` of the same file system, and replaces an
    /// existing file.
    ///
    /// # Errors
    ///
    /// When either folder cannot be written, or `from` does not exist.
    pub fn rename(&self, from: impl AsRef<OsStr>, other: &Folder, to: impl AsRef<OsStr>) -> io::Result<()> {
        let (from, to) = (plain(from.as_ref())?, plain(to.as_ref())?);
        Ok(rustix::fs::renameat(&self.descriptor, from, &other.descriptor, to)?)
    }

    /// Creates a hard link `to` in the folder `other` for the file `from`.
    ///
    /// # Errors
    ///
    /// When it cannot be created, or `to` exists.
    pub fn link_to(&self, from: impl AsRef<OsStr>, other: &Folder, to: impl AsRef<OsStr>) -> io::Result<()> {
        let (from, to) = (plain(from.as_ref())?, plain(to.as_ref())?);
        Ok(rustix::fs::linkat(&self.descriptor, from, &other.descriptor, to, AtFlags::empty())?)
    }

    /// Removes the file or link `name`.
    ///
    /// # Errors
    ///
    /// When it does not exist, or cannot be removed.
    pub fn remove_file(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.descriptor, plain(name.as_ref())?, AtFlags::empty())?)
    }

    /// Names in the folder, in no particular order.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.descriptor)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Status of `name`, without following a link; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// When the status cannot be read.
    pub fn status(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Status>> {
        let found =
            match rustix::fs::statat(&self.descriptor, plain(name.as_ref())?, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => found,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        Ok(Some(Status {
            kind: FileType::from_raw_mode(found.st_mode),
            identity: (found.st_dev, found.st_ino),
            mode: found.st_mode as u32 & 0o7777,
            links: found.st_nlink as u64,
            bytes: u64::try_from(found.st_size).unwrap_or(0),
            modified: (found.st_mtime, found.st_mtime_nsec as u32),
        }))
    }

    fn file_type(&self, name: &OsStr) -> io::Result<Option<FileType>> {
        Ok(self.status(name)?.map(|found| found.kind))
    }

    /// Target of the link `name`.
    ///
    /// # Errors
    ///
    /// When it is not a link.
    pub fn read_link(&self, name: impl AsRef<OsStr>) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.descriptor, plain(name.as_ref())?, Vec::new())?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Waits until the names in the folder are on disk.
    ///
    /// # Errors
    ///
    /// When the disk reports an error.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.descriptor)?)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
