//! Facts about the texts of a call, which go with the answer.

use serde::Serialize;

#[cfg(doc)]
use crate::limits::MAX_UNDONE_BYTES;
use crate::tensor::Tensor;

/// One value per text.
#[derive(Default, Serialize)]
pub(crate) struct Metadata {
    /// Number of tokens, without those that the tokenizer or the prompt adds.
    pub(crate) tokens: Vec<usize>,
    /// Of these, tokens of the vocabulary.
    pub(crate) known: Vec<usize>,
    /// Number of windows that were computed.
    pub(crate) windows: Vec<usize>,
    /// True if the end of the text was not read.
    pub(crate) truncated: Vec<bool>,
    /// English name of the text's language if the model was not trained for it, else empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) foreign: Vec<&'static str>,
    /// Readings that decide a score because evasive spellings are undone in them; not one per text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) undone: Vec<Undone>,
}

/// A reading of a text in which evasive spellings are undone.
#[derive(Clone, Serialize)]
pub(crate) struct Undone {
    /// Index of the text.
    pub(crate) text: usize,
    /// The reading, cut at [`MAX_UNDONE_BYTES`].
    pub(crate) reading: String,
    /// Labels whose score is that of the reading.
    pub(crate) labels: Vec<String>,
}

/// A tensor named `name` of a row for each of `rows` texts.
pub(crate) fn named_rows(name: &str, rows: usize, values: &[f32]) -> Result<(String, Tensor), String> {
    let tensor = Tensor::from_slice(&[rows, values.len() / rows.max(1)], values);
    Ok((name.to_owned(), tensor.map_err(|error| error.to_string())?))
}

/// The bytes of `value` as JSON.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Tensor, String> {
    serde_json::to_vec(value).map(Tensor::from_bytes).map_err(|error| error.to_string())
}
