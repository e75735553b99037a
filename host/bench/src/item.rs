//! One input of a measurement and its label.

use std::sync::Arc;

use infer_engine::{Message, Tensor};
use infer_sandbox::types::NamedTensor;

/// One input.
#[derive(Clone)]
pub(super) enum Item {
    Text(String),
    Image(Arc<[u8]>),
    /// For a language model: a prompt, and choices to score; generates text without choices.
    Prompt {
        messages: Vec<Message>,
        choices: Option<Vec<String>>,
        prefix_messages: Option<usize>,
    },
    Tensors(Arc<Inputs>),
}

/// One line of a dataset.
#[derive(Clone)]
pub(super) struct Example {
    pub(super) item: Item,
    pub(super) label: Option<Label>,
    /// The category whose score is compared; `None` compares the highest score.
    pub(super) category: Option<String>,
}

/// The expected answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Label {
    /// True if the input should be flagged.
    Flagged(bool),
    /// Name of the expected class.
    Class(String),
    /// Index of the expected choice.
    Choice(usize),
}

/// The same tensors in the engine's type and in the guest's.
pub(super) struct Inputs {
    pub(super) native: Vec<(String, Tensor)>,
    pub(super) guest: Arc<Vec<NamedTensor>>,
}
