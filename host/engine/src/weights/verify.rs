//! Verification of files against the size and the hash in a card.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;

use super::error::CardError;
use super::hash::{hex, sha256};
use super::opened::{Links, Opened};

/// Size and hash of a file according to its card.
#[derive(Clone, Copy)]
pub(crate) struct ExpectedFile<'c> {
    pub(crate) bytes: u64,
    /// SHA-256 in 64 lower-case hexadecimal digits.
    pub(crate) sha256: &'c str,
}

impl ExpectedFile<'_> {
    /// Verifies the file at `path`.
    pub(crate) fn verify(&self, path: &Path) -> Result<(), CardError> {
        let digest = self.open(path, Links::Follow)?.sha256(None);
        let digest = digest.map_err(|source| CardError::Read { path: path.to_owned(), source })?;
        self.check_hash(path, &digest)
    }

    /// Verifies a file that was opened at `path`, from its beginning.
    pub(crate) fn verify_opened(&self, path: &Path, mut opened: &File) -> Result<(), CardError> {
        let failed = |source| CardError::Read { path: path.to_owned(), source };
        self.check_size(path, opened.metadata().map_err(failed)?.len())?;
        opened.rewind().map_err(failed)?;
        let digest = sha256(&mut opened).map_err(failed)?;
        self.check_hash(path, &digest)
    }

    /// Opens the file at `path` and checks its size, so that a wrong file is reported before
    /// gigabytes are read.
    pub(crate) fn open(&self, path: &Path, links: Links) -> Result<Opened, CardError> {
        let opened = Opened::open(path, links).map_err(|source| {
            let path = path.to_owned();
            match source.kind() {
                io::ErrorKind::NotFound => {
                    CardError::Missing { path, bytes: self.bytes, sha256: self.sha256.to_owned() }
                }
                _ => CardError::Read { path, source },
            }
        })?;
        self.check_size(path, opened.bytes())?;
        Ok(opened)
    }

    pub(crate) fn check_hash(&self, path: &Path, digest: &[u8; 32]) -> Result<(), CardError> {
        let found = hex(digest);
        if found == self.sha256 {
            return Ok(());
        }
        Err(CardError::Hash { path: path.to_owned(), expected: self.sha256.to_owned(), found })
    }

    pub(crate) fn check_size(&self, path: &Path, found: u64) -> Result<(), CardError> {
        if found == self.bytes {
            return Ok(());
        }
        Err(CardError::Size { path: path.to_owned(), expected: self.bytes, found })
    }
}
