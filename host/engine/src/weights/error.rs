//! Errors of cards and weights.

use std::path::PathBuf;

/// The card or a file of the weights was rejected.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// A file does not exist.
    #[error("`{}` does not exist, expected {bytes} bytes with sha256 {sha256}", path.display())]
    Missing {
        /// Path of the file.
        path: PathBuf,
        /// Size in the card.
        bytes: u64,
        /// SHA-256 in the card.
        sha256: String,
    },
    /// A file is neither embedded in the program nor in a folder beside it.
    #[error("`{file}` is not among the embedded files: {}", known.join(", "))]
    NotEmbedded {
        /// Name of the file.
        file: String,
        /// Names of the embedded files.
        known: Vec<&'static str>,
    },
    /// The card is not valid TOML, or its content is invalid.
    #[error("`{}`: {message}", path.display())]
    Card {
        /// Path of the card.
        path: PathBuf,
        /// The problem, with its line if known.
        message: String,
    },
    /// The size of a file differs from the card.
    #[error(
        "`{}` is {found} bytes, its card says {expected}; restore the file, or correct the card if the file is right",
        path.display()
    )]
    Size {
        /// Path of the file.
        path: PathBuf,
        /// Bytes according to the card.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// The hash of a file differs from the card.
    #[error(
        "`{}` has sha256 {found}, its card says {expected}; restore the file, or correct the card if the file is right",
        path.display()
    )]
    Hash {
        /// Path of the file.
        path: PathBuf,
        /// SHA-256 according to the card.
        expected: String,
        /// SHA-256 of the content.
        found: String,
    },
    /// The file is not GGUF, or its header is invalid.
    #[error("`{}`: {message}", path.display())]
    Gguf {
        /// Path of the file.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// A head is invalid, or it does not fit the encoder.
    #[error("`{}`: {message}", path.display())]
    Head {
        /// Path of the head.
        path: PathBuf,
        /// The problem.
        message: String,
    },
    /// The labels are not UTF-8, or their number differs from the model's scores.
    #[error("`{}`: {message}", path.display())]
    Labels {
        /// Path of the labels.
        path: PathBuf,
        /// The problem.
        message: String,
    },
}
