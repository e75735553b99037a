//! Tokenizers of GGUF files, built in memory from the file's metadata.
//!
//! There are two kinds of vocabularies: `llama`, which is SentencePiece's BPE, and `gpt2`,
//! byte-level BPE after a pre-tokenizer that the file names, by the `tokenizers` crate. A caller's
//! text is never parsed for control tokens, only the text of a chat template is.

mod chat;
mod control;
mod detokenizer;
mod encode;
mod error;
mod model;
mod pieces;
#[cfg(test)]
pub(super) mod tests;
mod vocabulary;
mod words;

pub(super) use self::chat::{ChatOptions, Open};
pub(crate) use self::detokenizer::Detokenizer;
pub(crate) use self::encode::{Tokenizer, tokenizers};
pub(crate) use self::error::TokenizerError;
pub use self::vocabulary::byte_characters;
pub(crate) use self::words::pre_tokenizers;
