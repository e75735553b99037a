//! JSON parsed directly into the requested members. Other values are skipped, and only their type
//! is kept, for error messages: a tree of the whole body would take about 30 bytes for each two
//! bytes of it.

use std::borrow::Cow;
use std::fmt;

use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ApiError;

/// A value without its contents.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Shallow<'de> {
    Null,
    Boolean(bool),
    Number(f64),
    Text(Cow<'de, str>),
    Array,
    Object,
}

/// Reads one value; implementations choose how to read arrays and objects.
pub(super) trait Read<'de>: Sized {
    /// The result.
    type Value;

    /// Reads any value that the other methods do not handle.
    fn shallow(self, value: Shallow<'de>) -> Self::Value;

    /// Reads an array. Unread elements must be skipped.
    fn array<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self.shallow(Shallow::Array))
    }

    /// Reads an object. Unread members must be skipped.
    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self.shallow(Shallow::Object))
    }
}

/// Reads any value, without its contents.
pub(super) struct Any;

impl<'de> Read<'de> for Any {
    type Value = Shallow<'de>;

    fn shallow(self, value: Shallow<'de>) -> Shallow<'de> {
        value
    }
}

/// Adapts a reader to serde.
pub(super) struct Seed<R>(pub(super) R);

impl<'de, R: Read<'de>> DeserializeSeed<'de> for Seed<R> {
    type Value = R::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Read<'de>> Visitor<'de> for Seed<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<R::Value, E> {
        Ok(self.0.shallow(Shallow::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<R::Value, E> {
        Ok(self.0.shallow(Shallow::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<R::Value, E> {
        Ok(self.0.shallow(Shallow::Number(value as f64)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<R::Value, E> {
        Ok(self.0.shallow(Shallow::Number(value as f64)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<R::Value, E> {
        Ok(self.0.shallow(Shallow::Number(value)))
    }

    fn visit_str<E>(self, text: &str) -> Result<R::Value, E> {
        Ok(self.0.shallow(Shallow::Text(Cow::Owned(text.to_owned()))))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<R::Value, E> {
        Ok(self.0.shallow(Shallow::Text(Cow::Borrowed(text))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<R::Value, A::Error> {
        self.0.array(array)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<R::Value, A::Error> {
        self.0.object(object)
    }
}

/// Parses `body` as one JSON value.
///
/// # Errors
///
/// 400 with the position, if it is not valid JSON.
pub(super) fn read<'de, R: Read<'de>>(body: &'de [u8], reader: R) -> Result<R::Value, ApiError> {
    let not_json =
        |error: serde_json::Error| ApiError::invalid("", format_args!("the body is not JSON: {error}"));
    let mut json = serde_json::Deserializer::from_slice(utf8(body)?);
    let value = Seed(reader).deserialize(&mut json).map_err(not_json)?;
    json.end().map_err(not_json)?;
    Ok(value)
}

/// Parses `body` as a `T`, which messages call `subject`: "an analysis request".
///
/// # Errors
///
/// 400 with the position, if it is another value, or not valid JSON.
pub(super) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8], subject: &str) -> Result<T, ApiError> {
    serde_json::from_slice(utf8(body)?)
        .map_err(|error| ApiError::invalid("", format_args!("the body is not {subject}: {error}")))
}

/// Strips the byte order mark that some clients write before UTF-8.
///
/// # Errors
///
/// 400 if `body` is in UTF-16 or UTF-32.
pub(super) fn utf8(body: &[u8]) -> Result<&[u8], ApiError> {
    let is_wide = match body {
        [0xef, 0xbb, 0xbf, body @ ..] => return Ok(body),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        // JSON starts with two ASCII characters, or consists of one.
        [0, 0, 0xfe, 0xff, ..] | [0, b'!'..=b'~', ..] | [0, 0, 0, b'!'..=b'~', ..] | [b'!'..=b'~', 0, ..] => {
            true
        }
        _ => false,
    };
    if is_wide {
        let message = "the body looks like UTF-16 or UTF-32; expected JSON in UTF-8";
        return Err(ApiError::invalid("", message));
    }
    Ok(body)
}

impl Shallow<'_> {
    /// The type of `value`, for errors.
    pub(super) fn kind(value: &RawValue) -> Self {
        match value.get().as_bytes() {
            [b'n', ..] => Shallow::Null,
            [b't' | b'f', ..] => Shallow::Boolean(true),
            [b'"', ..] => Shallow::Text("…".into()),
            [b'[', ..] => Shallow::Array,
            [b'{', ..] => Shallow::Object,
            _ => Shallow::Number(0.0),
        }
    }
}

impl fmt::Display for Shallow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shallow::Null => f.write_str("missing or null"),
            Shallow::Boolean(_) => f.write_str("a boolean"),
            Shallow::Number(_) => f.write_str("a number"),
            Shallow::Text(text) => write!(f, "the string `{}`", excerpt(text, QUOTE_BYTES)),
            Shallow::Array => f.write_str("an array"),
            Shallow::Object => f.write_str("an object"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_order_mark_is_skipped_and_utf16_rejected() {
        let encode =
            |text: &str, order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<u8>>();
        for body in [&b"[1]"[..], b"\xef\xbb\xbf[1]", b"\xef\xbb\xbf [1]\n"] {
            assert_eq!(read(body, Any).unwrap(), Shallow::Array, "{body:?}");
        }
        let cases = [
            encode("\u{feff}[1]", u16::to_le_bytes),
            encode("\u{feff}[1]", u16::to_be_bytes),
            encode("[1]", u16::to_le_bytes),
            encode("[1]", u16::to_be_bytes),
            "\u{feff}[1]".chars().flat_map(|letter| u32::from(letter).to_le_bytes()).collect(),
            "\u{feff}[1]".chars().flat_map(|letter| u32::from(letter).to_be_bytes()).collect(),
            "[1]".chars().flat_map(|letter| u32::from(letter).to_be_bytes()).collect(),
        ];
        for body in cases {
            let error = read(&body, Any).unwrap_err().to_string();
            assert!(error.contains("UTF-16"), "{body:?}: {error}");
        }
    }
}
