//! The card of a model, `card.toml` beside its weights: files, inputs, outputs, provenance and
//! self-tests.
//!
//! `parse` reads the file into the types of `schema`, and `check` validates them.

mod axis;
mod category;
mod check;
mod download;
mod file;
mod head;
mod heads;
mod image;
mod parse;
mod question;
mod requirement;
mod schema;
mod self_test;
mod tensors;
#[cfg(test)]
mod tests;
mod text;

pub use axis::Axis;
pub use category::{Category, Rule};
pub(crate) use check::labels as check_labels;
pub use download::{Conversion, Download, Hub, PipPackages};
pub(crate) use file::CARD;
pub use file::{CardFile, Role};
pub use head::{Calibration, Head, HeadFile};
pub use image::{Channels, ImageSpec};
pub(crate) use parse::{parse, read_card};
pub use question::Question;
pub use requirement::Requirement;
pub use schema::{Card, Format, Task};
pub use self_test::{Expected, Pattern, SelfTest, TestInput};
pub use tensors::{InputSpec, OutputSpec};
pub use text::{Activation, Combine, Emoji, Evasion, Pooling, TextSpec};
