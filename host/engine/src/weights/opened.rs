//! An open file. It is hashed, parsed, read and mapped through one descriptor, even if its path is
//! replaced meanwhile. Writes to the file while it is loaded are detected.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use super::cache::{Identity, WeightCache, since_1970};
use super::hash::sha256;
use crate::files::{self, Folder};

/// Coarsest resolution of file system times. A second write within one step does not change the
/// times.
const CLOCK_STEP: Duration = Duration::from_millis(20);

/// A regular file that is open for reading.
pub(crate) struct Opened {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Metadata when the file was opened; `None` if the system does not support it.
    identity: Option<Identity>,
}

impl Opened {
    /// Opens the regular file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be opened, or is not a regular file.
    pub(crate) fn open(path: &Path, links: Links) -> io::Result<Self> {
        let file = match links {
            Links::Follow => files::open(path)?,
            Links::Refuse => {
                let (folder, name) = Folder::of(path)?;
                folder.open_file(name)?
            }
        };
        let metadata = file.metadata()?;
        let identity = Identity::of(&metadata);
        Ok(Opened { path: path.to_owned(), file, bytes: metadata.len(), identity })
    }

    /// The open file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Size of the file when it was opened.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Checks whether the file starts with `magic`.
    pub(crate) fn begins_with(&self, magic: &[u8]) -> bool {
        let mut found = Vec::with_capacity(magic.len());
        let read = (&self.file).take(magic.len() as u64).read_to_end(&mut found);
        read.is_ok() && found == magic
    }

    /// Reads the whole file and computes its SHA-256.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or its size has changed.
    pub(crate) fn read(&mut self) -> io::Result<(Vec<u8>, [u8; 32])> {
        self.file.rewind()?;
        let mut content = Vec::with_capacity(usize::try_from(self.bytes).unwrap_or(0));
        (&self.file).take(self.bytes.saturating_add(1)).read_to_end(&mut content)?;
        if content.len() as u64 != self.bytes {
            return Err(changed());
        }
        let digest = Sha256::digest(&content).into();
        Ok((content, digest))
    }

    /// Returns the SHA-256 of the file: the one in `cache` if the file is unchanged, otherwise
    /// computed.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is written meanwhile.
    pub(crate) fn sha256(&mut self, cache: Option<&WeightCache>) -> io::Result<[u8; 32]> {
        self.settle();
        self.file.rewind()?;
        let digest = match cache {
            Some(cache) => cache.sha256(&self.path, &mut self.file),
            None => sha256(&mut self.file),
        };
        let digest = digest?;
        self.check_unchanged()?;
        Ok(digest)
    }

    /// Waits until a write would change the file's times, if the file was written just now.
    fn settle(&self) {
        let Some(identity) = &self.identity else { return };
        let age = since_1970(SystemTime::now()).saturating_sub(identity.changed_ns);
        let step = CLOCK_STEP.as_nanos() as i64;
        // If the clock is behind the file system's, the age is unknown.
        if (0..step).contains(&age) {
            std::thread::sleep(CLOCK_STEP);
        }
    }

    /// Checks that the file has not been written since it was opened.
    ///
    /// # Errors
    ///
    /// When it has been written.
    pub(crate) fn check_unchanged(&self) -> io::Result<()> {
        let now = self.file.metadata()?;
        let same = match &self.identity {
            Some(identity) => Identity::of(&now).as_ref() == Some(identity),
            None => now.len() == self.bytes,
        };
        if same { Ok(()) } else { Err(changed()) }
    }
}

fn changed() -> io::Error {
    io::Error::other(
        "the file was changed or replaced while it was loaded; try again, and replace files by renaming, never by \
         writing in place",
    )
}

/// Treatment of a symbolic link as the last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    Follow,
    Refuse,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opened({})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::weights::bytes::Bytes;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        fs::write(&path, content).unwrap();
        (folder, path)
    }

    fn digest(content: &str) -> [u8; 32] {
        Sha256::digest(content).into()
    }

    #[test]
    fn one_descriptor_is_hashed_and_mapped() {
        let (folder, path) = file("this one");
        let mut opened = Opened::open(&path, Links::Follow).unwrap();
        assert_eq!(opened.sha256(None).unwrap(), digest("this one"));
        let other = folder.path().join("other");
        fs::write(&other, "that one").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(opened.read().unwrap(), (b"this one".to_vec(), digest("this one")));
        let bytes = Bytes::from_opened(opened).unwrap();
        assert_eq!(&bytes[..], b"this one");
        assert!(bytes.check_unchanged().is_err(), "replacing a file changes its change time");
    }

    #[test]
    fn concurrent_write_is_detected() {
        let (_folder, path) = file("before");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let mut opened = Opened::open(&path, Links::Follow).unwrap();
        opened.sha256(None).unwrap();
        let bytes = Bytes::from_opened(opened).unwrap();
        bytes.check_unchanged().unwrap();
        // The same size and modification time.
        fs::write(&path, "after.").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let error = bytes.check_unchanged().unwrap_err().to_string();
        assert!(
            error.starts_with("the file was changed or replaced while it was loaded; try again"),
            "{error}"
        );

        let mut opened = Opened::open(&path, Links::Follow).unwrap();
        fs::write(&path, "longer than before").unwrap();
        assert!(opened.read().is_err() && opened.sha256(None).is_err());
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (folder, path) = file("GGUF and more");
        assert!(Opened::open(&path, Links::Refuse).unwrap().begins_with(b"GGUF"));
        assert!(!Opened::open(&path, Links::Refuse).unwrap().begins_with(b"ONNX"));
        let error = Opened::open(folder.path(), Links::Follow).unwrap_err().to_string();
        assert!(error.contains("regular file"), "{error}");
        #[cfg(unix)]
        {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            assert!(Opened::open(&link, Links::Follow).is_ok());
            assert!(Opened::open(&link, Links::Refuse).is_err());
            assert!(Opened::open(Path::new("/dev/zero"), Links::Follow).is_err());
            let fifo = folder.path().join("fifo");
            rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
            assert!(Opened::open(&fifo, Links::Follow).is_err(), "without waiting for a writer");
        }
    }
}
