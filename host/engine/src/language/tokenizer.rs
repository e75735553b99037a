//! Tokenizers of GGUF files, built in memory from the file's own metadata.
//!
//! Two kinds of vocabularies are known: `llama`, which is SentencePiece's BPE, and `gpt2`,
//! byte-level BPE behind a pre-tokenizer that the file names. The pieces come from the `tokenizers`
//! crate. Control tokens are no part of them: a caller's text is text throughout, and only a chat
//! template's own text is searched for control tokens.

mod chat;
mod control;
mod detokenizer;
mod model;
#[cfg(test)]
pub(super) mod tests;
mod vocabulary;

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;

pub(super) use self::chat::Open;
use self::control::ControlTokens;
pub(crate) use self::detokenizer::Detokenizer;
use self::model::{Encoder, Words};
use self::vocabulary::{Kind, Spelling, TokenBytes, Vocabulary};
use super::gguf::{Gguf, GgufError, quoted};
use super::template::{Template, TemplateError};

/// Bytes of one text, or of a chat's contents together, at most: some eight times what the longest
/// contexts hold.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// Turns of a chat at most.
pub(super) const MAX_MESSAGES: usize = 1 << 10;

/// The roles that a turn may have. Templates write them between control tokens' brackets, so no
/// others are taken.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Tokens that end a text besides those that the file names: some files name one of several alone.
const ENDS: [&str; 6] =
    ["<|end|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"];

/// A model's tokenizer.
pub(crate) struct Tokenizer {
    encoder: Encoder,
    spelling: Spelling,
    /// Whether the encoder puts a space before a text.
    space_prefix: bool,
    /// Whether no token goes on from a word's letters into the next word.
    words_part: bool,
    bytes: TokenBytes,
    control: ControlTokens,
    /// The text of each control token, by id.
    control_texts: Vec<(u32, String)>,
    /// Control tokens that swallow the white space behind them.
    strips: HashSet<u32>,
    bos: Option<u32>,
    ends: HashSet<u32>,
    template: Option<Template>,
}

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks: `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// What is said: text throughout, whatever it looks like.
    pub content: String,
}

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
    fn encoder(error: tokenizers::Error) -> Self {
        TokenizerError::Encoder(error.to_string())
    }
}

impl Tokenizer {
    /// Build the tokenizer that the file describes.
    ///
    /// # Errors
    ///
    /// When the file describes none, or one of a kind that is not known here; when its parts
    /// contradict each other.
    pub(crate) fn from_gguf(gguf: &Gguf) -> Result<Self, TokenizerError> {
        const MODEL: &str = "tokenizer.ggml.model";
        let model = gguf.str(MODEL)?;
        let spelling = match model {
            Some("llama") => Spelling::Pieces,
            Some("gpt2") => Spelling::ByteLevel,
            _ => {
                let found = model.map_or("is missing".to_owned(), |model| format!("is {}", quoted(model)));
                let message = format!("{found}; expected a tokenizer that is known: `llama`, `gpt2`");
                return Err(GgufError::key(MODEL, message).into());
            }
        };
        // Cheap refusals come before the vocabulary is read.
        let words = (spelling == Spelling::ByteLevel).then(|| Words::read(gguf)).transpose()?;
        let vocabulary = Vocabulary::read(gguf)?;
        let encoder = match words {
            None => model::from_scores(gguf, &vocabulary)?,
            Some(words) => model::from_merges(gguf, &vocabulary, words)?,
        };
        let space_prefix =
            spelling == Spelling::Pieces && gguf.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);

        let control_texts: Vec<(u32, String)> = (0..)
            .zip(vocabulary.tokens.iter().zip(&vocabulary.kinds))
            .filter(|(_, (_, kind))| matches!(kind, Kind::Control | Kind::Added | Kind::Unknown))
            .map(|(id, (text, _))| (id, (*text).to_owned()))
            .collect();
        let control = ControlTokens::new(control_texts.iter().map(|(id, text)| (text.clone(), *id)));
        let id = |key| vocabulary.id(gguf, key);
        let (bos, eos) = (id("tokenizer.ggml.bos_token_id")?, id("tokenizer.ggml.eos_token_id")?);
        let named = [eos, id("tokenizer.ggml.eot_token_id")?, id("tokenizer.ggml.eom_token_id")?];
        let ends =
            named.into_iter().flatten().chain(ENDS.iter().filter_map(|end| control.get(end))).collect();
        // As the reference: SentencePiece models begin with their BOS, and so does Llama 3.
        let begins = spelling == Spelling::Pieces || words == Some(Words::LlamaBpe);
        let add_bos = gguf.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(begins);

        let text_of = |id: Option<u32>| id.map(|id| vocabulary.tokens[id as usize]);
        let template = gguf.str("tokenizer.chat_template")?;
        let template =
            template.map(|source| Template::new(source, text_of(bos), text_of(eos))).transpose()?;
        Ok(Tokenizer {
            encoder,
            spelling,
            space_prefix,
            words_part: spelling == Spelling::ByteLevel || vocabulary.words_part(),
            bytes: vocabulary.bytes(spelling)?,
            strips: stripping(gguf, &control_texts)?,
            control,
            control_texts,
            bos: bos.filter(|_| add_bos),
            ends,
            template,
        })
    }

    /// How many tokens there are, holes included.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.bytes.len()
    }

    /// The token that a prompt begins with, where the file says that one does.
    pub(crate) fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether a text ends at `token`.
    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.ends.contains(&token)
    }

    /// The tokens of `text`, without BOS. Control tokens in it are text.
    ///
    /// # Errors
    ///
    /// When the text is over 1 MiB.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = Vec::new();
        self.encode_fragment(text, self.space_prefix, &mut tokens)?;
        Ok(tokens)
    }

    /// As [`Tokenizer::encode`], for a text that goes on behind other text: no space is put before
    /// it.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode`].
    #[cfg(any(test, fuzzing))]
    pub(crate) fn encode_continuation(&self, text: &str) -> Result<Vec<u32>, TokenizerError> {
        let mut tokens = Vec::new();
        self.encode_fragment(text, false, &mut tokens)?;
        Ok(tokens)
    }

    /// A text from tokens as they come.
    pub(crate) fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(self)
    }

    /// The bytes that `token` stands for in a text; none for control tokens, holes and ids that are
    /// no token.
    pub(crate) fn token_bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token)
    }

    /// What `token` reads as, for messages: control tokens by name, bytes that are no text
    /// replaced. `None` for holes and ids that are no token.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn token_text(&self, token: u32) -> Option<Cow<'_, str>> {
        let bytes = self.bytes.get(token);
        if !bytes.is_empty() {
            return Some(String::from_utf8_lossy(bytes));
        }
        let position = self.control_texts.binary_search_by_key(&token, |(id, _)| *id).ok()?;
        Some(Cow::Borrowed(&self.control_texts[position].1))
    }

    pub(crate) fn is_control(&self, token: u32) -> bool {
        self.control_texts.binary_search_by_key(&token, |(id, _)| *id).is_ok()
    }

    fn encode_fragment(
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
        let spelt = match self.spelling {
            Spelling::ByteLevel => Cow::Borrowed(text),
            Spelling::Pieces => {
                let prefix = if space_prefix { "▁" } else { "" };
                Cow::Owned(format!("{prefix}{}", text.replace(' ', "▁")))
            }
        };
        let encoding = self.encoder.encode_fast(spelt, false).map_err(TokenizerError::encoder)?;
        tokens.extend(encoding.get_ids());
        Ok(())
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({:?}, {} tokens)", self.spelling, self.vocabulary_size())
    }
}

fn check(messages: &[Message], continue_last: bool) -> Result<(), TokenizerError> {
    let wrong = |message| Err(TokenizerError::Messages(message));
    let Some(last) = messages.last() else {
        return wrong("is empty; expected one turn at least".to_owned());
    };
    if messages.len() > MAX_MESSAGES {
        return wrong(format!("has {} turns; expected {MAX_MESSAGES} at most", messages.len()));
    }
    let unknown = messages.iter().position(|message| !ROLES.contains(&message.role.as_str()));
    if let Some(turn) = unknown {
        let (role, roles) = (quoted(&messages[turn].role), ROLES.map(|role| format!("`{role}`")).join(", "));
        return wrong(format!("has role {role} at turn {turn}; expected one of {roles}"));
    }
    let found = messages.iter().map(|message| message.content.len()).sum();
    if found > MAX_TEXT_BYTES {
        return Err(TokenizerError::Long { found });
    }
    if continue_last && last.role != "assistant" {
        return wrong(format!(
            "end in a turn of `{}`; expected `assistant`, whose turn `continue` goes on",
            last.role
        ));
    }
    Ok(())
}

/// The control tokens that swallow the white space behind them. Files do not say; the reference
/// knows Phi-3's by name.
fn stripping(gguf: &Gguf, control: &[(u32, String)]) -> Result<HashSet<u32>, TokenizerError> {
    let name = gguf.str("general.name")?.unwrap_or_default().to_lowercase();
    if gguf.architecture()? != "phi3" && !name.contains("phi-3") && !name.contains("phi3") {
        return Ok(HashSet::new());
    }
    let plain = ["<unk>", "<s>", "<|endoftext|>"];
    let strips = control.iter().filter(|(_, text)| !plain.contains(&text.as_str()));
    Ok(strips.map(|(id, _)| *id).collect())
}
