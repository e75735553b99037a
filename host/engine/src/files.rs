//! Safe access to files in places where others may write, for the whole program.
//!
//! - [`open`], [`read`] and [`read_to_string`] take a path that the operator has chosen. Links are
//!   followed. Everything except a regular file is rejected, without blocking on a FIFO.
//! - A [`Folder`] is the descriptor of a folder that the program manages. Files are created,
//!   replaced and removed relative to that descriptor, and links in it are not followed.
//!
//! - [`free_bytes`]: space on a disk.
//!
//! Errors have the form "it is a FIFO, expected a regular file". As with `std::fs`, callers add the
//! path.

mod disk;
mod folder;
mod name;
mod regular;
mod status;
mod temporary;
#[cfg(test)]
mod tests;
mod tree;

pub(crate) use disk::RESERVED_BYTES;
pub use disk::free_bytes;
pub use folder::Folder;
pub use regular::{open, read, read_opened, read_to_string};
pub use status::Status;
pub use temporary::Temporary;
