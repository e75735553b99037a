//! A file that a card lists: its name, role, size and hash.

use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::limits::{MAX_FILE_NAME_BYTES, MAX_REJECTED_VALUE_BYTES};
use crate::text::{excerpt, has_controls};
use crate::weights::{CardError, ExpectedFile};

/// A file that belongs to a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// Plain file name, without separators and not `..`.
    #[serde(deserialize_with = "plain_name")]
    pub path: String,
    /// Role of the file.
    pub role: Role,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "sha256")]
    pub sha256: String,
}

impl CardFile {
    /// Verifies the size and the hash of the file at `path`, which is read in pieces.
    ///
    /// # Errors
    ///
    /// When it is missing, cannot be read, or differs.
    pub fn verify(&self, path: &Path) -> Result<(), CardError> {
        self.expected().verify(path)
    }

    /// Verifies the size and the hash of a file that was opened at `path`, from its beginning. It
    /// is read in pieces.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or differs.
    pub fn verify_opened(&self, path: &Path, file: &File) -> Result<(), CardError> {
        self.expected().verify_opened(path, file)
    }

    /// Size and hash for verification.
    pub(crate) fn expected(&self) -> ExpectedFile<'_> {
        ExpectedFile { bytes: self.bytes, sha256: &self.sha256 }
    }
}

/// Role of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The file that the backend loads; exactly one.
    Model,
    /// Names of the classes, one per line.
    Labels,
    /// Tokenizer in the format of the `tokenizers` library.
    Tokenizer,
    /// Heads on the embedding of the model: a [`HeadFile`](super::HeadFile).
    Head,
    /// External data of an ONNX model, or a further part of a GGUF file.
    Data,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Model => "model",
            Role::Labels => "labels",
            Role::Tokenizer => "tokenizer",
            Role::Head => "head",
            Role::Data => "data",
        })
    }
}

/// File name of a card.
pub(crate) const CARD: &str = "card.toml";

/// Names of files that the program reads or writes beside a model. A pull would replace them.
const RESERVED: [&str; 3] = [CARD, "infer.toml", "infer.lock"];

/// Parses a file name that cannot leave the card's folder, and is not reserved.
fn plain_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    let is_reserved = RESERVED.iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
    let reason = if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\\', ':', '\0']) {
        "is not a plain file name; expected the name of a file beside card.toml, without separators"
    } else if is_reserved || name.starts_with('.') {
        "is a reserved file name; expected one that does not start with `.`, and is not `card.toml`, \
         `infer.toml` or `infer.lock`"
    } else if name.len() > MAX_FILE_NAME_BYTES {
        "is too long for a file name, expected at most 255 bytes"
    } else if has_controls(&name) {
        "has control characters, expected a file name without them"
    } else {
        return Ok(name);
    };
    Err(D::Error::custom(format!("`{}` {reason}", excerpt(&name, MAX_REJECTED_VALUE_BYTES))))
}

/// Parses a SHA-256 as tools print it.
pub(super) fn sha256<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let digits = String::deserialize(deserializer)?;
    if digits.len() != 64 || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(D::Error::custom(format!(
            "`{}` is not a sha256, expected 64 lower-case hexadecimal digits",
            excerpt(&digits, MAX_REJECTED_VALUE_BYTES)
        )));
    }
    Ok(digits)
}
