//! A tokenizer: built from a file, it encodes text to tokens.

use std::collections::HashSet;

use super::control::{ControlTokens, Piece};
use super::error::TokenizerError;
use super::model::{self, ByteLevel};
use super::pieces::Pieces;
use super::vocabulary::{Kind, Spelling, TokenBytes, Vocabulary};
use super::words::Words;
use crate::language::gguf::{Gguf, GgufError, quoted};
use crate::language::template::Template;
use crate::limits::MAX_TEXT_BYTES;
use crate::text::names;

/// Tokens that end a text, in addition to those that the file names. Some files name only one of
/// several.
const ENDS: [&str; 7] = [
    "<|end|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<end_of_turn>",
];

/// The two kinds of encoders.
pub(super) enum Encoder {
    Pieces(Pieces),
    ByteLevel(Box<ByteLevel>),
}

/// A model's tokenizer.
pub(crate) struct Tokenizer {
    pub(super) encoder: Encoder,
    /// True if the encoder adds a space at the beginning of a text.
    pub(super) space_prefix: bool,
    /// True if no token extends from the letters of one word into the next word.
    pub(super) words_are_separate: bool,
    pub(super) bytes: TokenBytes,
    pub(super) control: ControlTokens,
    /// Words that are matched in any text, before the encoder sees the rest.
    symbols: ControlTokens,
    /// The text of each control token, sorted by id.
    pub(super) control_texts: Vec<(u32, String)>,
    /// Control tokens that strip the whitespace after them.
    pub(super) strips: HashSet<u32>,
    pub(super) bos: Option<u32>,
    pub(super) ends: HashSet<u32>,
    pub(super) template: Option<Template>,
}

/// Values of `tokenizer.ggml.model`, and the spelling of their tokens.
const SPELLINGS: [(&str, Spelling); 2] = [("llama", Spelling::Pieces), ("gpt2", Spelling::ByteLevel)];

/// Supported values of `tokenizer.ggml.model`.
pub(crate) fn tokenizers() -> [&'static str; 2] {
    SPELLINGS.map(|(name, _)| name)
}

impl Tokenizer {
    /// Builds the tokenizer that the file describes.
    ///
    /// # Errors
    ///
    /// If the file describes none, or an unsupported kind, or is inconsistent.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        const MODEL: &str = "tokenizer.ggml.model";
        let model = gguf.str(MODEL)?;
        let known = SPELLINGS.into_iter().find(|(name, _)| Some(*name) == model);
        let (_, spelling) = known.ok_or_else(|| {
            let found = model.map_or("is missing".to_owned(), |model| format!("is {}", quoted(model)));
            let known = names(tokenizers());
            GgufError::key(MODEL, format!("{found}; expected a supported tokenizer: {known}"))
        })?;
        // Cheap checks come before the vocabulary is read.
        let words = (spelling == Spelling::ByteLevel).then(|| Words::read(gguf)).transpose()?;
        let vocabulary = Vocabulary::read(gguf, spelling)?;
        let encoder = match words {
            None => Encoder::Pieces(Pieces::read(gguf, &vocabulary)?),
            Some(words) => Encoder::ByteLevel(Box::new(model::from_merges(gguf, &vocabulary, words)?)),
        };
        let space_prefix =
            spelling == Spelling::Pieces && gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);

        let symbols = vocabulary.of_kinds(&[Kind::Symbol]);
        let symbols = ControlTokens::new(symbols.map(|(id, text)| (text.replace('▁', " "), id)));
        let control_texts: Vec<(u32, String)> = vocabulary
            .of_kinds(&[Kind::Control, Kind::Added, Kind::Unknown])
            .map(|(id, text)| (id, text.to_owned()))
            .collect();
        let control = ControlTokens::new(control_texts.iter().map(|(id, text)| (text.clone(), *id)));
        let id = |key| vocabulary.id(gguf, key);
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let named = [eos, id("tokenizer.ggml.eot_token_id")?, id("tokenizer.ggml.eom_token_id")?];
        let ends =
            named.into_iter().flatten().chain(ENDS.iter().filter_map(|end| control.get(end))).collect();
        let begins = words.is_none_or(|words| words.begins);
        let add_bos = gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);

        let text_of = |id: Option<u32>| id.map(|id| vocabulary.tokens[id as usize]);
        let template = gguf.str("tokenizer.chat_template")?;
        let template =
            template.map(|source| Template::new(source, text_of(bos), text_of(eos))).transpose()?;
        Ok(Tokenizer {
            encoder,
            space_prefix,
            words_are_separate: spelling == Spelling::ByteLevel || vocabulary.words_are_separate(),
            bytes: vocabulary.bytes(spelling)?,
            strips: stripping(gguf, &control_texts)?,
            control,
            symbols,
            control_texts,
            bos: bos.filter(|_| add_bos),
            ends,
            template,
        })
    }

    /// Number of tokens, including unused ids.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.bytes.len()
    }

    /// The token that a prompt begins with, if the file requires one.
    pub(crate) fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// True if `token` ends a text.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// Encodes `text`, without BOS. Control tokens in it are treated as text.
    ///
    /// # Errors
    ///
    /// If the text exceeds 1 MiB.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = Vec::new();
        self.encode_fragment(text, self.space_prefix, &mut tokens)?;
        Ok(tokens)
    }

    /// Like [`Tokenizer::encode`], for a text that continues other text: no space is put before it.
    ///
    /// # Errors
    ///
    /// As in [`Tokenizer::encode`].
    #[cfg(any(test, fuzzing))]
    pub(crate) fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = Vec::new();
        self.encode_fragment(text, false, &mut tokens)?;
        Ok(tokens)
    }

    /// The bytes of `token` in a text; empty for control tokens, unused and unknown ids.
    pub(crate) fn token_bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token)
    }

    /// A readable form of `token` for messages: the name of a control token, or its bytes with
    /// invalid UTF-8 replaced. `None` for unused and unknown ids.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn token_text(&self, token: u32) -> Option<std::borrow::Cow<'_, str>> {
        let bytes = self.bytes.get(token);
        if !bytes.is_empty() {
            return Some(String::from_utf8_lossy(bytes));
        }
        let position = self.control_texts.binary_search_by_key(&token, |(id, _)| *id).ok()?;
        Some(std::borrow::Cow::Borrowed(&self.control_texts[position].1))
    }

    pub(crate) fn is_control(&self, token: u32) -> bool {
        self.control_texts.binary_search_by_key(&token, |(id, _)| *id).is_ok()
    }

    pub(super) fn encode_fragment(
        &self,
        text: &str,
        space_prefix: bool,
        tokens: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(TokenizerError::Long { found: text.len() });
        }
        if text.is_empty() {
            return Ok(());
        }
        let pieces = match &self.encoder {
            Encoder::Pieces(pieces) => pieces,
            Encoder::ByteLevel(encoder) => {
                let encoding = encoder.encode_fast(text, false).map_err(TokenizerError::encoder)?;
                tokens.extend(encoding.get_ids());
                return Ok(());
            }
        };
        let mut prefix = if space_prefix { "▁" } else { "" };
        for piece in self.symbols.split(text) {
            match piece {
                Piece::Control(symbol) => tokens.push(symbol),
                Piece::Text(text) => pieces.encode(&format!("{prefix}{}", text.replace(' ', "▁")), tokens),
            }
            prefix = "";
        }
        Ok(())
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocabulary_size())
    }
}

/// The control tokens that strip the whitespace after them. Files do not declare them; llama.cpp
/// knows those of Phi-3 by name.
fn stripping(gguf: &Gguf, control: &[(u32, String)]) -> Result<HashSet<u32>, TokenizerError> {
    let name = gguf.str("general.name")?.unwrap_or_default().to_lowercase();
    if gguf.architecture()? != "phi3" && !name.contains("phi-3") && !name.contains("phi3") {
        return Ok(HashSet::new());
    }
    let plain = ["<unk>", "<s>", "<|endoftext|>"];
    let strips = control.iter().filter(|(_, text)| !plain.contains(&text.as_str()));
    Ok(strips.map(|(id, _)| *id).collect())
}
