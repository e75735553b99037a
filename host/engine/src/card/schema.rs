//! The content of a card.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::download::Download;
use super::file::{CardFile, Role};
use super::self_test::SelfTest;
use super::tensors::{InputSpec, OutputSpec};

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
