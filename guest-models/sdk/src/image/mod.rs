//! From the bytes of an untrusted image file to the numbers that a model takes.
//!
//! [`decode`] is the part that reads what strangers wrote, and the reason why it happens in a
//! sandbox. A [`Recipe`], from the model's card, then crops, resizes and normalises. A [`Viewer`]
//! shows more than the middle of the first frame. Nothing here asks the host for anything.

mod decode;
mod frames;
mod limits;
mod orientation;
mod picture;
mod recipe;
mod views;

pub use decode::decode;
pub use limits::DEFAULT_MAX_PIXELS;
pub use picture::Picture;
pub use recipe::{Color, Filter, Layout, Recipe};
pub use views::{DEFAULT_MAX_VIEWS, Seen, Viewer};
