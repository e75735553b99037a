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
mod requirement;
mod self_test;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::Path;

use serde::Deserialize;

use crate::dtype::DType;
use crate::weights::{self, CardError};
pub use axis::Axis;
pub(crate) use axis::{DEFAULT_MAX, DEFAULT_MAX_PRODUCT, MAX_ROWS};
pub(crate) use check::labels as check_labels;
pub use download::{Download, Hub, PipPackages};
pub(crate) use file::parse;
pub use image::{Channels, ImageSpec};
pub use requirement::Requirement;
pub use self_test::{Expected, Pattern, SelfTest, TestInput};

/// What a model is.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// The weights' own name; a configuration may serve them under another.
    pub name: String,
    /// What the model does.
    pub task: Task,
    /// How its file is to be read.
    pub format: Format,
    /// One line for people.
    pub description: String,
    /// SPDX expression of the weights' licence.
    pub license: String,
    /// Where the weights come from, and which script rebuilds the file.
    pub source: String,
    /// The axis whose rows are independent of each other, so that those of several requests may be
    /// computed together: 0, the first axis of every input and output. Without it requests are
    /// never joined.
    pub batch_axis: Option<usize>,
    /// The files, by the names that they have beside the card.
    pub files: Vec<CardFile>,
    /// What the model takes, in the order in which backends are given it; none for a language
    /// model, whose tensors are those of the convention in wit/README.md.
    pub inputs: Vec<InputSpec>,
    /// What the model gives, in the order of a reply; none for a language model.
    pub outputs: Vec<OutputSpec>,
    /// The classes' names in the order of the first output's last axis; empty for a model without.
    pub labels: Vec<String>,
    /// Where the model's file can be fetched, for one that is too large to ship.
    pub download: Download,
    /// What suits this model and is no part of its file, such as a prompt: guests read it by its
    /// key.
    pub preset: BTreeMap<String, String>,
    /// What it is asked before it is served.
    pub tests: Vec<SelfTest>,
}

impl Card {
    /// The card that `text` writes. Its labels are in a file that is not read here, so it has none.
    ///
    /// # Errors
    ///
    /// A message that says what is wrong and, as far as TOML knows it, in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(|(card, _)| card)
    }

    /// The card in `folder`, as [`Card::parse`] reads it.
    ///
    /// # Errors
    ///
    /// When there is none, or it is wrong.
    pub fn read(folder: &Path) -> Result<Self, CardError> {
        let path = folder.join(weights::CARD);
        Card::parse(&weights::read_card(&path)?).map_err(|message| CardError::Card { path, message })
    }

    /// The file that the backend loads.
    pub fn model_file(&self) -> &CardFile {
        let model = self.files.iter().find(|file| file.role == Role::Model);
        model.expect("a parsed card lists exactly one model")
    }
}

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// An image in, a score for each label out.
    ImageClassification,
    /// A text in, a score for each label out.
    TextClassification,
    /// A text in; its continuation, or the log-probability of given ones, out.
    TextGeneration,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Task::ImageClassification => "image-classification",
            Task::TextClassification => "text-classification",
            Task::TextGeneration => "text-generation",
        })
    }
}

/// How a model's file is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A serialised `ModelProto` of ONNX.
    Onnx,
    /// A language model with its tokenizer, as llama.cpp and others write it.
    Gguf,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Format::Onnx => "onnx",
            Format::Gguf => "gguf",
        })
    }
}

/// A file that belongs to a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// A plain name: no separators, not `..`.
    #[serde(deserialize_with = "file::plain_name")]
    pub path: String,
    /// What the file is for.
    pub role: Role,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256 in 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "file::sha256")]
    pub sha256: String,
}

impl CardFile {
    /// Check the size and the hash of the file at `path`. It is read in pieces.
    ///
    /// # Errors
    ///
    /// When it is missing, cannot be read, or is another file.
    pub fn verify(&self, path: &Path) -> Result<(), CardError> {
        weights::verify(self, path, None).map(|_| ())
    }

    /// Check the size and the hash of a file that was opened at `path`, from its beginning. It is
    /// read in pieces.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is another file.
    pub fn verify_opened(&self, path: &Path, file: &File) -> Result<(), CardError> {
        weights::verify_opened(self, path, file)
    }
}

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// What the backend loads; there is exactly one.
    Model,
    /// One label a line.
    Labels,
    /// Words and their ids.
    Vocabulary,
    /// Tensors of the model that its file keeps outside of itself: ONNX's external data.
    Data,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Model => "model",
            Role::Labels => "labels",
            Role::Vocabulary => "vocabulary",
            Role::Data => "data",
        })
    }
}

/// A tensor that a model takes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Its name in the model's file.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its axes, outermost first.
    pub shape: Vec<Axis>,
    /// What the axes mean, such as `NCHW`.
    pub layout: Option<String>,
    /// How pixels become its numbers: `layout` and `shape` are then those of an image.
    pub image: Option<ImageSpec>,
    /// How text becomes its numbers.
    pub text: Option<TextSpec>,
}

/// How a text becomes the ids of its words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// The file, one of the card's, that maps words to ids.
    pub vocabulary: String,
    /// How many ids the model looks at.
    pub max_tokens: usize,
    /// Where zeros fill up a shorter text: `left` or `right`.
    pub pad: String,
}

/// A tensor that a model gives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Its name in the model's file.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its axes, outermost first.
    pub shape: Vec<Axis>,
}
