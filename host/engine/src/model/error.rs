//! Errors of loading and running a model.

use std::any::Any;

/// The model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option is 0 but must be at least 1.
    #[error("model `{model}`: `{option}` is 0, expected at least 1")]
    Option {
        /// Name of the model in the configuration.
        model: String,
        /// Name of the option.
        option: &'static str,
    },
    /// The backend cannot load the file.
    #[error("model `{model}`: {backend} cannot load it: {message}")]
    Backend {
        /// Name of the model in the configuration.
        model: String,
        /// Name of the backend.
        backend: &'static str,
        /// Message of the backend.
        message: String,
    },
    /// The model needs a feature that the backend does not support.
    #[error("model `{model}`: not supported by {backend}: {message}")]
    Unsupported {
        /// Name of the model in the configuration.
        model: String,
        /// Name of the backend.
        backend: &'static str,
        /// Unsupported feature, and the remedy.
        message: String,
    },
    /// The model refers to external data that its card does not list, or that is invalid.
    #[error("model `{model}`: {message}")]
    Data {
        /// Name of the model in the configuration.
        model: String,
        /// Tensor, problem, and the remedy.
        message: String,
    },
    /// The tokenizer is invalid, or does not fit the model.
    #[error("model `{model}`: its tokenizer cannot be used: {message}")]
    Tokenizer {
        /// Name of the model in the configuration.
        model: String,
        /// Problem, with what was expected.
        message: String,
    },
    /// The file cannot answer the questions of its card.
    #[error("model `{model}`: its questions cannot be asked: {message}")]
    Guard {
        /// Name of the model in the configuration.
        model: String,
        /// Problem, with what was expected.
        message: String,
    },
    /// The card and the file of the model disagree.
    #[error("model `{model}`: the card disagrees with the model's file: {message}")]
    Disagreement {
        /// Name of the model in the configuration.
        model: String,
        /// Both values.
        message: String,
    },
    /// The system cannot start another thread.
    #[error("model `{model}`: cannot start a worker thread; reduce `sessions`")]
    Thread {
        /// Name of the model in the configuration.
        model: String,
        /// Error of the system.
        source: std::io::Error,
    },
}

/// The run returned no outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The inputs do not match the card.
    #[error("model `{model}`: {message}")]
    InvalidInput {
        /// Name of the model in the configuration.
        model: String,
        /// Input, expected value, and found value.
        message: String,
    },
    /// The inputs are valid, but exceed a limit.
    #[error("model `{model}`: {message}")]
    TooLarge {
        /// Name of the model in the configuration.
        model: String,
        /// Size and limit.
        message: String,
    },
    /// The queue is full.
    #[error("model `{model}`: its queue of {capacity} jobs is full; try again later")]
    Busy {
        /// Name of the model in the configuration.
        model: String,
        /// Maximum number of queued jobs.
        capacity: usize,
    },
    /// The deadline passed before the result was ready.
    #[error("model `{model}`: deadline exceeded")]
    Deadline {
        /// Name of the model in the configuration.
        model: String,
    },
    /// The inputs agree with the card but need a feature that the backend does not support, or
    /// their values do not fit the model.
    #[error("model `{model}`: {message}")]
    Unsupported {
        /// Name of the model in the configuration.
        model: String,
        /// Unsupported feature, and the remedy.
        message: String,
    },
    /// The backend failed or panicked.
    #[error("model `{model}` failed: {message}")]
    Failed {
        /// Name of the model in the configuration.
        model: String,
        /// Message of the backend.
        message: String,
    },
    /// The model's workers have stopped.
    #[error("model `{model}` has stopped")]
    Closed {
        /// Name of the model in the configuration.
        model: String,
    },
}

/// Message of a panic, for an error.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let message = panic.downcast_ref::<&str>().copied();
    let message = message.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the backend panicked: {}", message.unwrap_or("no message"))
}
