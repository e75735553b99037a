//! An answer of an upstream, or an event of one: its JSON as it arrived, and the texts in it. Every
//! text from an upstream passes through a [`Piece`] before a client gets it.

use std::fmt;

use infer_engine::text::{MESSAGE_BYTES, excerpt_of};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::upstream::Cause;

/// A whole answer, or an event of a stream.
#[derive(Debug)]
pub(super) struct Piece {
    json: String,
    /// The choices in it.
    pub(super) choices: Vec<Choice>,
    /// Tokens of the request and of the answer, if it has them.
    pub(super) usage: Option<[u64; 2]>,
    error: Option<String>,
}

/// A part of one choice.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) index: u64,
    /// Text of the answer.
    pub(super) text: String,
    /// All other texts of the answer: reasoning, refusals, arguments of tools.
    pub(super) other: String,
    /// True if the choice ends with this part.
    pub(super) is_finished: bool,
}

#[derive(Deserialize)]
struct Members<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<ChoiceMembers<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChoiceMembers<'a> {
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    delta: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    text: Option<&'a RawValue>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

/// OpenAI's names; those of other usage are ignored.
#[derive(Default, Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

impl Piece {
    /// Reads JSON.
    ///
    /// # Errors
    ///
    /// If it is not valid JSON in UTF-8, or `choices` has another form than OpenAI's, so that texts
    /// in it could not be found.
    pub(super) fn read(json: Vec<u8>) -> Result<Self, Cause> {
        let json = String::from_utf8(json).map_err(|_| Cause::NotUtf8)?;
        if !json.trim_ascii_start().starts_with('{') {
            return Err(Cause::NotJson("not an object".to_owned()));
        }
        let invalid = |error: serde_json::Error| Cause::NotJson(excerpt_of(error, MESSAGE_BYTES));
        let members: Members<'_> = serde_json::from_str(&json).map_err(invalid)?;
        let choices = members.choices.unwrap_or_default().iter().map(Choice::read).collect::<Result<_, _>>();
        let choices = choices.map_err(invalid)?;
        let usage = members.usage.and_then(|usage| serde_json::from_str::<Usage>(usage.get()).ok());
        let usage =
            usage.map(|usage| [usage.prompt_tokens.unwrap_or(0), usage.completion_tokens.unwrap_or(0)]);
        let error = members.error.map(|error| {
            let mut texts = Texts::default();
            let message =
                serde_json::from_str::<ErrorMessage>(error.get()).ok().and_then(|error| error.message);
            let read = texts.read(error.get());
            let message = message.or_else(|| read.ok().map(|()| texts.other));
            excerpt_of(message.unwrap_or_default(), MESSAGE_BYTES)
        });
        Ok(Piece { choices, usage, error, json })
    }

    /// The message of an error that the upstream reports in the place of an answer.
    pub(super) fn error(&self) -> Option<String> {
        self.error.clone()
    }

    /// The JSON as it arrived.
    pub(super) fn json(&self) -> &str {
        &self.json
    }

    /// The JSON as it arrived.
    pub(super) fn into_json(self) -> String {
        self.json
    }
}

#[derive(Deserialize)]
struct ErrorMessage {
    message: Option<String>,
}

impl Choice {
    fn read(members: &ChoiceMembers<'_>) -> Result<Self, serde_json::Error> {
        let mut texts = Texts::default();
        for message in [members.delta, members.message].into_iter().flatten() {
            texts.read(message.get())?;
        }
        let mut choice = Choice {
            index: members.index.unwrap_or(0),
            text: texts.content,
            other: texts.other,
            is_finished: members.finish_reason.is_some(),
        };
        if let Some(text) = members.text {
            match serde_json::from_str::<String>(text.get()) {
                Ok(text) => choice.text.push_str(&text),
                // Another form than OpenAI's.
                Err(_) => {
                    let mut texts = Texts::default();
                    texts.read(text.get())?;
                    choice.other.push_str(&texts.content);
                    choice.other.push_str(&texts.other);
                }
            }
        }
        Ok(choice)
    }
}

/// Collects the strings of a message.
#[derive(Default)]
struct Texts {
    /// The member `content`, whether a string or an array of parts.
    content: String,
    /// All other strings.
    other: String,
}

/// Members of a message, and of its parts and tool calls, that are no text of the model.
const NO_TEXT: [&str; 4] = ["role", "type", "id", "index"];

impl Texts {
    fn read(&mut self, json: &str) -> Result<(), serde_json::Error> {
        let mut json = serde_json::Deserializer::from_str(json);
        Walk { texts: self, is_content: false, is_message: true }.deserialize(&mut json)?;
        json.end()
    }
}

/// A place inside of a message.
struct Walk<'t> {
    texts: &'t mut Texts,
    is_content: bool,
    is_message: bool,
}

impl Walk<'_> {
    fn add(self, text: &str) {
        let texts = if self.is_content { &mut self.texts.content } else { &mut self.texts.other };
        texts.push_str(text);
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.add(text);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        let Walk { texts, is_content, .. } = self;
        while array.next_element_seed(Walk { texts, is_content, is_message: false })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Walk { texts, is_content, is_message } = self;
        while let Some(key) = object.next_key::<String>()? {
            if NO_TEXT.contains(&key.as_str()) {
                object.next_value::<IgnoredAny>()?;
                continue;
            }
            let is_content = is_content || is_message && key == "content";
            object.next_value_seed(Walk { texts, is_content, is_message: false })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(json: &str) -> Piece {
        Piece::read(json.as_bytes().to_vec()).unwrap_or_else(|cause| panic!("{json}: {cause}"))
    }

    #[test]
    fn texts_of_all_forms_are_found() {
        let cases = [
            (r#"{"delta":{"role":"assistant","content":"a\u0062"},"finish_reason":null}"#, "ab", "", false),
            (r#"{"delta":{},"finish_reason":"stop"}"#, "", "", true),
            (r#"{"text":"a","finish_reason":"length"}"#, "a", "", true),
            (r#"{"message":{"content":"a","refusal":"r"},"finish_reason":"stop"}"#, "a", "r", true),
            (r#"{"delta":{"reasoning_content":"r","content":null}}"#, "", "r", false),
            (
                r#"{"message":{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}}"#,
                "ab",
                "",
                false,
            ),
            (
                r#"{"delta":{"tool_calls":[{"id":"i","type":"function","function":{"name":"f","arguments":"{}"}}]}}"#,
                "",
                "f{}",
                false,
            ),
            (r#"{"text":["a",{"b":"c"}]}"#, "", "ac", false),
            (r#"{"delta":{"content":{"content":"a"},"x":{"content":"y"}}}"#, "a", "y", false),
        ];
        for (choice, text, other, is_finished) in cases {
            let piece = piece(&format!("{{\"choices\":[{choice}]}}"));
            let expected = Choice { index: 0, text: text.into(), other: other.into(), is_finished };
            assert_eq!(piece.choices, [expected], "{choice}");
        }
        let two = piece(r#"{"choices":[{"index":1,"text":"b"},{"index":0,"text":"a"}]}"#);
        let indices: Vec<_> = two.choices.iter().map(|choice| (choice.index, choice.text.as_str())).collect();
        assert_eq!(indices, [(1, "b"), (0, "a")]);
    }

    #[test]
    fn usage_and_errors_are_read() {
        let found =
            piece(r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#);
        assert_eq!((found.usage, found.error()), (Some([3, 4]), None));
        assert_eq!(piece(r#"{"usage":null,"choices":null}"#).usage, None);
        assert_eq!(piece(r#"{"usage":{"prompt_tokens":"x"}}"#).usage, None);
        for (json, message) in [
            (r#"{"error":{"message":"m","code":1}}"#, "m"),
            (r#"{"error":"m"}"#, "m"),
            (r#"{"error":{"detail":["m"]}}"#, "m"),
            (r#"{"error":{}}"#, ""),
        ] {
            assert_eq!(piece(json).error().as_deref(), Some(message), "{json}");
        }
    }

    #[test]
    fn garbage_is_rejected() {
        let deep = format!("{{\"choices\":[{{\"delta\":{}{}}}]}}", "[".repeat(500), "]".repeat(500));
        let cases = [
            "",
            "{",
            "[]",
            "1",
            "x",
            "{\"a\":}",
            "{} {}",
            r#"{"choices":{}}"#,
            r#"{"choices":[1]}"#,
            r#"{"choices":[{"delta":{"content":"a"},"delta":{"content":"b"}}]}"#,
            r#"{"choices":[],"choices":[]}"#,
            r#"{"choices":[{"index":"a"}]}"#,
            &deep,
        ];
        for json in cases {
            let found = Piece::read(json.as_bytes().to_vec());
            assert!(matches!(found, Err(Cause::NotJson(_))), "{json}: {found:?}");
        }
        assert!(matches!(Piece::read(b"{\"a\":\"\xff\"}".to_vec()), Err(Cause::NotUtf8)));
    }
}
