//! A card says what a model is: its files, what goes in and what comes out, and where all of it
//! comes from.
//!
//! It is `card.toml` beside the weights. The file is read by `card/file.rs`; these are the types it
//! becomes.

mod axis;
mod check;
mod download;
mod file;
mod image;
mod parse;
mod requirement;
mod schema;
mod self_test;
mod tensors;
#[cfg(test)]
mod tests;

pub use axis::Axis;
pub(crate) use axis::{DEFAULT_MAX, DEFAULT_MAX_PRODUCT, MAX_ROWS};
pub(crate) use check::labels as check_labels;
pub use download::{Download, Hub, PipPackages};
pub use file::{CardFile, Role};
pub use image::{Channels, ImageSpec};
pub(crate) use parse::{CARD, parse, read_card};
pub use requirement::Requirement;
pub use schema::{Card, Format, Task};
pub use self_test::{Expected, Pattern, SelfTest, TestInput};
pub use tensors::{InputSpec, OutputSpec, TextSpec};
