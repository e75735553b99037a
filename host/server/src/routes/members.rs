//! Objects that are parsed member by member, so that an error names the invalid member. A null
//! member counts as absent, because typed clients send null for options that they do not use.

use std::borrow::Cow;
use std::fmt;

use infer_engine::text::{MESSAGE_BYTES, excerpt_of};
use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;

use super::json::utf8;
use crate::error::ApiError;
use crate::limits::MAX_MEMBERS;

/// Parses the object in `body`.
///
/// # Errors
///
/// 400 with the invalid member.
pub(super) fn read<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    let members = serde_json::from_slice::<Members<'de>>(utf8(body)?)
        .map_err(|error| MemberError { member: None, message: excerpt_of(error, MESSAGE_BYTES) });
    members.and_then(T::deserialize).map_err(|error| error.at("", "the body"))
}

/// Parses the object in `value`, which is at `path` of the body.
///
/// # Errors
///
/// 400 with the invalid member.
pub(super) fn read_at<'de, T: Deserialize<'de>>(path: &str, value: &'de RawValue) -> Result<T, ApiError> {
    let members = Members::deserialize(value)
        .map_err(|error| MemberError { member: None, message: without_position(&error) });
    members.and_then(T::deserialize).map_err(|error| error.at(path, &format!("`{path}`")))
}

/// serde_json's message without line and column, which count from the start of the value.
pub(super) fn without_position(error: &serde_json::Error) -> String {
    let text = excerpt_of(error, MESSAGE_BYTES);
    text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message).to_owned()
}

/// Names and values of the members that are not null, in order.
struct Members<'de> {
    rest: std::vec::IntoIter<(Cow<'de, str>, &'de RawValue)>,
    /// The member whose name was read last.
    value: Option<(Cow<'de, str>, &'de RawValue)>,
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                let mut count = 0;
                while let Some((Name(name), value)) = object.next_entry::<Name<'de>, &'de RawValue>()? {
                    MAX_MEMBERS.check_next(count).map_err(A::Error::custom)?;
                    count += 1;
                    if value.get() != "null" {
                        members.push((name, value));
                    }
                }
                Ok(Members { rest: members.into_iter(), value: None })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserializer<'de> for Members<'de> {
    type Error = MemberError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, MemberError> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = MemberError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, MemberError> {
        self.value = self.rest.next();
        let Some((name, _)) = &self.value else { return Ok(None) };
        seed.deserialize(CowStrDeserializer::new(name.clone())).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, MemberError> {
        let (name, value) =
            self.value.take().ok_or_else(|| MemberError::custom("a value without its name"))?;
        let invalid =
            |error| MemberError { member: Some(name.into_owned()), message: without_position(&error) };
        seed.deserialize(value).map_err(invalid)
    }
}

/// An error of an object, or of one of its members.
#[derive(Debug)]
struct MemberError {
    member: Option<String>,
    message: String,
}

impl MemberError {
    /// The error for an object at `path`, called `subject`.
    fn at(self, path: &str, subject: &str) -> ApiError {
        let MemberError { member, message } = self;
        match member {
            None => ApiError::invalid(path, format!("{subject} is invalid: {message}")),
            Some(member) => {
                let separator = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{separator}{member}");
                ApiError::invalid(path.as_str(), format!("`{path}` is invalid: {message}"))
            }
        }
    }
}

impl fmt::Display for MemberError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for MemberError {}

impl Error for MemberError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        MemberError { member: None, message: excerpt_of(message, MESSAGE_BYTES) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample<'a> {
        count: Option<u32>,
        #[serde(borrow)]
        name: Option<&'a str>,
        required: bool,
    }

    #[test]
    fn null_members_count_as_absent() {
        let cases = [
            (r#"{"required": true}"#, Sample { required: true, ..Sample::default() }),
            (
                r#"{"required": true, "count": null, "other": null}"#,
                Sample { required: true, ..Sample::default() },
            ),
            (
                r#"{"count": 3, "n\u0061me": "x", "required": false}"#,
                Sample { count: Some(3), name: Some("x"), required: false },
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(read::<Sample<'_>>(body.as_bytes()).unwrap(), expected, "{body}");
        }
    }

    #[test]
    fn invalid_member_is_named() {
        let many: String = (0..300).map(|at| format!(r#""a{at}": null,"#)).collect();
        let many = format!("{{{many} \"required\": true}}");
        let cases = [
            ("[]", "the body is invalid: invalid type: sequence, expected an object"),
            ("{", "the body is invalid: EOF"),
            (r#"{"required": null}"#, "the body is invalid: missing field `required`"),
            (r#"{"required": true, "required": true}"#, "duplicate field `required`"),
            (r#"{"required": true, "other": 1}"#, "unknown field `other`, expected one of `count`"),
            (
                r#"{"required": true, "count": -1}"#,
                "`count` is invalid: invalid value: integer `-1`, expected u32",
            ),
            (&many, "more than 256 members"),
        ];
        for (body, expected) in cases {
            let error = read::<Sample<'_>>(body.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{body}: {error}");
        }
        let value: &RawValue = serde_json::from_str(r#"{"count": "x"}"#).unwrap();
        let error = read_at::<Sample<'_>>("turns[1]", value).unwrap_err().to_string();
        assert!(error.starts_with("`turns[1].count` is invalid: invalid type"), "{error}");
    }
}
