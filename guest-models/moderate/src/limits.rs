//! Fixed limits of explanations. Those of the inputs are settings, or limits of the host.

/// Maximum number of variants of a text in one step. Bounds the time of an explanation.
pub(crate) const MAX_VARIANTS: usize = 64;

/// Windows in one call of a model, estimated; a variant of more is alone. The host judges eight
/// inputs of a request at once, and together they must not fill the queue of a model, which has
/// room for 64 by default.
pub(crate) const MAX_CALL_WINDOWS: usize = 8;

/// Maximum number of windows of the variants in one step. Bounds the time of a step.
pub(crate) const MAX_VARIANT_WINDOWS: usize = 128;

/// Maximum number of tokens of the variants in one step. Bounds the time of a step.
pub(crate) const MAX_VARIANT_TOKENS: usize = 16 << 10;

/// Maximum length of the variants in one step together, in bytes. Bounds the memory of a step.
pub(crate) const MAX_VARIANT_BYTES: usize = 256 << 10;

/// Maximum number of tokens of all variants of an input. Bounds the time of its explanation.
pub(crate) const MAX_TOKENS: usize = 48 << 10;

/// Maximum length of all variants of an input together, in bytes. Bounds the time of its
/// explanation.
pub(crate) const MAX_BYTES: usize = 768 << 10;

/// Maximum number of texts of an input whose scores are explained, each in one category: those
/// furthest above their thresholds.
pub(crate) const MAX_EXPLAINED: usize = 8;

/// Maximum number of contributions to one score. Bounds the size of a response.
pub(crate) const MAX_CONTRIBUTIONS: usize = 8;

/// Maximum number of times that a group of words is divided.
pub(crate) const MAX_DIVISIONS: usize = 3;

/// Maximum number of runs of neighbouring words that are tried as one.
pub(crate) const MAX_RUNS: usize = 8;

/// Number of variants below which the words are left out of a piece of the text, not of the whole
/// text.
pub(crate) const MIN_VARIANTS: usize = 16;

/// Number of words of such a piece.
pub(crate) const PIECE_WORDS: usize = 48;

/// Minimum contribution, in log-odds: the odds fall by a tenth.
pub(crate) const MIN_LOG_ODDS: f32 = 0.1;

/// Maximum number of characters of a word; a longer one is divided.
pub(crate) const MAX_WORD_CHARACTERS: usize = 64;

/// Maximum number of sentences of a text; beyond it neighbouring ones count as one.
pub(crate) const MAX_SENTENCES: usize = 64;
