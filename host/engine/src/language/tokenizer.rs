//! Tokenizers of GGUF files, built in memory from the file's own metadata.
//!
//! Two kinds of vocabularies are known: `llama`, which is SentencePiece's BPE, and `gpt2`,
//! byte-level BPE behind a pre-tokenizer that the file names. The pieces come from the `tokenizers`
//! crate. Control tokens are no part of them: a caller's text is text throughout, and only a chat
//! template's own text is searched for control tokens.

mod chat;
mod control;
mod detokenizer;
mod encode;
mod error;
mod limits;
mod model;
#[cfg(test)]
pub(super) mod tests;
mod vocabulary;

pub(super) use self::chat::Open;
pub(crate) use self::detokenizer::Detokenizer;
pub(crate) use self::encode::Tokenizer;
pub(crate) use self::error::TokenizerError;
pub(super) use self::limits::MAX_MESSAGES;
