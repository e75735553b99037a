//! Errors of GGUF files.

use crate::text::{QUOTE_BYTES, excerpt};

/// A GGUF file that is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GgufError {
    /// The file as a whole.
    #[error("the GGUF file {0}")]
    File(String),
    /// A metadata key.
    #[error("key {key} {message}")]
    Key {
        /// Name of the key, in backticks.
        key: String,
        /// Found and expected values.
        message: String,
    },
    /// A tensor.
    #[error("tensor {name} {message}")]
    Tensor {
        /// Name of the tensor, in backticks.
        name: String,
        /// Found and expected properties.
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
