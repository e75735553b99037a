//! GGUF files that are refused.

use crate::text::{QUOTE_BYTES, excerpt};

/// A file that is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufError {
    /// The file as a whole.
    #[error("the GGUF file {0}")]
    File(String),
    /// A metadata key.
    #[error("key {key} {message}")]
    Key {
        /// The key, in backticks.
        key: String,
        /// What was found, what was expected.
        message: String,
    },
    /// A tensor.
    #[error("tensor {name} {message}")]
    Tensor {
        /// Its name, in backticks.
        name: String,
        /// What was found, what was expected.
        message: String,
    },
}

impl GgufError {
    pub(crate) fn key(key: &str, message: impl Into<String>) -> Self {
        GgufError::Key { key: quoted(key), message: message.into() }
    }

    pub(crate) fn tensor(name: &str, message: impl Into<String>) -> Self {
        GgufError::Tensor { name: quoted(name), message: message.into() }
    }
}

/// An excerpt of a name from a file, in backticks.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", excerpt(name, QUOTE_BYTES))
}
