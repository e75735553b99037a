//! Members that clients send but that are not supported: accepted at the values that change
//! nothing, and rejected at others with a remedy.

use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde_json::value::RawValue;

use super::form::at;
use crate::error::ApiError;
use crate::limits::{MAX_BIAS_BYTES, MAX_NUMBER_BYTES, MAX_WORD_BYTES};

/// An unsupported member of the request, and the check for its neutral values.
pub(super) struct Unsupported<'a> {
    name: &'static str,
    value: Option<&'a RawValue>,
    is_neutral: fn(&RawValue) -> bool,
    /// Expected value, and the remedy.
    expected: &'static str,
}

/// Creates the check of the member called `name` with its `value`.
pub(super) fn unsupported<'a>(
    name: &'static str,
    value: Option<&'a RawValue>,
    is_neutral: fn(&RawValue) -> bool,
    expected: &'static str,
) -> Unsupported<'a> {
    Unsupported { name, value, is_neutral, expected }
}

impl Unsupported<'_> {
    /// Rejects the member unless its value is neutral; `path` is the path of its parent.
    ///
    /// # Errors
    ///
    /// 400 with its name and the expected value.
    pub(super) fn check(&self, path: &str) -> Result<(), ApiError> {
        match self.value {
            Some(value) if !(self.is_neutral)(value) => {
                let Unsupported { name, expected, .. } = self;
                let found = excerpt(value.get(), QUOTE_BYTES);
                Err(at(&format!("{path}{name}"), &format!("is `{found}`, expected {expected}")))
            }
            _ => Ok(()),
        }
    }
}

/// True for `[]`, `{}`, `""` and `false`.
pub(super) fn is_empty(value: &RawValue) -> bool {
    let text = value.get();
    let inside = |open, close| text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
    let is_blank = |inside: Option<&str>| inside.is_some_and(|inside| inside.trim_ascii().is_empty());
    is_blank(inside('[', ']')) || is_blank(inside('{', '}')) || text == "\"\"" || text == "false"
}

/// True for one of `words`.
pub(super) fn is_word(value: &RawValue, words: &[&str]) -> bool {
    text(value).is_some_and(|text| words.contains(&&*text))
}

/// True for `number`, in any notation.
pub(super) fn is_number(value: &RawValue, number: f64) -> bool {
    value.get().len() <= MAX_NUMBER_BYTES && value.get().parse() == Ok(number)
}

/// Parses a short string.
fn text(value: &RawValue) -> Option<String> {
    if value.get().len() > MAX_WORD_BYTES {
        return None;
    }
    serde_json::from_str(value.get()).ok()
}

/// True for an object in which all values are 0.
pub(super) fn is_without_bias(value: &RawValue) -> bool {
    value.get().len() <= MAX_BIAS_BYTES
        && serde_json::from_str::<std::collections::BTreeMap<String, f64>>(value.get())
            .is_ok_and(|biases| biases.values().all(|bias| *bias == 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neutral_values_are_accepted() {
        type Rule = fn(&RawValue) -> bool;
        let word: Rule = |value| is_word(value, &["none", "auto"]);
        let one: Rule = |value| is_number(value, 1.0);
        let cases: [(Rule, &[&str], &[&str]); 4] = [
            (
                is_empty,
                &["[]", "[ \n]", "{}", "{ }", "\"\"", "false"],
                &["[1]", "{\"a\":1}", "\"a\"", "true", "0"],
            ),
            (word, &["\"none\"", "\"auto\"", "\"\\u0061uto\""], &["\"required\"", "{}", "none", "\"\""]),
            (one, &["1", "1.0", "10e-1"], &["2", "0", "\"1\"", "[1]"]),
            (
                is_without_bias,
                &["{}", "{\"50256\": 0}", "{\"1\": 0.0, \"2\": 0}"],
                &["{\"50256\": -100}", "[]", "1"],
            ),
        ];
        for (rule, good, bad) in cases {
            for text in good {
                assert!(rule(&RawValue::from_string((*text).to_owned()).unwrap()), "{text}");
            }
            for text in bad {
                let Ok(value) = RawValue::from_string((*text).to_owned()) else { continue };
                assert!(!rule(&value), "{text}");
            }
        }
    }
}
