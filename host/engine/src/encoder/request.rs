//! Texts of a call, as named tensors: the convention of wit/README.md.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

use crate::limits::MAX_TEXTS;
use crate::model::RunError;
use crate::tensor::Tensor;
use crate::text::{QUOTE_BYTES, excerpt};

/// A text to judge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// One text.
    Single(String),
    /// Two texts that are read together, such as a query and a document.
    Pair(String, String),
    /// Ids of the vocabulary, without the tokens that the tokenizer adds.
    Tokens(Vec<u32>),
}

impl Text {
    /// Size in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Text::Single(text) => text.len(),
            Text::Pair(first, second) => first.len() + second.len(),
            Text::Tokens(ids) => ids.len(),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    /// Reads ids one by one, where a derived implementation first keeps 32 bytes for each.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

/// An element of an array.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a token id or a string")]
enum Item {
    Id(u32),
    Text(String),
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, a pair of strings, or an array of token ids")
    }

    fn visit_str<E>(self, text: &str) -> Result<Text, E> {
        Ok(Text::Single(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Text, A::Error> {
        let wrong = || A::Error::custom("invalid value: array, expected a pair of strings or token ids");
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        while let Some(item) = array.next_element()? {
            match item {
                Item::Id(id) if texts.is_empty() => ids.push(id),
                Item::Text(text) if ids.is_empty() && texts.len() < 2 => texts.push(text),
                _ => return Err(wrong()),
            }
        }
        match <[String; 2]>::try_from(texts) {
            Ok([first, second]) => Ok(Text::Pair(first, second)),
            Err(texts) if texts.is_empty() => Ok(Text::Tokens(ids)),
            Err(_) => Err(wrong()),
        }
    }
}

/// Options of a call.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Params {
    /// Role of the texts for a model that distinguishes queries from documents.
    pub(crate) role: Option<TextRole>,
    /// Number of values of an embedding: its first ones, scaled to length 1.
    pub(crate) dimensions: Option<usize>,
    /// False to reject a text of which the model reads only the beginning.
    pub(crate) truncate: bool,
    /// True to return the model's values without the card's activation.
    pub(crate) raw: bool,
}

impl Default for Params {
    fn default() -> Self {
        Params { role: None, dimensions: None, truncate: true, raw: false }
    }
}

/// Role of a text in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TextRole {
    /// A text that searches.
    Query,
    /// A text that is found.
    Document,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// At least one text.
    pub(crate) texts: Vec<Text>,
    pub(crate) params: Params,
}

/// Reads a call of `model` from its tensors.
///
/// # Errors
///
/// For a tensor that is missing, unknown, repeated or malformed, and for too many texts. The
/// message gives the expected and the found value.
pub(crate) fn request(model: &str, inputs: Vec<(String, Tensor)>) -> Result<Request, RunError> {
    let request =
        parse(inputs).map_err(|message| RunError::InvalidInput { model: model.to_owned(), message })?;
    let found = request.texts.len();
    if found > MAX_TEXTS {
        let message = format!("a call has {found} texts, expected at most {MAX_TEXTS}; send them in pieces");
        return Err(RunError::TooLarge { model: model.to_owned(), message });
    }
    Ok(request)
}

fn parse(inputs: Vec<(String, Tensor)>) -> Result<Request, String> {
    let (mut texts, mut params) = (None, None);
    for (name, tensor) in inputs {
        let again = match name.as_str() {
            "text" => texts.replace(vec![Text::Single(tensor.into_text(&name)?)]).is_some(),
            "texts" => texts.replace(list(tensor.into_json(&name)?)?).is_some(),
            "params" => params.replace(tensor.into_json(&name)?).is_some(),
            other => {
                let other = excerpt(other, QUOTE_BYTES);
                return Err(format!(
                    "unknown input `{other}`; expected `text` or `texts`, and optionally `params`"
                ));
            }
        };
        if again {
            return Err(format!("duplicate input `{name}`; expected `text` or `texts` once"));
        }
    }
    let texts = texts.ok_or("no text: expected one of the inputs `text` and `texts`")?;
    Ok(Request { texts, params: params.unwrap_or_default() })
}

/// Rejects an empty list.
fn list(texts: Vec<Text>) -> Result<Vec<Text>, String> {
    if texts.is_empty() {
        return Err("`texts` is empty, expected at least one text".to_owned());
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Request, String> {
        let tensor = Tensor::from_bytes(text.as_bytes().to_vec());
        parse(vec![(name.to_owned(), tensor)])
    }

    #[test]
    fn texts_of_all_kinds_are_read() {
        let single = |text: &str| Text::Single(text.to_owned());
        assert_eq!(read("text", "").unwrap().texts, [single("")]);
        let texts = read("texts", r#"["a", ["query", "document"], [1, 2], []]"#).unwrap().texts;
        let pair = Text::Pair("query".to_owned(), "document".to_owned());
        assert_eq!(texts, [single("a"), pair, Text::Tokens(vec![1, 2]), Text::Tokens(Vec::new())]);
    }

    #[test]
    fn malformed_calls_name_the_input() {
        for (name, text, expected) in [
            ("ids", "", "unknown input `ids`; expected `text` or `texts`"),
            ("texts", "a", "`texts`: expected value"),
            ("texts", "[]", "`texts` is empty"),
            ("texts", "[[\"a\"]]", "`texts`: invalid value: array, expected a pair of strings or token ids"),
            ("texts", "[[-1]]", "`texts`: expected a token id or a string"),
            ("texts", "[[1, \"a\"]]", "`texts`: invalid value: array, expected a pair"),
            ("texts", "[[\"a\", \"b\", \"c\"]]", "`texts`: invalid value: array, expected a pair"),
            ("texts", "[7]", "`texts`: invalid type: integer `7`, expected a string, a pair of strings"),
            ("params", "{\"rank\": 1}", "`params`: unknown field `rank`"),
            ("params", "{}", "no text: expected one of the inputs"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let numbers = Tensor::from_slice(&[1], &[1i32]).unwrap();
        let error = parse(vec![("text".to_owned(), numbers)]).unwrap_err();
        assert_eq!(error, "`text` is i32, expected u8: the bytes of UTF-8 text");
    }
}
