//! SentencePiece's BPE: the encoder of a `llama` vocabulary.
//!
//! A text begins as its characters. Of all neighbours that together are a piece, those with the
//! best score are merged first, of equal scores the leftmost ones. Characters without a piece
//! become byte tokens.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use super::error::TokenizerError;
use super::vocabulary::{Kind, Vocabulary, byte_token_text};
use crate::language::gguf::{Gguf, GgufError};

const SCORES: &str = "tokenizer.ggml.scores";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";

/// The pieces of a vocabulary.
pub(super) struct Pieces {
    ids: HashMap<Box<str>, u32>,
    /// One for each token.
    scores: Vec<f32>,
    fallback: Fallback,
}

/// Tokens for characters without a piece.
enum Fallback {
    /// The id of each byte.
    Bytes(Box<[u32; 256]>),
    /// One token for a run of them.
    Unknown(u32),
}

/// A part of the text, in a list from left to right.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    /// 0 if it was merged into the symbol at its left.
    length: usize,
    left: Option<usize>,
    right: Option<usize>,
}

/// Two neighbours that together are a piece.
struct Merge {
    score: f32,
    left: Reverse<usize>,
    right: usize,
    /// Bytes of both. If they differ now, one of them has changed.
    length: usize,
}

impl Pieces {
    /// Reads the pieces with their scores.
    ///
    /// # Errors
    ///
    /// If scores are missing, if their number differs from that of the tokens, if two pieces are
    /// equal, or if some text could not be encoded.
    pub(super) fn read(gguf: &Gguf, vocabulary: &Vocabulary<'_>) -> Result<Self, TokenizerError> {
        let Some(scores) = gguf.f32s(SCORES)? else {
            return Err(GgufError::key(SCORES, "is missing; expected a score for each token").into());
        };
        if scores.len() != vocabulary.tokens.len() {
            let (found, expected) = (scores.len(), vocabulary.tokens.len());
            let message = format!("has {found} scores; expected one for each of {expected} tokens");
            return Err(GgufError::key(SCORES, message).into());
        }
        let texts: HashMap<&str, u32> = vocabulary.texts(&[Kind::Byte])?;
        let mut bytes = Box::new([0; 256]);
        let is_complete = (0..=u8::MAX).all(|byte| {
            let id = texts.get(&*byte_token_text(byte));
            bytes[usize::from(byte)] = id.copied().unwrap_or_default();
            id.is_some()
        });
        let unknown = vocabulary.id(gguf, UNKNOWN)?;
        let fallback = match unknown {
            _ if is_complete => Fallback::Bytes(bytes),
            Some(id) => Fallback::Unknown(id),
            None => {
                let message = "names no token, and the byte tokens (`<0x00>` to `<0xFF>`) are incomplete; expected either, \
                               so that any text can be encoded";
                return Err(GgufError::key(UNKNOWN, message).into());
            }
        };
        Ok(Pieces { ids: vocabulary.texts(&[Kind::Text])?, scores, fallback })
    }

    /// Appends the ids of `text`, in which `▁` stands for a space.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) {
        let mut symbols: Vec<Symbol> = Vec::with_capacity(text.len());
        for (at, (start, character)) in text.char_indices().enumerate() {
            let (left, right) = (at.checked_sub(1), Some(at + 1));
            symbols.push(Symbol { start, length: character.len_utf8(), left, right });
        }
        if let Some(last) = symbols.last_mut() {
            last.right = None;
        }
        let mut merges = BinaryHeap::with_capacity(symbols.len());
        for left in 0..symbols.len() {
            merges.extend(self.merge(text, &symbols, Some(left)));
        }
        while let Some(Merge { left: Reverse(left), right, length, .. }) = merges.pop() {
            let (first, second) = (symbols[left], symbols[right]);
            if first.length == 0 || second.length == 0 || first.length + second.length != length {
                continue;
            }
            symbols[right].length = 0;
            symbols[left] = Symbol { length, right: second.right, ..first };
            if let Some(next) = second.right {
                symbols[next].left = Some(left);
            }
            merges.extend(self.merge(text, &symbols, first.left));
            merges.extend(self.merge(text, &symbols, Some(left)));
        }
        let mut in_unknown = false;
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            let piece = &text[symbol.start..symbol.start + symbol.length];
            let found = self.ids.get(piece);
            match (found, &self.fallback) {
                (Some(id), _) => tokens.push(*id),
                (None, Fallback::Bytes(ids)) => {
                    tokens.extend(piece.bytes().map(|byte| ids[usize::from(byte)]));
                }
                (None, Fallback::Unknown(id)) => tokens.extend((!in_unknown).then_some(*id)),
            }
            in_unknown = found.is_none();
        }
    }

    /// The merge of the symbol at `left` with its right neighbour, if they are a piece.
    fn merge(&self, text: &str, symbols: &[Symbol], left: Option<usize>) -> Option<Merge> {
        let left = left?;
        let right = symbols[left].right?;
        let length = symbols[left].length + symbols[right].length;
        let start = symbols[left].start;
        let id = *self.ids.get(&text[start..start + length])?;
        Some(Merge { score: self.scores[id as usize], left: Reverse(left), right, length })
    }
}

impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(self.left.cmp(&other.left))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Merge {}
