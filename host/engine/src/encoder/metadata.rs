//! Facts about the texts of a call, which go with the answer.

use serde::Serialize;

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
