//! Files of a model on disk: opened once, hashed, verified, mapped and cached.

pub(crate) mod bytes;
mod cache;
mod error;
mod hash;
mod opened;
mod verify;

pub(crate) use bytes::{Bytes, DataFile};
pub use cache::WeightCache;
pub(crate) use cache::{PackedSlot, known};
pub use error::CardError;
pub(crate) use hash::hex;
pub(crate) use opened::{Links, Opened};
pub(crate) use verify::ExpectedFile;
