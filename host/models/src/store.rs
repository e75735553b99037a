//! Content-addressed store of the files that `infer pull` has fetched.
//!
//! A file is stored once, as `blobs/sha256-HEX` in the cache folder, and appears there when it is
//! complete and verified. Its name is a symbolic link, `models/NAME/FILE`, so two models may share
//! a file, and a name is created or removed atomically. A plain file in place of the link works as
//! well: the next pull makes it a blob; otherwise it is left alone.
//!
//! # Layout
//!
//! - `cache`: the folders of the store; `blobs`: adds and links files
//! - `listing`: files by model, and blobs without a name; `removal`: removes models

mod blobs;
mod cache;
mod listing;
mod removal;
#[cfg(test)]
mod tests;

pub use blobs::VerifiedFile;
pub(crate) use cache::{PULL_LOCK, SCRATCH};
pub use cache::{Store, sha256};
pub use listing::Stored;
pub use removal::Freed;
