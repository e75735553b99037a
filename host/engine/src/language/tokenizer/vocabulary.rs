//! The tokens of a file: their kinds, and the bytes of each.

use std::collections::HashMap;
use std::hash::Hash;

use super::error::TokenizerError;
use crate::language::gguf::{Gguf, GgufError, quoted};
use crate::limits::{MAX_TOKEN_BYTES, MAX_VOCABULARY_TOKENS};

pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Kind of a token, from `tokenizer.ggml.token_type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Part of a text.
    Text,
    /// Substitute for text that no other token covers.
    Unknown,
    /// Structure that a template writes, such as the end of a turn. Never parsed from a caller's
    /// text.
    Control,
    /// A special word that was added to the vocabulary, such as `<tool_call>`. Written by templates
    /// like a control token, but visible in the model's output.
    Added,
    /// An added word of a SentencePiece vocabulary that is part of any text, such as a line end or
    /// `<b>`. Matched before other tokens.
    Symbol,
    /// An unused id.
    Unused,
    /// One byte, written `<0xNN>`.
    Byte,
}

/// Encoding of bytes in the text of a token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Spelling {
    /// As in SentencePiece: `▁` for a space, and byte tokens for the rest.
    Pieces,
    /// As in GPT-2: a printable character for each byte.
    ByteLevel,
}

/// The tokens of a file, as strings of its metadata.
pub(super) struct Vocabulary<'g> {
    pub(super) tokens: Vec<&'g str>,
    pub(super) kinds: Vec<Kind>,
}

impl<'g> Vocabulary<'g> {
    /// Reads the tokens and their types.
    ///
    /// # Errors
    ///
    /// If either is missing, if their numbers differ, or if a token's text or type is out of
    /// bounds.
    pub(super) fn read(gguf: &'g Gguf, spelling: Spelling) -> Result<Self, TokenizerError> {
        let wrong = |key, message: String| Err(GgufError::key(key, message).into());
        let Some(tokens) = gguf.strings(TOKENS)? else {
            return wrong(TOKENS, "is missing; expected the vocabulary: convert the model again".to_owned());
        };
        if tokens.is_empty() || tokens.len() > MAX_VOCABULARY_TOKENS {
            return wrong(
                TOKENS,
                format!("is an array of {}; expected 1 to {MAX_VOCABULARY_TOKENS} tokens", tokens.len()),
            );
        }
        if let Some(id) = tokens.iter().position(|token| token.len() > MAX_TOKEN_BYTES) {
            let message =
                format!("holds token {id} of {} bytes; expected at most {MAX_TOKEN_BYTES}", tokens[id].len());
            return wrong(TOKENS, message);
        }
        let Some(types) = gguf.u32s(TYPES)? else {
            return wrong(
                TYPES,
                "is missing; expected a type for each token: convert the model again".to_owned(),
            );
        };
        if types.len() != tokens.len() {
            let message =
                format!("has {} types; expected one for each of {} tokens", types.len(), tokens.len());
            return wrong(TYPES, message);
        }
        let structure = Structure::read(gguf, &tokens)?;
        let mut kinds = Vec::with_capacity(types.len());
        for (id, (kind, token)) in types.into_iter().zip(&tokens).enumerate() {
            kinds.push(match kind {
                _ if token.is_empty() => Kind::Unused,
                1 => Kind::Text,
                2 => Kind::Unknown,
                3 => Kind::Control,
                4 if spelling == Spelling::Pieces && !structure.contains(token) => Kind::Symbol,
                4 => Kind::Added,
                5 => Kind::Unused,
                6 => Kind::Byte,
                other => {
                    let message = format!("holds type {other} for token {id}; expected 1 to 6");
                    return wrong(TYPES, message);
                }
            });
        }
        Ok(Vocabulary { tokens, kinds })
    }

    /// The token id that the file gives at `key`.
    ///
    /// # Errors
    ///
    /// If the value is not the id of a token.
    pub(super) fn id(&self, gguf: &Gguf, key: &str) -> Result<Option<u32>, TokenizerError> {
        let id = gguf.u32(key)?;
        match id {
            Some(id) if id as usize >= self.tokens.len() => {
                let message = format!("is {id}; expected a token id below {}", self.tokens.len());
                Err(GgufError::key(key, message).into())
            }
            id => Ok(id),
        }
    }

    /// The tokens of `kinds` by their text, with their ids.
    ///
    /// # Errors
    ///
    /// If two of them are equal.
    pub(super) fn texts<T>(&self, kinds: &[Kind]) -> Result<HashMap<T, u32>, TokenizerError>
    where
        T: From<&'g str> + Eq + Hash,
    {
        let count = self.kinds.iter().filter(|kind| kinds.contains(kind)).count();
        let mut texts = HashMap::with_capacity(count);
        for (id, (token, kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            if !kinds.contains(kind) {
                continue;
            }
            if let Some(first) = texts.insert(T::from(token), id as u32) {
                let message =
                    format!("holds {} twice, as {first} and {id}; expected each once", quoted(token));
                return Err(GgufError::key(TOKENS, message).into());
            }
        }
        Ok(texts)
    }

    /// The ids and texts of the tokens of `kinds`.
    pub(super) fn of_kinds(&self, kinds: &[Kind]) -> impl Iterator<Item = (u32, &'g str)> {
        let tokens = (0..).zip(self.tokens.iter().copied().zip(&self.kinds));
        tokens.filter(|(_, (_, kind))| kinds.contains(kind)).map(|(id, (text, _))| (id, text))
    }

    /// True if no token extends from a letter to the space after it.
    pub(super) fn words_are_separate(&self) -> bool {
        let of_text =
            self.tokens.iter().zip(&self.kinds).filter(|(_, kind)| matches!(kind, Kind::Text | Kind::Symbol));
        let extends = |token: &str| {
            let mut spaces = token.match_indices(['▁', ' ']);
            spaces.any(|(at, _)| token[..at].ends_with(|before: char| before.is_ascii_alphabetic()))
        };
        !of_text.into_iter().any(|(token, _)| extends(token))
    }

    /// The bytes of each token in a text; empty for control tokens and unused ids.
    ///
    /// # Errors
    ///
    /// If a byte token is not written `<0xNN>`.
    pub(super) fn bytes(&self, spelling: Spelling) -> Result<TokenBytes, TokenizerError> {
        let bytes_of =
            byte_characters().map(|(byte, character)| (character, byte)).collect::<HashMap<_, _>>();
        let mut all = TokenBytes { bytes: Vec::new(), ends: Vec::with_capacity(self.tokens.len()) };
        for (id, (token, kind)) in self.tokens.iter().zip(&self.kinds).enumerate() {
            match (kind, spelling) {
                (Kind::Control | Kind::Unused | Kind::Unknown, _) => {}
                (Kind::Byte, _) => all.bytes.push(byte_token(token).ok_or_else(|| {
                    let message = format!("holds byte token {id}, {}; expected `<0xNN>`", quoted(token));
                    GgufError::key(TOKENS, message)
                })?),
                (Kind::Added, _) => all.bytes.extend(token.as_bytes()),
                (Kind::Text | Kind::Symbol, Spelling::Pieces) => {
                    all.bytes.extend(token.replace('▁', " ").as_bytes());
                }
                (Kind::Text | Kind::Symbol, Spelling::ByteLevel) => {
                    for character in token.chars() {
                        match bytes_of.get(&character) {
                            Some(byte) => all.bytes.push(*byte),
                            // An added word that is not declared as one.
                            None => all.bytes.extend(character.encode_utf8(&mut [0; 4]).as_bytes()),
                        }
                    }
                }
            }
            all.ends.push(all.bytes.len());
        }
        Ok(all)
    }
}

/// The added words of a SentencePiece vocabulary that structure a chat.
///
/// Such a vocabulary also adds words of any text: line ends, runs of spaces, HTML's tags. A file
/// gives both the same type.
struct Structure<'g> {
    template: &'g str,
    /// BOS, EOS and the other ends.
    named: Vec<&'g str>,
}

impl<'g> Structure<'g> {
    fn read(gguf: &'g Gguf, tokens: &[&'g str]) -> Result<Self, TokenizerError> {
        let mut named = Vec::new();
        for key in ["bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id"] {
            let id = gguf.u32(&format!("tokenizer.ggml.{key}"))?;
            named.extend(id.and_then(|id| tokens.get(id as usize)));
        }
        Ok(Structure { template: gguf.str("tokenizer.chat_template")?.unwrap_or_default(), named })
    }

    /// False for whitespace, and for tags that neither the template writes nor a key names.
    fn contains(&self, token: &str) -> bool {
        let tag = token.strip_prefix('<').and_then(|token| token.strip_suffix('>'));
        let name = tag.map(|tag| tag.strip_prefix('/').unwrap_or(tag));
        let is_tag = name.is_some_and(|name| {
            name.starts_with(|c: char| c.is_ascii_lowercase())
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
        // `</s>` ends what `<s>` begins.
        let begun = token.strip_prefix("</");
        let is_named = self.named.iter().any(|named| {
            *named == token || begun.is_some_and(|begun| named.strip_prefix('<') == Some(begun))
        });
        let is_blank = token.chars().all(|c| c.is_whitespace() || c == '▁');
        !is_blank && (!is_tag || is_named || self.template.contains(token))
    }
}

/// The bytes of each token, one after the other.
pub(super) struct TokenBytes {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl TokenBytes {
    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of `token`; empty if there is no such token.
    pub(super) fn get(&self, token: u32) -> &[u8] {
        let token = token as usize;
        let Some(end) = self.ends.get(token) else { return &[] };
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..*end]
    }
}

/// The byte of a token written `<0xNN>`.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The text of a byte token.
pub(super) fn byte_token_text(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// GPT-2's character for each byte: itself if it is printable in Latin-1, and otherwise the next
/// one from U+0100.
pub fn byte_characters() -> impl Iterator<Item = (u8, char)> {
    let mut next = 0x100_u32;
    (0..=u8::MAX).map(move |byte| match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => (byte, char::from(byte)),
        _ => {
            let character = char::from_u32(next).unwrap_or(char::REPLACEMENT_CHARACTER);
            next += 1;
            (byte, character)
        }
    })
}
