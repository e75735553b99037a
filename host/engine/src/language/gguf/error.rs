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
    /// An error in one of several files.
    #[error("part {number} of {count}: {error}")]
    Part {
        /// Number of the part, from 1.
        number: usize,
        /// Number of parts.
        count: usize,
        /// The error.
        error: Box<GgufError>,
    },
}

impl GgufError {
    /// Adds the number of the part, if there are several.
    pub(crate) fn in_part(self, number: usize, count: usize) -> Self {
        if count == 1 { self } else { GgufError::Part { number, count, error: Box::new(self) } }
    }

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
