//! The body of a request to forward. Only its model's name is replaced; all other bytes stay.

use std::ops::Range;

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Members of a body that select the upstream and the form of the answer.
pub(super) struct Members {
    pub(super) model: String,
    pub(super) stream: bool,
    /// Bytes of the model's name, with its quotes.
    range: Range<usize>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    model: &'a RawValue,
    #[serde(borrow, default)]
    stream: Option<&'a RawValue>,
}

impl Members {
    /// Reads the members, or returns `None` if `body` is not an object with the name of a model, or
    /// has one of them twice.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        // A sequence would be read as the values of the members.
        if body.trim_ascii_start().first() != Some(&b'{') {
            return None;
        }
        let Body { model: raw, stream } = serde_json::from_slice(body).ok()?;
        let model = serde_json::from_str(raw.get()).ok()?;
        let start = raw.get().as_ptr() as usize - body.as_ptr() as usize;
        let stream = stream.is_some_and(|stream| stream.get() == "true");
        Some(Members { model, stream, range: start..start + raw.get().len() })
    }

    /// Returns `body` with `name` in the place of the model's name.
    pub(super) fn renamed(&self, body: &[u8], name: &str) -> Bytes {
        let name = serde_json::Value::from(name).to_string();
        [&body[..self.range.start], name.as_bytes(), &body[self.range.end..]].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_model_is_replaced() {
        let cases = [
            (r#"{"model":"a","n":1.50,"x":[1, 2]}"#, r#"{"model":"b\"c","n":1.50,"x":[1, 2]}"#, false),
            (
                " {\n\"x\": {\"model\": \"a\"}, \"stream\" : true,\t\"m\\u006fdel\" : \"\\u0061\" }\n",
                " {\n\"x\": {\"model\": \"a\"}, \"stream\" : true,\t\"m\\u006fdel\" : \"b\\\"c\" }\n",
                true,
            ),
            (r#"{"a":"é","model":"a","stream":null}"#, r#"{"a":"é","model":"b\"c","stream":null}"#, false),
        ];
        for (body, expected, stream) in cases {
            let members = Members::read(body.as_bytes()).unwrap();
            assert_eq!((members.model.as_str(), members.stream), ("a", stream), "{body}");
            assert_eq!(members.renamed(body.as_bytes(), "b\"c"), expected, "{body}");
        }
    }

    #[test]
    fn other_bodies_are_left_to_the_caller() {
        let cases = [
            "",
            "1",
            "[\"a\"]",
            "[\"a\", true]",
            "{",
            "{}",
            r#"{"model":1}"#,
            r#"{"model":null}"#,
            r#"{"model":"a"} x"#,
            r#"{"model":"a","model":"a"}"#,
            r#"{"model":"a","stream":true,"stream":false}"#,
        ];
        for body in cases {
            assert!(Members::read(body.as_bytes()).is_none(), "{body}");
        }
    }
}
