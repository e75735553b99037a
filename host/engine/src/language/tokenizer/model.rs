//! Byte-level BPE: the encoder of a `gpt2` vocabulary, built from its merges.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerBuilder,
    TokenizerImpl,
};

use super::error::TokenizerError;
use super::vocabulary::{Kind, TOKENS, Vocabulary, byte_characters};
use super::words::Words;
use crate::language::gguf::{Gguf, GgufError, quoted};

/// An encoder from text to ids, without control tokens.
pub(super) type ByteLevel =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

const MERGES: &str = "tokenizer.ggml.merges";

/// The encoder of a `gpt2` vocabulary: byte-level BPE with the file's merges.
///
/// # Errors
///
/// If merges are missing or name unknown tokens, or if some text could not be encoded.
pub(super) fn from_merges(
    gguf: &Gguf,
    vocabulary: &Vocabulary<'_>,
    words: &Words,
) -> Result<ByteLevel, TokenizerError> {
    let Some(listed) = gguf.strings(MERGES)? else {
        return Err(GgufError::key(MERGES, "is missing; expected the pairs of tokens to merge").into());
    };
    let texts: HashMap<&str, u32> = vocabulary.texts(&[Kind::Text])?;
    // Some vocabularies lack control characters and the bytes of rare scripts; as in llama.cpp,
    // these are then omitted from a text. A vocabulary without printable ASCII is invalid.
    let missing = byte_characters().find(|(byte, character)| {
        matches!(byte, 0x20..=0x7e) && !texts.contains_key(&*character.to_string())
    });
    if let Some((byte, character)) = missing {
        let message = format!("has no token `{character}` for byte {byte:#04x}; expected one for each byte");
        return Err(GgufError::key(TOKENS, message).into());
    }
    let mut merges = Vec::with_capacity(listed.len());
    let mut merged = String::new();
    for (index, merge) in listed.into_iter().enumerate() {
        let pair = merge.split_once(' ').filter(|(left, right)| {
            merged.clear();
            merged.push_str(left);
            merged.push_str(right);
            [left, right, &merged.as_str()].iter().all(|token| texts.contains_key(**token))
        });
        let Some((left, right)) = pair else {
            let message = format!(
                "holds merge {index}, {}; expected two tokens separated by a space, whose concatenation is \
                 a token",
                quoted(merge)
            );
            return Err(GgufError::key(MERGES, message).into());
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    let model = BPE::builder()
        .vocab_and_merges(owned(&texts), merges)
        .ignore_merges(words.keeps_tokens)
        .build()
        .map_err(TokenizerError::encoder)?;
    TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(words.composes.then(|| NFC.into()))
        .with_pre_tokenizer(Some(words.pre_tokenizer()?))
        .build()
        .map_err(TokenizerError::encoder)
}

fn owned(texts: &HashMap<&str, u32>) -> Vocab {
    texts.iter().map(|(text, id)| ((*text).to_owned(), *id)).collect()
}
