//! One input of a measurement, and its label.

use std::sync::Arc;

use infer_engine::{Message, Tensor};
use infer_sandbox::types::NamedTensor;

/// One thing that is asked.
#[derive(Clone)]
pub(super) enum Item {
    Text(String),
    Image(Arc<[u8]>),
    /// To a language model: a prompt, and the answers to score, or none to let it write.
    Prompt {
        messages: Vec<Message>,
        choices: Option<Vec<String>>,
        prefix_messages: Option<usize>,
    },
    Tensors(Arc<Inputs>),
}

/// One line.
#[derive(Clone)]
pub(super) struct Example {
    pub(super) item: Item,
    pub(super) label: Option<Label>,
    /// The category whose score counts; without one the highest score of any.
    pub(super) category: Option<String>,
}

/// What the answer should be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Label {
    /// Whether it is to be flagged.
    Flagged(bool),
    /// The class, by its name.
    Class(String),
    /// Which of the choices.
    Choice(usize),
}

/// Tensors, as the engine takes them and as a guest does.
pub(super) struct Inputs {
    pub(super) native: Vec<(String, Tensor)>,
    pub(super) guest: Arc<Vec<NamedTensor>>,
}
