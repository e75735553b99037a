//! What can go wrong when a model is loaded, and when it is run.

use std::any::Any;

/// A model that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// An option that must be at least 1 is 0.
    #[error("model `{model}`: `{option}` is 0, expected at least 1")]
    Option {
        /// The model's name in the configuration.
        model: String,
        /// The option.
        option: &'static str,
    },
    /// The backend refuses the file.
    #[error("model `{model}`: {backend} cannot load it: {message}")]
    Backend {
        /// The model's name in the configuration.
        model: String,
        /// The backend's name.
        backend: &'static str,
        /// What it said.
        message: String,
    },
    /// The model needs what this backend lacks.
    #[error("model `{model}`: more than {backend} can do: {message}")]
    Unsupported {
        /// The model's name in the configuration.
        model: String,
        /// The backend's name.
        backend: &'static str,
        /// What is lacking, and the way out.
        message: String,
    },
    /// The model reads external data that its card does not list, or not as it is there.
    #[error("model `{model}`: {message}")]
    Data {
        /// The model's name in the configuration.
        model: String,
        /// Which tensor, what it reads, and the way out.
        message: String,
    },
    /// Card and file tell different things.
    #[error("model `{model}`: the card disagrees with the model's file: {message}")]
    Disagreement {
        /// The model's name in the configuration.
        model: String,
        /// What the two say.
        message: String,
    },
    /// The system starts no more threads.
    #[error("model `{model}`: cannot start a worker thread; fewer `sessions` need fewer")]
    Thread {
        /// The model's name in the configuration.
        model: String,
        /// Why.
        source: std::io::Error,
    },
}

/// A run that gave no outputs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The inputs are not what the card says.
    #[error("model `{model}`: {message}")]
    InvalidInput {
        /// The model's name in the configuration.
        model: String,
        /// Which input, what was expected, what was found.
        message: String,
    },
    /// As many jobs wait as may.
    #[error("model `{model}`: its queue is full with {capacity} jobs; try again later")]
    Busy {
        /// The model's name in the configuration.
        model: String,
        /// The most jobs that may wait.
        capacity: usize,
    },
    /// The deadline passed first.
    #[error("model `{model}`: not computed by the deadline")]
    Deadline {
        /// The model's name in the configuration.
        model: String,
    },
    /// The inputs are right, and more than this backend can do.
    #[error("model `{model}`: {message}")]
    Unsupported {
        /// The model's name in the configuration.
        model: String,
        /// What, and the way out.
        message: String,
    },
    /// The backend failed or panicked.
    #[error("model `{model}` failed: {message}")]
    Failed {
        /// The model's name in the configuration.
        model: String,
        /// What the backend said.
        message: String,
    },
    /// The model's workers have stopped.
    #[error("model `{model}` is stopped")]
    Closed {
        /// The model's name in the configuration.
        model: String,
    },
}

/// What a panic said, for an error.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the backend panicked: {}", said.unwrap_or("without a message"))
}
