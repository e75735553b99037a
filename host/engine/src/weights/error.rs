//! What can be wrong with weights.

use std::path::PathBuf;

/// Weights that are refused.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not there.
    #[error("`{}` does not exist, expected {bytes} bytes with sha256 {sha256}", path.display())]
    Missing {
        /// Where it is looked for.
        path: PathBuf,
        /// Its size by the card.
        bytes: u64,
        /// SHA-256 by the card.
        sha256: String,
    },
    /// The program carries no such file, and there is no other place to look for it.
    #[error("`{file}` is not among the embedded files: {}", known.join(", "))]
    NotEmbedded {
        /// The file.
        file: String,
        /// The files that are embedded.
        known: Vec<&'static str>,
    },
    /// The card is not TOML, or not a card.
    #[error("`{}`: {message}", path.display())]
    Card {
        /// The card.
        path: PathBuf,
        /// What is wrong, with its line where that is known.
        message: String,
    },
    /// A file has another size than the card says.
    #[error(
        "`{}` is {found} bytes, its card says {expected}; restore the file, or correct the card if the file is right",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes by the card.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// A file has another hash than the card says.
    #[error(
        "`{}` has sha256 {found}, its card says {expected}; restore the file, or correct the card if the file is right",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// SHA-256 by the card.
        expected: String,
        /// SHA-256 of the bytes.
        found: String,
    },
    /// The file is no GGUF that can be described.
    #[error("`{}`: {message}", path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The labels are not text, or not as many as the model has scores.
    #[error("`{}`: {message}", path.display())]
    Labels {
        /// The file of labels.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}
