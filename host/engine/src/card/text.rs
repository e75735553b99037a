//! Conversion of text to a model's inputs, and of its outputs to an answer.

use serde::Deserialize;

/// Reading of texts by a model with a tokenizer: the section `[text]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Maximum number of tokens that the model reads at once, including those that the tokenizer
    /// adds, such as `[CLS]`.
    pub max_tokens: usize,
    /// Number of tokens that a window shares with the one before. Without it, a longer text is
    /// truncated to its first window.
    pub stride: Option<usize>,
    /// Maximum number of windows of one text; a longer text is rejected.
    #[serde(default = "default_windows")]
    pub max_windows: usize,
    /// Combination of the scores of several windows.
    #[serde(default)]
    pub combine: Combine,
    /// Function that turns the model's values into probabilities.
    #[serde(default)]
    pub activation: Activation,
    /// True if tokens outside of the vocabulary are left out instead of being passed as the
    /// unknown token.
    #[serde(default)]
    pub drop_unknown: bool,
    /// True if the tokenizer receives the text in its canonical form: compatibility forms folded
    /// (NFKC), without invisible characters. A text in which these hide the border of a word is
    /// read twice.
    #[serde(default)]
    pub canonical: bool,
    /// Emoji in the canonical form.
    #[serde(default)]
    pub emoji: Emoji,
    /// Evasive spellings in the canonical form.
    #[serde(default)]
    pub evasion: Evasion,
    /// Languages for which the model was trained, as ISO 639-3 codes such as `eng`. Other texts are
    /// judged too, and reported. If it is empty, no language is detected.
    #[serde(default)]
    pub languages: Vec<String>,
    /// Combination of the vectors of all tokens into one, for an embedding.
    pub pooling: Option<Pooling>,
    /// True if an embedding is scaled to length 1.
    #[serde(default)]
    pub normalize: bool,
    /// Beginning that the model expects of a query, such as `query: `.
    #[serde(default)]
    pub query_prefix: String,
    /// Beginning that the model expects of a document, such as `passage: `.
    #[serde(default)]
    pub document_prefix: String,
}

impl TextSpec {
    /// Windows of one text, unless the card says otherwise.
    pub const DEFAULT_WINDOWS: usize = 64;
}

fn default_windows() -> usize {
    TextSpec::DEFAULT_WINDOWS
}

/// Emoji in the canonical form of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emoji {
    /// They stay.
    #[default]
    Keep,
    /// They become their names, as in the training of the shipped moderation encoder. The form is
    /// then in all other respects that of its training, too: references of HTML become characters,
    /// and white space one space.
    Words,
}

/// Evasive spellings in a text that is read in its canonical form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evasion {
    /// They are undone in a further reading.
    #[default]
    Undo,
    /// They stay.
    Keep,
}

/// Combination of the scores of several windows of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// The highest score of each label; for labels that a category negates (`not`), the lowest.
    #[default]
    Max,
    /// The average, weighted by the number of tokens.
    Mean,
}

/// Function that turns the values of a model into scores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// The values are scores.
    #[default]
    None,
    /// Each label has a probability of its own.
    Sigmoid,
    /// The probabilities of the labels sum to 1.
    Softmax,
}

/// Combination of the vectors of a text's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The average of all tokens.
    Mean,
    /// The first token.
    Cls,
    /// The last token.
    Last,
}
