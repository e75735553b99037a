//! Texts as tensors of the protocol: datatype `BYTES`, one element per text.

use infer_engine::{Axis, Card, Task, Tensor};
use serde_json::value::RawValue;

use crate::limits::MAX_PROTOCOL_TEXTS;

/// Name of the datatype.
pub(super) const BYTES: &str = "BYTES";

/// Names of the input of a text model.
const INPUTS: [&str; 2] = ["texts", "text"];

/// Names of the outputs of a text model, in order; `None` for another model.
pub(super) fn outputs(card: &Card) -> Option<&'static [&'static str]> {
    let names: &[_] = match card.task {
        Task::TextEmbedding => &["embeddings", "metadata"],
        Task::TokenClassification => &["spans", "scores", "metadata"],
        _ => &["scores", "metadata"],
    };
    card.takes_texts().then_some(names)
}

/// True for an output that is one JSON document.
pub(super) fn is_document(card: &Card, output: &str) -> bool {
    card.takes_texts() && matches!(output, "spans" | "metadata")
}

/// Name, datatype and shape of a tensor; a varying axis is -1.
pub(super) type Shape = (&'static str, &'static str, Vec<i64>);

/// Inputs and outputs of a text model; `None` for another model.
pub(super) fn tensors(card: &Card) -> Option<(Vec<Shape>, Vec<Shape>)> {
    let varying = -1;
    let columns = match card.outputs.first().and_then(|output| output.shape.last()) {
        _ if card.task != Task::TextEmbedding => i64::try_from(card.labels.len()).unwrap_or(varying),
        Some(Axis::Fixed(size)) => i64::try_from(*size).unwrap_or(varying),
        _ => varying,
    };
    let output = |&name: &&'static str| match name {
        "spans" | "metadata" => (name, BYTES, vec![1]),
        _ => (name, "FP32", vec![varying, columns]),
    };
    let outputs = outputs(card)?.iter().map(output).collect();
    Some((vec![(INPUTS[0], BYTES, vec![varying])], outputs))
}

/// Converts an input of `BYTES` to the tensor that the engine takes, and its name there. `binary`
/// are its bytes behind the JSON: each element has its length in front, 4 bytes, little-endian.
///
/// # Errors
///
/// When the name, the shape or an element is invalid.
pub(super) fn read(
    name: &str,
    shape: &[usize],
    data: Option<&RawValue>,
    binary: Option<&[u8]>,
) -> Result<(String, Tensor), String> {
    if !INPUTS.contains(&name) {
        return Err(format!("datatype `{BYTES}` is for the input `{}` of a text model", INPUTS[0]));
    }
    let texts = match (data, binary) {
        (Some(data), _) => serde_json::from_str::<Vec<String>>(data.get())
            .map_err(|error| format!("`data`: expected an array of strings: {error}"))?,
        (None, Some(bytes)) => elements(bytes)?,
        (None, None) => return Err("has neither `data` nor `binary_data_size`; expected one".into()),
    };
    MAX_PROTOCOL_TEXTS.check("`data`", texts.len())?;
    let json = match *shape {
        [rows] | [rows, 1] if rows == texts.len() => serde_json::to_vec(&texts),
        [rows, 2] if rows * 2 == texts.len() => {
            serde_json::to_vec(&texts.chunks_exact(2).collect::<Vec<_>>())
        }
        _ => {
            let found = texts.len();
            return Err(format!(
                "its shape is {shape:?} for {found} elements; expected [texts], or [pairs, 2] for pairs of texts"
            ));
        }
    };
    let json = json.map_err(|error| error.to_string())?;
    Ok(("texts".to_owned(), Tensor::from_bytes(json)))
}

/// Splits the bytes of a binary tensor into its elements.
fn elements(mut bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        MAX_PROTOCOL_TEXTS.check_next(texts.len())?;
        let element = bytes.split_first_chunk::<4>().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
        });
        let Some((text, rest)) = element else {
            return Err(format!("element {} is longer than the tensor", texts.len()));
        };
        let text = std::str::from_utf8(text)
            .map_err(|error| format!("element {} is not UTF-8: {error}", texts.len()))?;
        texts.push(text.to_owned());
        bytes = rest;
    }
    Ok(texts)
}

/// The bytes of one element in a binary tensor.
pub(super) fn element(text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&length, text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(shape: &[usize], json: &str) -> Result<String, String> {
        let data = RawValue::from_string(json.to_owned()).unwrap();
        let (_, tensor) = read("texts", shape, Some(&data), None)?;
        Ok(String::from_utf8(tensor.data().to_vec()).unwrap())
    }

    #[test]
    fn strings_and_binary_elements_are_the_same() {
        let expected = r#"["a","é b",""]"#;
        assert_eq!(texts(&[3], expected).unwrap(), expected);
        let binary: Vec<u8> = ["a", "é b", ""].iter().flat_map(|text| element(text.as_bytes())).collect();
        let (name, tensor) = read("text", &[3, 1], None, Some(&binary)).unwrap();
        assert_eq!((name.as_str(), tensor.data()), ("texts", expected.as_bytes()));
        assert_eq!(texts(&[1, 2], r#"["query","document"]"#).unwrap(), r#"[["query","document"]]"#);
    }

    #[test]
    fn invalid_texts_are_rejected_with_reason() {
        for (shape, json, expected) in [
            (&[2][..], r#"["a"]"#, "its shape is [2] for 1 elements"),
            (&[1, 3], r#"["a","b","c"]"#, "expected [texts], or [pairs, 2]"),
            (&[1], "[1]", "`data`: expected an array of strings"),
        ] {
            let error = texts(shape, json).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let error = read("ids", &[1], None, Some(&[])).unwrap_err();
        assert_eq!(error, "datatype `BYTES` is for the input `texts` of a text model");
        let error = read("text", &[1], None, Some(&[9, 0, 0, 0, b'a'])).unwrap_err();
        assert_eq!(error, "element 0 is longer than the tensor");
    }
}
