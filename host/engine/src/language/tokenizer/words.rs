//! Pre-tokenizers of `gpt2` vocabularies, which split a text into the words that are encoded on
//! their own.
//!
//! The patterns are those of the models' own tokenizers, as `src/llama-vocab.cpp` of llama.cpp
//! lists them by the name in `tokenizer.ggml.pre`.

use tokenizers::PreTokenizerWrapper;
use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};

use super::error::TokenizerError;
use crate::language::gguf::{Gguf, GgufError, quoted};
use crate::text::names;

const PRE: &str = "tokenizer.ggml.pre";

/// A pre-tokenizer, and the properties of the encoders that use it.
#[derive(Debug)]
pub(super) struct Words {
    /// Its names in files.
    names: &'static [&'static str],
    steps: &'static [Step],
    /// True if a text is brought into normal form C before.
    pub(super) composes: bool,
    /// True if a word that is a token is not merged from its parts.
    pub(super) keeps_tokens: bool,
    /// True if a text begins with BOS, unless the file says otherwise.
    pub(super) begins: bool,
}

/// A step of a pre-tokenizer.
#[derive(Debug)]
enum Step {
    /// Each match of a regular expression is a word.
    Pattern(&'static str),
    /// Each digit is a word.
    Digits,
    /// GPT-2's pattern, of the `tokenizers` crate.
    Gpt2,
}

use Step::{Digits as SingleDigits, Gpt2, Pattern};

/// Contractions, letters, up to three digits, punctuation, line ends, spaces.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const ALL: [Words; 6] = [
    Words {
        names: &["qwen2"],
        // Like Llama 3's, with single digits.
        steps: &[Pattern(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        composes: true,
        keeps_tokens: false,
        begins: false,
    },
    Words {
        names: &["llama-bpe", "llama3", "llama-v3"],
        steps: &[Pattern(LLAMA_3)],
        composes: false,
        keeps_tokens: true,
        begins: true,
    },
    Words {
        // Llama 3's pattern in vocabularies without BOS, such as SmolLM3's.
        names: &["smaug-bpe", "dbrx"],
        steps: &[Pattern(LLAMA_3)],
        composes: false,
        keeps_tokens: false,
        begins: false,
    },
    Words {
        names: &["gpt-4o"],
        // A word ends where a small letter precedes a capital one.
        steps: &[Pattern(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        composes: false,
        keeps_tokens: false,
        begins: false,
    },
    Words {
        names: &["tekken"],
        // Like GPT-4o's, without contractions and with single digits.
        steps: &[Pattern(
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        )],
        composes: false,
        keeps_tokens: true,
        begins: true,
    },
    Words {
        names: &["smollm", "refact", "starcoder"],
        steps: &[SingleDigits, Gpt2],
        composes: false,
        keeps_tokens: false,
        begins: false,
    },
];

/// Supported values of `tokenizer.ggml.pre`.
pub(crate) fn pre_tokenizers() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|words| words.names.iter().copied())
}

impl Words {
    /// Reads the pre-tokenizer that the file names.
    ///
    /// # Errors
    ///
    /// If it is missing or not supported.
    pub(super) fn read(gguf: &Gguf) -> Result<&'static Self, TokenizerError> {
        let found = match gguf.str(PRE)? {
            Some(name) => match ALL.iter().find(|words| words.names.contains(&name)) {
                Some(words) => return Ok(words),
                None => format!("is {}", quoted(name)),
            },
            None => "is missing".to_owned(),
        };
        let known = names(pre_tokenizers());
        let message = format!("{found}; expected a supported pre-tokenizer: {known}");
        Err(GgufError::key(PRE, message).into())
    }

    /// The steps for the `tokenizers` crate, the last of which writes each byte as a character.
    ///
    /// # Errors
    ///
    /// Not for the patterns of this module.
    pub(super) fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper, TokenizerError> {
        let bytes = |use_regex| PreTokenizerWrapper::from(ByteLevel::new(false, false, use_regex));
        let mut steps = Vec::with_capacity(2);
        for step in self.steps {
            steps.push(match step {
                Pattern(pattern) => {
                    let pattern = SplitPattern::Regex((*pattern).to_owned());
                    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
                    split.map_err(TokenizerError::encoder)?.into()
                }
                SingleDigits => Digits::new(true).into(),
                Gpt2 => bytes(true),
            });
        }
        if !self.steps.iter().any(|step| matches!(step, Gpt2)) {
            steps.push(bytes(false));
        }
        Ok(Sequence::new(steps).into())
    }
}
