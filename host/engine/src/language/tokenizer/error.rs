//! Tokenizers that are refused, and texts that they refuse.

use super::limits::MAX_TEXT_BYTES;
use crate::language::gguf::GgufError;
use crate::language::template::TemplateError;

/// A tokenizer that is refused, or a text that it refuses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenizerError {
    /// The file's metadata does not make a tokenizer.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// The chat template is not one, or refuses the messages.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The file has no chat template.
    #[error(
        "key `tokenizer.chat_template` is missing, so `messages` cannot be encoded; give a whole `prompt`, or take an \
         instruct model's file"
    )]
    NoTemplate,
    /// Messages that are refused.
    #[error("`messages` {0}")]
    Messages(String),
    /// A text is too long.
    #[error("a text of {found} bytes is over the {MAX_TEXT_BYTES} that are encoded at once; shorten it")]
    Long {
        /// Its bytes.
        found: usize,
    },
    /// The encoder failed.
    #[error("the tokenizer: {0}")]
    Encoder(String),
}

impl TokenizerError {
    #[expect(clippy::needless_pass_by_value, reason = "it is a function for `map_err`")]
    pub(super) fn encoder(error: tokenizers::Error) -> Self {
        TokenizerError::Encoder(error.to_string())
    }
}
