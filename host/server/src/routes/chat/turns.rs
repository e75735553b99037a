//! The turns of a chat, including members that clients copy from an earlier answer.

use std::fmt;

use infer_engine::Message;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde::de::{Error, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::form::{at, parse};
use super::unsupported::{is_empty, unsupported};
use crate::error::ApiError;
use crate::limits::MAX_MESSAGES;
use crate::routes::members;

const EXPECTED: &str =
    "expected a string, or an array of parts such as {\"type\": \"text\", \"text\": \"…\"}";

/// Turns as they were sent, not yet parsed.
#[derive(Default)]
pub(super) struct Turns<'a>(Vec<&'a RawValue>);

/// One turn. Members that begin with `_` describe how an answer came about; they do not affect the
/// next one.
#[derive(Deserialize, ToSchema)]
#[schema(as = AskedTurn)]
#[serde(deny_unknown_fields)]
pub(super) struct Turn<'a> {
    /// `system` or its synonym `developer`; `user`; `assistant`.
    role: String,
    /// May be null in the assistant's turns only.
    #[serde(borrow)]
    #[schema(value_type = Option<Content>)]
    content: Option<&'a RawValue>,
    /// Sent by the assistant instead of content.
    refusal: Option<String>,
    /// Empty.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Value>>)]
    tool_calls: Option<&'a RawValue>,
    /// Null.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    function_call: Option<&'a RawValue>,
    /// Null.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    tool_call_id: Option<&'a RawValue>,
    /// Null.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    audio: Option<&'a RawValue>,
    /// Empty.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Value>>)]
    images: Option<&'a RawValue>,
    /// False: the model begins a turn of its own.
    #[serde(borrow)]
    #[schema(value_type = Option<bool>)]
    prefix: Option<&'a RawValue>,
    #[serde(default, rename = "name")]
    #[schema(value_type = Option<Value>)]
    _name: IgnoredAny,
    #[serde(default, rename = "annotations")]
    #[schema(value_type = Option<Value>)]
    _annotations: IgnoredAny,
    #[serde(default, rename = "reasoning_content")]
    #[schema(value_type = Option<Value>)]
    _reasoning_content: IgnoredAny,
    #[serde(default, rename = "reasoning")]
    #[schema(value_type = Option<Value>)]
    _reasoning: IgnoredAny,
    #[serde(default, rename = "reasoning_details")]
    #[schema(value_type = Option<Value>)]
    _reasoning_details: IgnoredAny,
    #[serde(default, rename = "thinking_blocks")]
    #[schema(value_type = Option<Value>)]
    _thinking_blocks: IgnoredAny,
    #[serde(default, rename = "provider_specific_fields")]
    #[schema(value_type = Option<Value>)]
    _provider_specific_fields: IgnoredAny,
    #[serde(default, rename = "parsed")]
    #[schema(value_type = Option<Value>)]
    _parsed: IgnoredAny,
    #[serde(default, rename = "cache_control")]
    #[schema(value_type = Option<Value>)]
    _cache_control: IgnoredAny,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TurnPart)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// `text`, or `refusal` in the assistant's turns.
    #[serde(rename = "type")]
    _type: String,
    text: Option<String>,
    refusal: Option<String>,
    #[serde(default, rename = "annotations")]
    #[schema(value_type = Option<Value>)]
    _annotations: IgnoredAny,
    #[serde(default, rename = "cache_control")]
    #[schema(value_type = Option<Value>)]
    _cache_control: IgnoredAny,
}

/// The type of a part, parsed before its other members.
#[derive(Deserialize)]
struct Typed {
    r#type: Option<String>,
}

/// Parses the turns.
///
/// # Errors
///
/// 400 with the path of the invalid member.
pub(super) fn read(turns: Turns<'_>) -> Result<Vec<Message>, ApiError> {
    let read = |(index, turn)| message(&format!("messages[{index}]"), turn);
    turns.0.into_iter().enumerate().map(read).collect()
}

fn message(path: &str, turn: &RawValue) -> Result<Message, ApiError> {
    let turn: Turn<'_> = members::read_at(path, turn)?;
    turn.check_unsupported(path)?;
    let is_assistant = turn.role == "assistant";
    let content = match (turn.content, turn.refusal) {
        (Some(value), _) => content(&format!("{path}.content"), value, is_assistant)?,
        (None, refusal) if is_assistant => refusal.unwrap_or_default(),
        (None, _) => return Err(at(&format!("{path}.content"), &format!("is missing or null; {EXPECTED}"))),
    };
    // Newer clients send `developer` for the same role.
    let role = if turn.role == "developer" { "system".to_owned() } else { turn.role };
    Ok(Message { role, content })
}

impl Turn<'_> {
    /// Rejects unsupported members unless their values are neutral.
    fn check_unsupported(&self, path: &str) -> Result<(), ApiError> {
        const CALLS: &str =
            "none: the models call no tools; describe the call and its result in the content of a turn";
        const TEXT: &str = "none: the models read only text";
        [
            unsupported("tool_calls", self.tool_calls, is_empty, CALLS),
            unsupported("function_call", self.function_call, is_empty, CALLS),
            unsupported("tool_call_id", self.tool_call_id, is_empty, CALLS),
            unsupported("audio", self.audio, is_empty, TEXT),
            unsupported("images", self.images, is_empty, TEXT),
            unsupported("prefix", self.prefix, is_empty, "false: the model begins a turn of its own"),
        ]
        .iter()
        .try_for_each(|member| member.check(&format!("{path}.")))
    }
}

/// Parses the text of a turn, from a string or from parts.
fn content(path: &str, value: &RawValue, is_assistant: bool) -> Result<String, ApiError> {
    match value.get().as_bytes().first() {
        Some(b'"') => return parse(value).map_err(|message| at(path, &message)),
        Some(b'[') => {}
        _ => return Err(at(path, &format!("is `{}`; {EXPECTED}", excerpt(value.get(), QUOTE_BYTES)))),
    }
    let mut text = String::new();
    let Turns(parts) = parse(value).map_err(|message| at(path, &message))?;
    for (index, part) in parts.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let Typed { r#type } = members::read_at(&path, part)?;
        let more = match r#type.as_deref() {
            Some("text") => members::read_at::<Part>(&path, part)?.text,
            Some("refusal") if is_assistant => members::read_at::<Part>(&path, part)?.refusal,
            other => {
                let found = excerpt(other.unwrap_or_default(), QUOTE_BYTES);
                return Err(at(
                    &path,
                    &format!("has the type `{found}`, expected `text`: the models read only text"),
                ));
            }
        };
        let Some(more) = more else {
            let missing = r#type.unwrap_or_default();
            return Err(at(&path, &format!("has no `{missing}`; {EXPECTED}")));
        };
        text.push_str(&more);
    }
    Ok(text)
}

impl<'de: 'a, 'a> Deserialize<'de> for Turns<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = array.next_element()? {
                    MAX_MESSAGES.check_next(items.len()).map_err(A::Error::custom)?;
                    items.push(item);
                }
                Ok(items)
            }
        }
        deserializer.deserialize_seq(Items).map(Turns)
    }
}

/// The text of a turn.
#[derive(Deserialize, ToSchema)]
#[schema(as = TurnContent)]
#[serde(untagged)]
#[expect(dead_code, reason = "documented here, never constructed")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}
