//! Converts untrusted image files to the numbers that a model takes.
//!
//! [`decode`] parses the untrusted bytes, which is why it runs in a sandbox. A [`Recipe`], from the
//! model's card, crops, resizes and normalises. A [`Viewer`] shows more of an image than the middle
//! of its first frame. Nothing here calls the host.

mod decode;
mod frames;
mod jpeg;
mod limits;
mod orientation;
mod picture;
mod recipe;
mod region;
mod views;

pub use decode::decode;
pub use limits::DEFAULT_MAX_PIXELS;
pub use picture::{Picture, Region};
pub use recipe::{Color, Layout, Recipe};
pub use region::Filter;
pub use views::{DEFAULT_MAX_VIEWS, Judge, Seen, Viewer, Whole};
