//! Fixed limits of the engine. Options of models and requests have their ranges where they are
//! read.

use std::fmt::Display;
use std::time::Duration;

/// A maximum number of elements or bytes, with the unit of its error message.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    max: usize,
    unit: &'static str,
}

impl Limit {
    /// Creates a limit of `max`; the plural `unit` is for messages.
    #[must_use]
    pub const fn new(max: usize, unit: &'static str) -> Self {
        Limit { max, unit }
    }

    /// The maximum itself.
    #[must_use]
    pub const fn max(self) -> usize {
        self.max
    }

    /// Checks the number `found` of `subject`.
    ///
    /// # Errors
    ///
    /// A message with the subject, the number and the maximum, if `found` is larger.
    pub fn check(self, subject: impl Display, found: usize) -> Result<(), String> {
        let Limit { max, unit } = self;
        if found <= max {
            return Ok(());
        }
        Err(format!("{subject} has {found} {unit}, expected at most {max}"))
    }

    /// Checks that one more element may follow `count`. For lists that are not read to their end,
    /// so the number of all elements is unknown.
    ///
    /// # Errors
    ///
    /// A message with the maximum, if it is reached.
    pub fn check_next(self, count: usize) -> Result<(), String> {
        let Limit { max, unit } = self;
        if count < max { Ok(()) } else { Err(format!("more than {max} {unit}")) }
    }
}

// Cards and files.

/// Maximum size of a card, in bytes. Protects memory from a wrong file; a large card consists
/// mostly of numbers of self-tests.
pub(crate) const MAX_CARD_BYTES: u64 = 64 << 20;

/// Maximum number of categories of a card. Guests read all of them for each request.
pub(crate) const MAX_CATEGORIES: Limit = Limit::new(64, "entries");

/// Maximum length of a category's name, in bytes.
pub(crate) const MAX_CATEGORY_NAME_BYTES: usize = 64;

/// Minimum length of a prefix that is kept on disk, in tokens. A shorter one is computed in one
/// pass with the text after it.
pub(crate) const MIN_SAVED_TOKENS: usize = 32;

/// Maximum size of the header of a stored prefix, in bytes. Protects memory from a wrong file; a
/// token of the largest context takes eight.
pub(crate) const MAX_SAVED_HEADER_BYTES: u64 = 16 << 20;

/// Maximum number of names of stored prefixes that a model remembers. Beyond it all are forgotten,
/// and a prefix may be written again.
pub(crate) const MAX_SAVED_PREFIXES: usize = 4_096;

/// Maximum number of labels of the heads of a card. Each is computed for every text.
pub(crate) const MAX_HEAD_LABELS: Limit = Limit::new(256, "labels");

/// Maximum number of values of a head for one label, as many as the embedding has. Bounds its file.
pub(crate) const MAX_HEAD_VALUES: Limit = Limit::new(8_192, "values");

/// Maximum size of a head's file, in bytes. Protects memory from a wrong file.
pub const MAX_HEAD_BYTES: u64 = 16 << 20;

/// Maximum number of self-tests of a card. Bounds the time of a reload, which runs all of them.
pub(crate) const MAX_CARD_TESTS: Limit = Limit::new(32, "entries");

/// Maximum number of values of one input of a self-test. Protects memory from a generated pattern
/// of any size.
pub(crate) const MAX_TEST_VALUES: usize = 1 << 24;

/// Maximum length of a file name in a card, in bytes, as on common file systems. Rejects names that
/// no pull could write.
pub(crate) const MAX_FILE_NAME_BYTES: usize = 255;

/// Maximum length of a rejected value in a message, in bytes. Keeps the reason, which follows the
/// value, in a line that is cut.
pub(crate) const MAX_REJECTED_VALUE_BYTES: usize = 64;

/// Maximum length of a Python requirement, in bytes. Bounds the names that are passed to pip.
pub(crate) const MAX_REQUIREMENT_BYTES: usize = 200;

/// Maximum number of rows on the batch axis of one job. A running computation cannot be
/// interrupted, so this bounds the time for which one caller occupies a session, and its memory
/// there.
pub(crate) const MAX_ROWS: usize = 128;

/// Maximum number of positions along any other varying axis if the card has no `max`. Bounds the
/// memory and time of one job.
pub(crate) const MAX_AXIS_WITHOUT_LIMIT: usize = 1_024;

/// Maximum number of positions in the product of the varying axes of one input if one of them has
/// no `max` in the card. Bounds the memory and time of one job.
pub(crate) const MAX_AXES_PRODUCT: usize = 65_536;

/// Maximum nesting of folders that are removed together. Bounds recursion; the program itself nests
/// less deeply.
pub(crate) const MAX_REMOVED_LEVELS: usize = 32;

/// Maximum size of the file of cached hashes, in bytes. Protects memory from a wrong file;
/// [`MAX_RECORDS`] records take less.
pub(crate) const MAX_HASH_CACHE_BYTES: u64 = 4 << 20;

/// Maximum number of cached hashes; the oldest are dropped. Bounds the file that each start reads.
pub(crate) const MAX_RECORDS: usize = 256;

/// Minimum age of a file when it is hashed, in nanoseconds, for the hash to be reused. A younger
/// file may change without a new time stamp.
pub(crate) const MIN_AGE_NS: i64 = 2_000_000_000;

// Tensors and ONNX models.

/// Maximum number of axes of a tensor. Error messages contain the shape, and a caller could send
/// millions of axes.
pub const MAX_AXES: usize = 8;

/// Maximum nesting of messages in an ONNX file, as in Protocol Buffers. Bounds recursion.
pub(crate) const MAX_MESSAGE_DEPTH: usize = 100;

/// Maximum size of an ONNX model in memory, in bytes, as in Protocol Buffers. Backends cannot parse
/// more.
pub(crate) const MAX_MODEL_BYTES: Limit = Limit::new(i32::MAX as usize, "bytes");

/// Maximum expected time of a computation on the caller's thread, which delays its other tasks.
pub(crate) const MAX_INLINE_TIME: Duration = Duration::from_millis(5);

// Text models.

/// Maximum size of a tokenizer's file, in bytes; that of XLM-RoBERTa, with 250,002 tokens, takes 17
/// MB. Its content takes about ten times as much memory while it is read.
pub(crate) const MAX_TOKENIZER_BYTES: Limit = Limit::new(40 << 20, "bytes");

/// Maximum length of a regular expression in a tokenizer's file, in bytes; those of models have up
/// to 300, and one that lists words has more. Bounds its compiled size.
pub(crate) const MAX_PATTERN_BYTES: usize = 16 << 10;

/// Maximum number of normalizers, pre-tokenizers and processors in a tokenizer's file. Bounds the
/// passes over a text.
pub(crate) const MAX_TOKENIZER_STEPS: usize = 32;

/// Maximum factor by which the replacements of a tokenizer's file lengthen a text. Bounds memory.
pub(crate) const MAX_TEXT_GROWTH: usize = 64;

/// Maximum number of tokens in a tokenizer's file that are matched before all others, such as
/// `[MASK]`. Each is searched for in every text.
pub(crate) const MAX_ADDED_TOKENS: Limit = Limit::new(4_096, "tokens");

/// Maximum number of tokens that a tokenizer adds to each text, such as `[CLS]`.
pub(crate) const MAX_TEMPLATE_TOKENS: usize = 64;

/// Maximum length of a word that WordPiece splits, in characters: the time grows with its square.
/// BERT has 100.
pub(crate) const MAX_WORDPIECE_CHARACTERS: u64 = 200;

/// Maximum number of objects in a tokenizer's file. Each takes hundreds of bytes while it is read;
/// a vocabulary is one, and an added token another.
pub(crate) const MAX_TOKENIZER_OBJECTS: usize = 20_000;

/// Maximum number of values in a tokenizer's file, at most those of its vocabulary and its merges.
/// Bounds the memory while it is read.
pub(crate) const MAX_TOKENIZER_VALUES: usize = 6_000_000;

/// Maximum size of all added tokens of a tokenizer's file after its normalizer, in bytes. A search
/// automaton of them takes a hundred times as much.
pub(crate) const MAX_ADDED_BYTES: usize = 1 << 20;

/// Length of the texts that consist of one letter of a tokenizer's patterns, in bytes: long enough
/// that a time which grows with the square of the length shows.
pub(crate) const TRIAL_BYTES: usize = 64 << 10;

/// Maximum time of its thread that a tokenizer may take for each group of texts on which it is
/// tried when it is loaded.
pub(crate) const MAX_TRIAL_TIME: Duration = Duration::from_secs(2);

/// Maximum number of tokens in a window of a text. Attention takes time with its square.
pub(crate) const MAX_WINDOW_TOKENS: usize = 8_192;

/// Maximum number of marks that are kept on one letter: more than any language has.
pub(crate) const MAX_MARKS: usize = 4;

/// Maximum number of ways to decode a word in leetspeak that are tried. Bounds the time of a word.
pub(crate) const MAX_DECODINGS: usize = 64;

/// Maximum length of a reading with evasive spellings undone in the facts about a call, in bytes.
/// Bounds the size of an answer.
pub(crate) const MAX_UNDONE_BYTES: usize = 160;

/// Maximum size of the texts of one call that are tokenized on the caller's thread, in bytes: less
/// than a millisecond. Longer ones would delay its other tasks.
pub(crate) const MAX_INLINE_TEXT_BYTES: usize = 8 << 10;

/// Maximum length of one text for a text model, in bytes. Bounds the time to tokenize it; and
/// patterns that backtrack once over a run of equal characters stay below their limit of a million
/// steps, beyond which the `tokenizers` library ignores the rest of a text.
pub(crate) const MAX_ENCODED_BYTES: usize = 256 << 10;

/// Maximum number of token ids of one text that a client sends as ids. Bounds their windows.
pub(crate) const MAX_TOKEN_IDS: usize = 64 << 10;

/// Maximum size of a table of replaced characters in a tokenizer's file, in bytes of base64; that
/// of XLM-RoBERTa takes 316 kB.
pub(crate) const MAX_CHARSMAP_BYTES: usize = 2 << 20;

/// Maximum length of what such a table replaces one character by, in bytes.
pub(crate) const MAX_CHARSMAP_ENTRY_BYTES: usize = 64;

/// Length of the beginning of a text by which its language is detected, in bytes: more than enough,
/// and a fraction of a millisecond.
pub(crate) const MAX_LANGUAGE_BYTES: usize = 2_000;

/// Minimum letters of a text in the Latin script whose language is decided: shorter ones are mostly
/// names, slang and exclamations, which look like any language.
pub(crate) const MIN_LANGUAGE_LETTERS: usize = 20;

/// Minimum confidence in the language of such a text. With both minima, 0.15 % of English posts and
/// 1 % of tweets count as another language.
pub(crate) const MIN_LANGUAGE_CONFIDENCE: f64 = 0.5;

/// Maximum number of texts of one call. Bounds the windows that it queues.
pub(crate) const MAX_TEXTS: usize = 128;

/// Maximum number of tokens of one batch of several texts, padding included. More tokens make a
/// processor no faster, and a text in a batch waits for all of it.
pub(crate) const MAX_BATCH_TOKENS: usize = 256;

/// Maximum size of the JSON Schema of an answer, in bytes. Bounds the time to prepare it.
pub(crate) const MAX_FORMAT_BYTES: Limit = Limit::new(64 << 10, "bytes");

/// Maximum size of the grammar of an answer, in symbols and in nodes of its patterns. Bounds the
/// time to prepare it to about 10 ms.
pub(crate) const MAX_FORMAT_NODES: u64 = 200_000;

/// Maximum number of states of the patterns of an answer, of 1 to 2 kB each. Bounds memory.
pub(crate) const MAX_FORMAT_STATES: usize = 20_000;

/// Maximum number of steps of the patterns of an answer for one token. Bounds the time that other
/// answers of the model wait to about 5 ms.
pub(crate) const MAX_FORMAT_FUEL: u64 = 70_000;

/// Maximum number of steps of the grammar of an answer for one token, for the same reason.
pub(crate) const MAX_FORMAT_ITEMS: usize = 50_000;

/// Maximum length of a token that an answer with a format may contain, in bytes.
pub(crate) const MAX_FORMAT_TOKEN_BYTES: usize = 128;

/// Maximum number of questions of a guard's card. Bounds the time of a text.
pub(crate) const MAX_QUESTIONS: Limit = Limit::new(16, "entries");

// Comparison with a shadow version.

/// Maximum number of calls that wait to be compared; further ones are skipped. Bounds the delay of
/// a comparison.
pub(crate) const MAX_SHADOW_CALLS: usize = 64;

/// Maximum size of the tensors of calls that wait to be compared, in bytes; further calls are
/// skipped. Bounds memory.
pub const MAX_SHADOW_BYTES: usize = 8 << 20;

/// Maximum number of stored disagreements; older ones are dropped. Bounds memory and the series of
/// `/metrics`.
pub(crate) const MAX_SHADOW_EXAMPLES: usize = 32;

/// Maximum time of one run of the shadow version. A slower run counts as failed.
pub(crate) const MAX_SHADOW_TIME: Duration = Duration::from_secs(60);

// GGUF files.

/// Maximum size of the header, in bytes; Qwen2's, with 151,936 tokens and 151,387 merges, takes 6
/// MB. Bounds the time of the scan.
pub(crate) const MAX_GGUF_HEADER_BYTES: usize = 256 << 20;

/// Maximum number of metadata keys; real files have about 30. Bounds memory.
pub(crate) const MAX_GGUF_KEYS: u64 = 1 << 14;

/// Maximum number of tensors; a model of 126 layers has about 1,200. Bounds memory.
pub(crate) const MAX_GGUF_TENSORS: u64 = 1 << 16;

/// Maximum number of files of a model. The largest published models have fewer than 40.
pub(crate) const MAX_GGUF_PARTS: usize = 128;

/// Maximum length of a key or of a tensor's name, in bytes; ggml permits 64 for a tensor. Bounds
/// memory.
pub(crate) const MAX_GGUF_NAME_BYTES: u64 = 1 << 10;

/// Maximum length of one string, in bytes; the longest in real files are chat templates of about 20
/// KB. Bounds memory.
pub(crate) const MAX_GGUF_TEXT_BYTES: u64 = 1 << 20;

/// Maximum number of elements of all arrays together: each is stored as a value of 24 bytes. Bounds
/// memory.
pub(crate) const MAX_GGUF_ELEMENTS: u64 = 1 << 22;

/// Maximum number of dimensions of a tensor, as in ggml.
pub(crate) const MAX_GGUF_DIMENSIONS: u32 = 4;

/// Maximum alignment of tensor data, in bytes. Bounds the padding.
pub(crate) const MAX_GGUF_ALIGNMENT_BYTES: u32 = 1 << 16;

/// Maximum number of tokens of a vocabulary; the largest in use have about 262,000. Bounds memory.
pub(crate) const MAX_VOCABULARY_TOKENS: usize = 1 << 20;

/// Maximum length of a token's text, in bytes; the longest in Qwen2's vocabulary, 128 spaces, takes
/// 256. Bounds the time to encode.
pub(crate) const MAX_TOKEN_BYTES: usize = 1 << 10;

// Chat templates.

/// Maximum length of a template, in bytes; those of models have up to 20 kB. Bounds memory.
pub(crate) const MAX_TEMPLATE: Limit = Limit::new(1 << 20, "bytes");

/// Maximum nesting of blocks and brackets; templates of models reach about 20. Bounds recursion of
/// the parser.
pub(crate) const MAX_BLOCK_DEPTH: usize = 100;

/// Maximum nesting of expressions, blocks and macros at run time. Bounds recursion of the
/// interpreter.
pub(crate) const MAX_CALL_DEPTH: usize = 300;

/// Maximum nesting of lists and maps. Bounds recursion over values.
pub(crate) const MAX_VALUE_DEPTH: u16 = 32;

/// Maximum length of the variables that a request gives to a template, in bytes of JSON: tens of
/// tools. Bounds the memory of their values.
pub(crate) const MAX_TEMPLATE_ARGUMENTS: Limit = Limit::new(64 << 10, "bytes");

/// Maximum length of one rendering, in bytes. Bounds the memory of a prompt.
pub(crate) const MAX_RENDERED_BYTES: usize = 4 << 20;

/// Maximum length of a template's own error message in a response, in bytes.
pub(crate) const MAX_TEMPLATE_ERROR_BYTES: usize = 1 << 10;

// Requests to language models.

/// Maximum length of one text, or of the contents of a chat together, in bytes: about eight times
/// as much as the longest contexts hold. Bounds the time to tokenize.
pub(crate) const MAX_TEXT_BYTES: usize = 1 << 20;

/// Maximum number of turns of a chat. Bounds the time to render it.
pub const MAX_MESSAGES: usize = 1 << 10;

/// Maximum number of choices of one request. Bounds the rows that it occupies.
pub(crate) const MAX_CHOICES: usize = 64;

/// Maximum number of tokens of one choice. Bounds the rows that a request occupies.
pub(crate) const MAX_CHOICE_TOKENS: usize = 64;

/// Maximum number of stop strings of one request. Each generated token is compared with all of
/// them.
pub(crate) const MAX_STOPS: Limit = Limit::new(16, "strings");

/// Maximum length of a stop string, in bytes. Bounds the text that a stream holds back.
pub(crate) const MAX_STOP_BYTES: usize = 256;

/// Maximum number of alternatives that an answer lists for each token. Bounds the size of the
/// answer.
pub(crate) const MAX_LOGPROBS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceeded_limit_names_subject_and_maximum() {
        let limit = Limit::new(2, "items");
        assert!(limit.check("`input`", 2).is_ok() && limit.check_next(1).is_ok());
        assert_eq!(limit.check("`input`", 3).unwrap_err(), "`input` has 3 items, expected at most 2");
        assert_eq!(limit.check_next(2).unwrap_err(), "more than 2 items");
    }
}
