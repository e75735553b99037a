//! Byte-pair encoders, built from a vocabulary and either its merges or its scores.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerBuilder,
    TokenizerImpl,
};

use super::error::TokenizerError;
use super::vocabulary::{Kind, TOKENS, Vocabulary, byte_characters, byte_token_text};
use super::words::Words;
use crate::language::gguf::{Gguf, GgufError, quoted};
use crate::limits::{MAX_MERGES_PER_TOKEN, MAX_SPLIT_BYTES};

/// An encoder from text to ids, without control tokens.
pub(super) type Encoder =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// The encoder of a `llama` vocabulary: SentencePiece's BPE, whose merges are derived from the
/// scores.
///
/// A token may be merged from any two others that spell it; a token with a better score is merged
/// earlier.
///
/// # Errors
///
/// If scores are missing, if their number differs from that of the tokens, or if some text could
/// not be encoded.
pub(super) fn from_scores(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Encoder, TokenizerError> {
    let Some(scores) = gguf.f32s(SCORES)? else {
        return Err(GgufError::key(SCORES, "is missing; expected a score for each token").into());
    };
    if scores.len() != vocabulary.tokens.len() {
        let (found, expected) = (scores.len(), vocabulary.tokens.len());
        let message = format!("has {found} scores; expected one for each of {expected} tokens");
        return Err(GgufError::key(SCORES, message).into());
    }
    let mut texts = vocabulary.texts(&[Kind::Text, Kind::Byte])?;
    let byte_fallback = (0..=u8::MAX).all(|byte| texts.contains_key(&*byte_token_text(byte)));
    let unknown = vocabulary.id(gguf, UNKNOWN)?.map(|id| (id, vocabulary.tokens[id as usize]));
    match unknown {
        Some((id, text)) => {
            texts.entry(text).or_insert(id);
        }
        None if byte_fallback => {}
        None => {
            let message = "names no token, and the byte tokens (`<0x00>` to `<0xFF>`) are incomplete; expected either, \
                           so that any text can be encoded";
            return Err(GgufError::key(UNKNOWN, message).into());
        }
    }

    let max_merges = MAX_MERGES_PER_TOKEN * texts.len();
    let mut merges = Vec::new();
    let mut split_bytes = 0_usize;
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        if vocabulary.kinds[id] != Kind::Text {
            continue;
        }
        split_bytes += token.len() * token.len();
        if split_bytes > MAX_SPLIT_BYTES || merges.len() > max_merges {
            let message = format!(
                "holds tokens that are too long, or have too many merges; expected at most \
                 {MAX_MERGES_PER_TOKEN} merges for each token, and {MAX_SPLIT_BYTES} bytes to search for them"
            );
            return Err(GgufError::key(TOKENS, message).into());
        }
        let first = merges.len();
        let splits = token.char_indices().skip(1).enumerate();
        for (left_characters, (split, _)) in splits {
            let (left, right) = token.split_at(split);
            if let (Some(left_id), Some(right_id)) = (texts.get(left), texts.get(right)) {
                let lengths = (left_characters, token.len());
                merges.push((scores[id], lengths, (*left_id, *right_id), (left, right)));
            }
        }
        merges[first..].sort_by_key(|(_, _, ids, _)| *ids);
    }
    // Of equal scores, longer left parts come first, then longer tokens, whose right parts are
    // longer.
    merges.sort_by(|(a, (a_left, _), _, (_, a_right)), (b, (b_left, _), _, (_, b_right))| {
        let right = |text: &str| text.chars().count();
        b.total_cmp(a).then(b_left.cmp(a_left)).then_with(|| right(b_right).cmp(&right(a_right)))
    });
    let merges = merges.into_iter().map(|(_, _, _, (left, right))| (left.to_owned(), right.to_owned()));
    let mut model = BPE::builder()
        .vocab_and_merges(owned(&texts), merges.collect())
        .byte_fallback(byte_fallback)
        .fuse_unk(true);
    if let Some((_, text)) = unknown {
        model = model.unk_token(text.to_owned());
    }
    let model = model.build().map_err(TokenizerError::encoder)?;
    encoder(model, None, None)
}

/// The encoder of a `gpt2` vocabulary: byte-level BPE with the file's merges.
///
/// # Errors
///
/// If merges are missing or name unknown tokens, or if some text could not be encoded.
pub(super) fn from_merges(
    gguf: &Gguf,
    vocabulary: &Vocabulary<'_>,
    words: &Words,
) -> Result<Encoder, TokenizerError> {
    let Some(listed) = gguf.strings(MERGES)? else {
        return Err(GgufError::key(MERGES, "is missing; expected the pairs of tokens to merge").into());
    };
    let texts = vocabulary.texts(&[Kind::Text])?;
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
    let normalizer = words.composes.then(|| NFC.into());
    encoder(model, normalizer, Some(words.pre_tokenizer()?))
}

fn owned(texts: &HashMap<&str, u32>) -> Vocab {
    texts.iter().map(|(text, id)| ((*text).to_owned(), *id)).collect()
}

fn encoder(
    model: BPE,
    normalizer: Option<NormalizerWrapper>,
    words: Option<PreTokenizerWrapper>,
) -> Result<Encoder, TokenizerError> {
    TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(normalizer)
        .with_pre_tokenizer(words)
        .build()
        .map_err(TokenizerError::encoder)
}
