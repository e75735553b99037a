//! The tokenizer of a text model: text in, windows of token ids out.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::{
    Encoding, PaddingDirection, PostProcessor as _, PostProcessorWrapper, Tokenizer, TruncationDirection,
};

use super::inspection::{inspect, inspect_size};
use super::patterns::letters;
use super::request::Text;
use crate::card::TextSpec;
use crate::limits::{MAX_ENCODED_BYTES, MAX_TOKEN_IDS, MAX_TOKENIZER_BYTES, MAX_TRIAL_TIME, TRIAL_BYTES};
use crate::model::panic_message;
use crate::text::{MESSAGE_BYTES, excerpt_of};

/// Tokens that pad a text, by the names that models give them.
const PADS: [&str; 4] = ["[PAD]", "<pad>", "<|pad|>", "<|padding|>"];

/// A tokenizer with the options of its card.
pub(crate) struct TextTokenizer {
    /// The file's tokenizer without its post-processor.
    tokenizer: Tokenizer,
    /// The post-processor alone. It runs once, on windows: a second run would trim offsets again.
    processor: Tokenizer,
    max_tokens: usize,
    stride: Option<usize>,
    max_windows: usize,
    /// Id of the unknown token, if tokens outside of the vocabulary are left out or counted.
    unknown: Option<u32>,
    drops_unknown: bool,
    /// Id that fills shorter rows.
    pub(super) pad: u32,
    /// True if shorter rows are filled in front.
    pub(super) pads_left: bool,
}

/// A window of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// Token ids, including those that the tokenizer adds.
    pub(crate) ids: Vec<u32>,
    /// 0 for the first text of a pair, 1 for the second.
    pub(crate) types: Vec<u32>,
    /// Range of each token in the text, in characters; empty for tokens that were added.
    pub(crate) offsets: Vec<(usize, usize)>,
    /// True for each token that the tokenizer added.
    pub(crate) added: Vec<bool>,
}

/// The tokens of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// At least one window.
    pub(crate) windows: Vec<Window>,
    /// Number of tokens of the text, without those that the tokenizer adds.
    pub(crate) count: usize,
    /// Of these, tokens of the vocabulary.
    pub(crate) known: usize,
    /// True if the windows do not contain the whole text.
    pub(crate) is_truncated: bool,
}

/// Reason why a text has no tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EncodeError {
    /// It is too long: the message has the size and the limit.
    TooLarge(String),
    /// It does not fit the model, or the tokenizer failed.
    Invalid(String),
}

impl TextTokenizer {
    /// Reads a tokenizer's file.
    ///
    /// # Errors
    ///
    /// A message about a file that is too large, malformed, or too slow.
    pub(crate) fn new(file: &[u8], spec: &TextSpec) -> Result<Self, String> {
        MAX_TOKENIZER_BYTES.check("the tokenizer", file.len())?;
        inspect_size(file)?;
        let json: Value = serde_json::from_slice(file).map_err(|error| error.to_string())?;
        inspect(&json)?;
        // Unwind safety: everything that the closure builds is dropped with a panic.
        let parsed = catch_unwind(AssertUnwindSafe(|| Tokenizer::from_bytes(file)));
        let mut tokenizer = parsed
            .unwrap_or_else(|panic| Err(panic_message(&*panic).into()))
            .map_err(|error| excerpt_of(error, MESSAGE_BYTES))?;
        let padding = tokenizer.get_padding().cloned();
        let pads = PADS.iter().find_map(|pad| tokenizer.token_to_id(pad));
        let pad = padding.as_ref().map(|padding| padding.pad_id).or(pads).unwrap_or(0);
        let pads_left = padding.is_some_and(|padding| matches!(padding.direction, PaddingDirection::Left));
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| excerpt_of(error, MESSAGE_BYTES))?;
        let unknown = unknown_token(&json).and_then(|token| tokenizer.token_to_id(&token));
        let mut processor = Tokenizer::new(WordLevel::default());
        processor.with_post_processor(tokenizer.get_post_processor().cloned());
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        let added = added_tokens(&processor, false).max(added_tokens(&processor, true));
        if added + spec.stride.unwrap_or(0) >= spec.max_tokens {
            return Err(format!(
                "it adds {added} tokens to each window, which leaves none of {} for the text beyond the stride",
                spec.max_tokens
            ));
        }
        let tokenizer = TextTokenizer {
            tokenizer,
            processor,
            max_tokens: spec.max_tokens,
            stride: spec.stride,
            max_windows: spec.max_windows,
            unknown,
            drops_unknown: spec.drop_unknown,
            pad,
            pads_left,
        };
        tokenizer.try_out(&letters(&json))?;
        Ok(tokenizer)
    }

    /// Encodes texts of growing length that are hard to split, also of the letters that the
    /// patterns name, and checks that the end of a long text is read.
    ///
    /// # Errors
    ///
    /// A message about the first text that takes too long, that the tokenizer rejects, or whose end
    /// it ignores.
    fn try_out(&self, letters: &[char]) -> Result<(), String> {
        let in_time =
            |began: Duration, length: usize, unit: &str| match processor_time() - began > MAX_TRIAL_TIME {
                true => Err(format!(
                    "it takes more than {} s for {length} bytes of {unit:?}",
                    MAX_TRIAL_TIME.as_secs()
                )),
                false => Ok(()),
            };
        let began = processor_time();
        for length in [64, 512, 4_096] {
            for unit in ["a", " ", "\n", "1", "!", "'", "é", "\u{301}", "日", "a ", "a1", " \n"] {
                let text = unit.repeat(length / unit.len());
                if let Err(EncodeError::Invalid(message)) = self.encode(&Text::Single(text), false) {
                    return Err(format!("it rejects {length} bytes of {unit:?}: {message}"));
                }
                in_time(began, length, unit)?;
            }
        }
        for letter in letters {
            let (began, unit) = (processor_time(), letter.to_string());
            let text = unit.repeat(TRIAL_BYTES / unit.len());
            // Too many tokens are no fault.
            let _ = self.encode(&Text::Single(text), false);
            in_time(began, TRIAL_BYTES, &unit)?;
        }
        // The rest of a text is not split behind the library's limit of steps for a pattern.
        let began = processor_time();
        let last = |count: usize| {
            let text = format!("{} a", "x".repeat(count));
            let raw = catch_unwind(AssertUnwindSafe(|| self.raw(&text, false)));
            raw.ok().and_then(Result::ok).and_then(|encoding| encoding.get_ids().last().copied())
        };
        if last(1) != last(MAX_ENCODED_BYTES - 2) {
            return Err(format!(
                "it ignores the end of a text of {MAX_ENCODED_BYTES} bytes: its patterns take too many steps"
            ));
        }
        in_time(began, MAX_ENCODED_BYTES, "x")
    }

    /// Returns the tokens of `text`. Offsets are computed only if `offsets` is true.
    ///
    /// # Errors
    ///
    /// When the text is too long, or the tokenizer fails.
    pub(crate) fn encode(&self, text: &Text, offsets: bool) -> Result<Tokens, EncodeError> {
        self.encode_next(text, offsets, &mut SharedFirst::default())
    }

    /// As [`TextTokenizer::encode`], after another text of the same call, whose `first` it may
    /// share.
    ///
    /// # Errors
    ///
    /// As [`TextTokenizer::encode`].
    pub(crate) fn encode_next(
        &self,
        text: &Text,
        offsets: bool,
        first: &mut SharedFirst,
    ) -> Result<Tokens, EncodeError> {
        // Unwind safety: encoding does not modify the tokenizer, except for its cache, which has a
        // lock.
        catch_unwind(AssertUnwindSafe(|| self.encode_any(text, offsets, first)))
            .unwrap_or_else(|panic| Err(EncodeError::Invalid(panic_message(&*panic))))
    }

    fn encode_any(&self, text: &Text, offsets: bool, first: &mut SharedFirst) -> Result<Tokens, EncodeError> {
        match text {
            Text::Single(text) => {
                let (encoding, unknown) = self.without_unknown(self.raw(text, offsets)?);
                self.windows(encoding, unknown)
            }
            Text::Tokens(ids) => {
                if ids.len() > MAX_TOKEN_IDS {
                    let found = ids.len();
                    return Err(EncodeError::TooLarge(format!(
                        "a text has {found} token ids, expected at most {MAX_TOKEN_IDS}; send it in pieces"
                    )));
                }
                if let Some(id) = ids.iter().find(|&&id| self.tokenizer.id_to_token(id).is_none()) {
                    let message = format!("token id {id} is not in the vocabulary");
                    return Err(EncodeError::Invalid(message));
                }
                self.windows(encoding_of(ids.clone()), 0)
            }
            Text::Pair(query, second) => {
                if first.0.as_ref().is_none_or(|(text, ..)| text != query) {
                    let (encoding, unknown) = self.without_unknown(self.raw(query, false)?);
                    first.0 = Some((query.clone(), encoding, unknown));
                }
                match &first.0 {
                    Some((_, encoding, unknown)) => self.pair(encoding.clone(), *unknown, second),
                    None => Err(EncodeError::Invalid("the pair has no first text".to_owned())),
                }
            }
        }
    }

    /// Tokens of a text, without those that the tokenizer adds.
    fn raw(&self, text: &str, offsets: bool) -> Result<Encoding, EncodeError> {
        check_length(text)?;
        let encoded = if offsets {
            self.tokenizer.encode_char_offsets(text, false)
        } else {
            self.tokenizer.encode_fast(text, false)
        };
        encoded.map_err(invalid)
    }

    /// Counts unknown tokens, or removes them if the card says so.
    fn without_unknown(&self, encoding: Encoding) -> (Encoding, usize) {
        let Some(unknown) = self.unknown else { return (encoding, 0) };
        let count = encoding.get_ids().iter().filter(|&&id| id == unknown).count();
        if count == 0 || !self.drops_unknown {
            return (encoding, count);
        }
        let known = encoding.get_ids().iter().copied().filter(|&id| id != unknown).collect();
        (encoding_of(known), 0)
    }

    fn windows(&self, mut encoding: Encoding, unknown: usize) -> Result<Tokens, EncodeError> {
        let count = encoding.len();
        let size = self.max_tokens - added_tokens(&self.processor, false);
        let is_long = count > size;
        if let Some(stride) = self.stride.filter(|_| is_long) {
            let windows = (count - size).div_ceil(size - stride) + 1;
            if windows > self.max_windows {
                let (max, tokens) = (self.max_windows, self.max_tokens);
                return Err(EncodeError::TooLarge(format!(
                    "a text has {windows} windows of {tokens} tokens, expected at most {max}; send it in pieces"
                )));
            }
        }
        encoding.truncate(size, self.stride.unwrap_or(0), TruncationDirection::Right);
        let rest = encoding.take_overflowing();
        let rest = if self.stride.is_some() { rest } else { Vec::new() };
        let windows = std::iter::once(encoding).chain(rest).map(|window| {
            let processed = self.processor.post_process(window, None, true).map_err(invalid)?;
            self.window(&processed)
        });
        let windows = windows.collect::<Result<_, _>>()?;
        Ok(Tokens { windows, count, known: count - unknown, is_truncated: is_long && self.stride.is_none() })
    }

    /// Tokens of two texts that are read together: one window, in which the longer text is
    /// truncated first. `one` is the number of unknown tokens in `first`.
    fn pair(&self, mut first: Encoding, one: usize, second: &str) -> Result<Tokens, EncodeError> {
        let (mut second, two) = self.without_unknown(self.raw(second, false)?);
        let count = first.len() + second.len();
        let size = self.max_tokens - added_tokens(&self.processor, true);
        let is_truncated = count > size;
        let (one_size, two_size) = longest_first(first.len(), second.len(), size);
        first.truncate(one_size, 0, TruncationDirection::Right);
        second.truncate(two_size, 0, TruncationDirection::Right);
        first.take_overflowing();
        second.take_overflowing();
        let whole = self.processor.post_process(first, Some(second), true).map_err(invalid)?;
        Ok(Tokens { windows: vec![self.window(&whole)?], count, known: count - one - two, is_truncated })
    }

    /// Checks the length of a window: a template may repeat the text.
    fn window(&self, encoding: &Encoding) -> Result<Window, EncodeError> {
        let (found, max) = (encoding.len(), self.max_tokens);
        if found > max {
            let message = format!("the post-processor returns {found} tokens, expected at most {max}");
            return Err(EncodeError::Invalid(message));
        }
        Ok(Window::of(encoding))
    }
}

/// The first text of the last pair with its tokens and the number of unknown ones: all pairs of a
/// call often share it.
#[derive(Default)]
pub(crate) struct SharedFirst(Option<(String, Encoding, usize)>);

/// Checks the length of `text`.
///
/// # Errors
///
/// [`EncodeError::TooLarge`] beyond [`MAX_ENCODED_BYTES`].
pub(super) fn check_length(text: &str) -> Result<(), EncodeError> {
    let found = text.len();
    if found <= MAX_ENCODED_BYTES {
        return Ok(());
    }
    Err(EncodeError::TooLarge(format!(
        "a text has {found} bytes, expected at most {MAX_ENCODED_BYTES}; send it in pieces"
    )))
}

/// Time of the processor that this thread has used. Other programs do not affect it.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Number of tokens that the post-processor adds to a text or a pair.
fn added_tokens(processor: &Tokenizer, is_pair: bool) -> usize {
    processor.get_post_processor().map_or(0, |added| added.added_tokens(is_pair))
}

impl Window {
    fn of(encoding: &Encoding) -> Self {
        Window {
            ids: encoding.get_ids().to_vec(),
            types: encoding.get_type_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
            added: encoding.get_special_tokens_mask().iter().map(|&mask| mask == 1).collect(),
        }
    }
}

/// Lengths of two texts that have at most `size` tokens together: the longer one is truncated
/// first. That is the strategy `longest_first` of the `tokenizers` library, whose implementation
/// since 0.23.1 truncates some pairs differently.
fn longest_first(first: usize, second: usize, size: usize) -> (usize, usize) {
    if first + second <= size {
        return (first, second);
    }
    let (short, long) = (first.min(second), first.max(second));
    let long = if short > size { short } else { short.max(size - short).min(long) };
    let (short, long) = if short + long > size { (size / 2, size / 2 + size % 2) } else { (short, long) };
    if first > second { (long, short) } else { (short, long) }
}

/// An encoding of ids alone.
fn encoding_of(ids: Vec<u32>) -> Encoding {
    let length = ids.len();
    Encoding::new(
        ids,
        vec![0; length],
        vec![String::new(); length],
        vec![None; length],
        vec![(0, 0); length],
        vec![0; length],
        vec![1; length],
        Vec::new(),
        Default::default(),
    )
}

/// Text of the unknown token in a tokenizer's file.
fn unknown_token(file: &Value) -> Option<String> {
    let model = &file["model"];
    let by_id = || model["vocab"][usize::try_from(model["unk_id"].as_u64()?).ok()?][0].as_str();
    model["unk_token"].as_str().or_else(by_id).map(str::to_owned)
}

fn invalid(error: impl Display) -> EncodeError {
    EncodeError::Invalid(excerpt_of(error, MESSAGE_BYTES))
}
