//! The texts of an embedding request. They stay in the JSON of the body until the model reads them:
//! a tree of token ids would take sixteen times their size.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::limits::MAX_EMBEDDING_INPUTS;

/// Splits the value of `input` into texts: strings, or arrays of token ids.
///
/// # Errors
///
/// 400 for another value, for a text that is empty, and if there are no texts or too many.
pub(super) fn texts(input: &RawValue) -> Result<Vec<&RawValue>, ApiError> {
    let is_one = input.get().starts_with('"') || items(input).is_some_and(is_ids);
    let texts = if is_one {
        vec![input]
    } else {
        let mut deserializer = serde_json::Deserializer::from_str(input.get());
        let list = deserializer.deserialize_seq(Texts);
        list.map_err(|error| ApiError::invalid("input", format!("`input`: {error}")))?
    };
    for (index, text) in texts.iter().enumerate() {
        let name = if is_one { "input".to_owned() } else { format!("input[{index}]") };
        let wrong = match (items(text), text.get()) {
            (_, r#""""#) | (Some(""), _) => "is empty, expected a text",
            (Some(ids), _) if !is_ids(ids) => "is an array, expected token ids in it",
            (None, text) if !text.starts_with('"') => "is neither a string nor an array of token ids",
            _ => continue,
        };
        let message = format!("`{name}` {wrong}");
        return Err(ApiError::invalid(name, message));
    }
    if texts.is_empty() {
        return Err(ApiError::invalid("input", "`input` is empty, expected a text"));
    }
    Ok(texts)
}

/// The JSON between the brackets of an array.
fn items(value: &RawValue) -> Option<&str> {
    Some(value.get().strip_prefix('[')?.strip_suffix(']')?.trim())
}

/// Checks for non-negative integers, in the JSON of the items of an array.
fn is_ids(items: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_whitespace() || byte == b',';
    !items.is_empty() && items.bytes().all(is_part)
}

/// Reads a list of texts of limited length.
struct Texts;

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an array of strings, or arrays of token ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = array.next_element()? {
            MAX_EMBEDDING_INPUTS.check_next(texts.len()).map_err(A::Error::custom)?;
            texts.push(text);
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> Result<Vec<String>, String> {
        let input: &RawValue = serde_json::from_str(input).unwrap();
        let read = texts(input).map_err(|error| error.to_string())?;
        Ok(read.into_iter().map(|text| text.get().to_owned()).collect())
    }

    #[test]
    fn texts_of_all_forms_are_found() {
        assert_eq!(read(r#""a, [1]""#).unwrap(), [r#""a, [1]""#]);
        assert_eq!(read(r#"["a", "1"]"#).unwrap(), [r#""a""#, r#""1""#]);
        assert_eq!(read("[1, 2]").unwrap(), ["[1, 2]"]);
        assert_eq!(read(r#"[[1, 2], [3], "a"]"#).unwrap(), ["[1, 2]", "[3]", r#""a""#]);
    }

    #[test]
    fn other_values_are_named() {
        for (input, expected) in [
            ("1", "`input`: invalid type: integer `1`, expected a string, an array of strings"),
            ("{}", "`input`: invalid type: map, expected a string"),
            ("[]", "`input` is empty"),
            ("[ ]", "`input` is empty"),
            (r#""""#, "`input` is empty"),
            (r#"["a", ""]"#, "`input[1]` is empty"),
            ("[[1], [ ]]", "`input[1]` is empty"),
            (r#"[["a", "b"]]"#, "`input[0]` is an array, expected token ids"),
            ("[[-1]]", "`input[0]` is an array, expected token ids"),
            ("[1, null]", "`input[0]` is neither a string nor an array"),
        ] {
            let message = read(input).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
        let many = format!("[{}]", vec![r#""a""#; 2_049].join(","));
        assert!(read(&many).unwrap_err().contains("more than 2048 texts"));
    }
}
