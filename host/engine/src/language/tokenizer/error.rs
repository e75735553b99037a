//! Errors of tokenizers.

use crate::language::gguf::GgufError;
use crate::language::template::TemplateError;
use crate::limits::MAX_TEXT_BYTES;

/// A tokenizer or an input that is rejected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenizerError {
    /// The file's metadata does not describe a tokenizer.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The chat template is invalid, or rejects the messages.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The file has no chat template.
    #[error(
        "key `tokenizer.chat_template` is missing, so `messages` cannot be encoded; give a complete \
         `prompt`, or use the file of an instruct model"
    )]
    NoTemplate,
    /// The messages are invalid.
    #[error("`messages` {0}")]
    Messages(String),
    /// A text exceeds the limit.
    #[error("a text of {found} bytes exceeds the limit of {MAX_TEXT_BYTES}; shorten it")]
    Long {
        /// Size of the text in bytes.
        found: usize,
    },
    /// The encoder failed.
    #[error("tokenizer: {0}")]
    Encoder(String),
}

impl TokenizerError {
    #[expect(clippy::needless_pass_by_value, reason = "it is a function for `map_err`")]
    pub(super) fn encoder(error: tokenizers::Error) -> Self {
        TokenizerError::Encoder(error.to_string())
    }
}
