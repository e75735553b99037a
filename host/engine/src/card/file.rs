//! A file that a card lists: its name, its role, its size and its hash.

use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::text::{QUOTE_BYTES, excerpt};
use crate::weights::{CardError, ExpectedFile};

/// A file that belongs to a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// A plain name: no separators, not `..`.
    #[serde(deserialize_with = "plain_name")]
    pub path: String,
    /// What the file is for.
    pub role: Role,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "sha256")]
    pub sha256: String,
}

impl CardFile {
    /// Check the size and the hash of the file at `path`. It is read in pieces.
    ///
    /// # Errors
    ///
    /// When it is missing, cannot be read, or is another file.
    pub fn verify(&self, path: &Path) -> Result<(), CardError> {
        self.expected().verify(path)
    }

    /// Check the size and the hash of a file that was opened at `path`, from its beginning. It is
    /// read in pieces.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is another file.
    pub fn verify_opened(&self, path: &Path, file: &File) -> Result<(), CardError> {
        self.expected().verify_opened(path, file)
    }

    /// Its size and hash, for a check.
    pub(crate) fn expected(&self) -> ExpectedFile<'_> {
        ExpectedFile { bytes: self.bytes, sha256: &self.sha256 }
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// What the backend loads; there is exactly one.
    Model,
    /// One label a line.
    Labels,
    /// Words and their ids.
    Vocabulary,
    /// Tensors of the model that its file keeps outside of itself: ONNX's external data.
    Data,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Model => "model",
            Role::Labels => "labels",
            Role::Vocabulary => "vocabulary",
            Role::Data => "data",
        })
    }
}

/// A file name that cannot leave the card's folder.
fn plain_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\\', ':', '\0']) {
        return Err(D::Error::custom(format!(
            "`{}` is not a plain file name; the file lies beside card.toml, and its name has no separators",
            excerpt(&name, QUOTE_BYTES)
        )));
    }
    Ok(name)
}

/// A SHA-256 as tools print it.
fn sha256<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let digits = String::deserialize(deserializer)?;
    if digits.len() != 64 || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(D::Error::custom(format!(
            "`{}` is not a sha256, expected 64 lower-case hexadecimal digits",
            excerpt(&digits, QUOTE_BYTES)
        )));
    }
    Ok(digits)
}
