//! The types of a card.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use super::category::Category;
use super::download::Download;
use super::file::{CardFile, Role};
use super::head::Head;
use super::question::Question;
use super::self_test::SelfTest;
use super::tensors::{InputSpec, OutputSpec};
use super::text::TextSpec;

/// Description of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Card {
    /// Name of the weights. A configuration may serve them under another name.
    pub name: String,
    /// Task of the model.
    pub task: Task,
    /// Format of the model's file.
    pub format: Format,
    /// Description in one line.
    pub description: String,
    /// SPDX expression of the licence of the weights.
    pub license: String,
    /// Origin of the weights, and the script that rebuilds the file.
    pub source: String,
    /// Batch axis, whose rows are independent, so that requests can be joined along it: always 0,
    /// the first axis of every input and output. Requests are not joined if it is missing.
    pub batch_axis: Option<usize>,
    /// Files, by their names beside the card.
    pub files: Vec<CardFile>,
    /// Inputs in the order in which backends receive them. Empty for a language model, whose
    /// tensors follow the convention in wit/README.md.
    pub inputs: Vec<InputSpec>,
    /// Outputs in the order of a reply; empty for a language model.
    pub outputs: Vec<OutputSpec>,
    /// Class names in the order of the last axis of the first output, or of the heads; empty for
    /// models without labels.
    pub labels: Vec<String>,
    /// Heads that turn an embedding, the first output, into the scores of the labels, in their
    /// order; empty for a model that computes the scores itself.
    pub heads: Vec<Head>,
    /// Reading of texts, for a model with a tokenizer. Its callers pass text instead of the inputs.
    pub text: Option<TextSpec>,
    /// Questions that a language model answers about texts; empty for other models. Its callers
    /// pass texts and get scores, as from a text model.
    pub questions: Vec<Question>,
    /// Categories of moderation that the labels judge, by name.
    pub categories: BTreeMap<String, Category>,
    /// Download locations of the model's file, if it is too large to ship.
    pub download: Download,
    /// Settings for guests that suit this model but are not part of its file, such as a prompt, by
    /// key.
    pub preset: BTreeMap<String, String>,
    /// Self-tests that run before the model is served.
    pub tests: Vec<SelfTest>,
}

impl Card {
    /// The file that the backend loads.
    pub fn model_file(&self) -> &CardFile {
        let model = self.files.iter().find(|file| file.role == Role::Model);
        model.expect("a parsed card lists exactly one model")
    }

    /// Returns true if callers pass texts instead of the tensors of the model's file.
    pub fn takes_texts(&self) -> bool {
        self.text.is_some() || !self.questions.is_empty()
    }

    /// The file that the backend loads, and the further parts of a GGUF file, in order.
    pub fn model_files(&self) -> impl Iterator<Item = &CardFile> {
        let parts = self.files.iter().filter(|file| file.role == Role::Data && self.format == Format::Gguf);
        std::iter::once(self.model_file()).chain(parts)
    }

    /// Labels that no category uses, in the order of the labels.
    pub fn unused_labels(&self) -> Vec<&str> {
        let used: BTreeSet<_> =
            self.categories.values().flat_map(|category| category.rule.labels()).collect();
        self.labels.iter().filter(|label| !used.contains(label)).map(String::as_str).collect()
    }
}

/// Task of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Image to a score per label.
    ImageClassification,
    /// Text to a score per label.
    TextClassification,
    /// Image to the probability of each pixel that it is text.
    TextDetection,
    /// Image of a line of text to probabilities of characters.
    TextRecognition,
    /// Text to a vector that represents its meaning.
    TextEmbedding,
    /// Text to labelled spans of it.
    TokenClassification,
    /// Text to its continuation, or to log-probabilities of given continuations.
    TextGeneration,
}

impl Task {
    /// Returns true if the answer judges a text: scores of it, or labelled spans.
    pub fn judges_text(self) -> bool {
        matches!(self, Task::TextClassification | Task::TokenClassification)
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Task::ImageClassification => "image-classification",
            Task::TextClassification => "text-classification",
            Task::TextDetection => "text-detection",
            Task::TextRecognition => "text-recognition",
            Task::TextEmbedding => "text-embedding",
            Task::TokenClassification => "token-classification",
            Task::TextGeneration => "text-generation",
        })
    }
}

/// Format of a model's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A serialised `ModelProto` of ONNX.
    Onnx,
    /// A language model with its tokenizer, in the format of llama.cpp.
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
