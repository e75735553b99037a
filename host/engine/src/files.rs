//! Opening, creating and replacing files where others may write: one place for the whole program.
//!
//! - [`open`], [`read`] and [`read_to_string`] take a path that the operator has chosen. Links are
//!   followed; anything but a regular file is rejected, without waiting for the other end of a
//!   FIFO.
//! - A [`Folder`] is a descriptor of a folder that the program manages. Whatever is created,
//!   replaced or removed there is named relative to that descriptor, and no link in it is followed.
//!
//! Errors have the form "it is a FIFO, expected a regular file"; as with `std::fs`, callers name
//! the path.

mod folder;
mod name;
mod regular;
mod status;
mod temporary;
#[cfg(test)]
mod tests;
mod tree;

pub use folder::Folder;
pub use regular::{open, read, read_opened, read_to_string};
pub use status::Status;
pub use temporary::Temporary;
