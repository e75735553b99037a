//! The texts of a request that an upstream's model is going to read, for the guard.

use axum::body::Bytes;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::limits::MAX_MESSAGES;
use crate::routes::guard::turns::{Turn, unreadable_prompt};

/// Types of parts that are nothing but text.
const TEXT_PARTS: [&str; 3] = ["text", "input_text", "refusal"];

/// A body with its texts.
pub(super) struct Input {
    body: Value,
    texts: Vec<Text>,
}

/// A text of a message, or a prompt.
struct Text {
    role: String,
    read: String,
    /// The text before the guard.
    sent: String,
    place: Place,
}

/// Place of a text in the body.
#[derive(Clone, Copy)]
enum Place {
    Message(usize),
    Prompt,
    /// One of several prompts.
    Prompts(usize),
}

impl Input {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// 400 if it is not JSON.
    pub(super) fn new(body: &[u8]) -> Result<Self, ApiError> {
        let body = serde_json::from_slice(body).map_err(|error| ApiError::invalid("", error))?;
        Ok(Input { body, texts: Vec::new() })
    }

    /// The turns to judge.
    ///
    /// # Errors
    ///
    /// 400 if the body has another form than OpenAI's, or parts other than text, which no guard of
    /// chats judges.
    pub(super) fn turns(&mut self) -> Result<Vec<Turn<'_>>, ApiError> {
        let mut add = |role: &str, text: String, place| {
            self.texts.push(Text { role: role.to_owned(), sent: text.clone(), read: text, place });
        };
        if let Some(messages) = self.body.get("messages").filter(|messages| !messages.is_null()) {
            let messages = messages.as_array();
            let messages =
                messages.ok_or_else(|| ApiError::invalid("messages", "`messages` is not an array"))?;
            for (index, message) in messages.iter().enumerate() {
                MAX_MESSAGES.check_next(index).map_err(|error| ApiError::invalid("messages", error))?;
                let path = format!("messages[{index}]");
                let object = message.as_object();
                let object =
                    object.ok_or_else(|| ApiError::invalid(&path, format!("`{path}` is not an object")))?;
                let role = object.get("role").and_then(Value::as_str).unwrap_or("user");
                add(role, text(&path, object)?, Place::Message(index));
            }
        }
        match self.body.get("prompt") {
            None | Some(Value::Null) => {}
            Some(Value::String(prompt)) => add("user", prompt.clone(), Place::Prompt),
            Some(Value::Array(prompts)) => {
                for (index, prompt) in prompts.iter().enumerate() {
                    let prompt = prompt.as_str().ok_or_else(unreadable_prompt)?;
                    add("user", prompt.to_owned(), Place::Prompts(index));
                }
            }
            Some(_) => return Err(unreadable_prompt()),
        }
        Ok(self.texts.iter_mut().map(|Text { role, read, .. }| Turn { role, text: read }).collect())
    }

    /// Number of answers that the request asks for.
    pub(super) fn answers(&self) -> u64 {
        self.body.get("n").and_then(Value::as_u64).unwrap_or(1)
    }

    /// The body with redacted texts, or `None` if nothing was redacted.
    pub(super) fn redacted(mut self) -> Option<Bytes> {
        let mut is_redacted = false;
        for Text { read, sent, place, .. } in self.texts {
            if read == sent {
                continue;
            }
            is_redacted = true;
            let place = match place {
                Place::Message(index) => {
                    let message = self.body.get_mut("messages").and_then(|messages| messages.get_mut(index));
                    let Some(message) = message.and_then(Value::as_object_mut) else { continue };
                    // Arguments of calls were judged with the content.
                    message.retain(|name, _| {
                        !matches!(name.as_str(), "tool_calls" | "function_call" | "refusal")
                    });
                    message.entry("content").or_insert(Value::Null)
                }
                Place::Prompt => &mut self.body["prompt"],
                Place::Prompts(index) => &mut self.body["prompt"][index],
            };
            *place = Value::String(read);
        }
        is_redacted.then(|| self.body.to_string().into())
    }
}

/// All text of a message: its content, and the arguments of calls.
fn text(path: &str, message: &Map<String, Value>) -> Result<String, ApiError> {
    let mut text = String::new();
    match message.get("content") {
        None | Some(Value::Null) => {}
        Some(Value::String(content)) => text.push_str(content),
        Some(Value::Array(parts)) => {
            for (index, part) in parts.iter().enumerate() {
                let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
                if !TEXT_PARTS.contains(&kind) {
                    let path = format!("{path}.content[{index}]");
                    let kind = excerpt(kind, QUOTE_BYTES);
                    let message = format!(
                        "`{path}` has the type `{kind}`, which the guard of this upstream cannot judge; expected `text`"
                    );
                    return Err(ApiError::invalid(path, message));
                }
                strings(part, &mut text);
            }
        }
        Some(_) => {
            let path = format!("{path}.content");
            return Err(ApiError::invalid(
                &path,
                format!("`{path}` is neither a string nor an array of parts"),
            ));
        }
    }
    for name in ["refusal", "tool_calls", "function_call"] {
        if let Some(value) = message.get(name).filter(|value| !value.is_null()) {
            text.push('\n');
            strings(value, &mut text);
        }
    }
    Ok(text)
}

/// Appends all strings in `value` but types and ids.
fn strings(value: &Value, text: &mut String) {
    match value {
        Value::String(string) => text.push_str(string),
        Value::Array(items) => items.iter().for_each(|item| strings(item, text)),
        Value::Object(members) => {
            let members =
                members.iter().filter(|(name, _)| !matches!(name.as_str(), "type" | "id" | "index"));
            members.for_each(|(_, value)| strings(value, text));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Input {
        Input::new(body.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn every_text_of_a_request_is_judged() {
        let call = json!([{ "id": "c1", "type": "function", "function": { "name": "find", "arguments": "{\"x\":1}" } }]);
        let body = json!({ "model": "a", "n": 2, "messages": [
            { "role": "system", "content": "s" },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "input_text", "text": "b" }] },
            { "role": "assistant", "content": null, "tool_calls": call },
            { "role": "tool", "tool_call_id": "c1", "content": "result" },
        ] });
        let mut input = read(&body);
        assert_eq!(input.answers(), 2);
        let turns = input.turns().unwrap();
        let found: Vec<_> = turns.iter().map(|turn| (turn.role, turn.text.as_str())).collect();
        assert_eq!(
            found,
            [("system", "s"), ("user", "ab"), ("assistant", "\nfind{\"x\":1}"), ("tool", "result")]
        );
        assert!(input.redacted().is_none());
        let mut prompts = read(&json!({ "prompt": ["a", "b"] }));
        *prompts.turns().unwrap()[1].text = "(cut)".to_owned();
        let redacted: Value = serde_json::from_slice(&prompts.redacted().unwrap()).unwrap();
        assert_eq!(redacted, json!({ "prompt": ["a", "(cut)"] }));
    }

    #[test]
    fn redacted_message_keeps_its_role() {
        let mut input = read(&json!({ "temperature": 1.5, "messages": [
            { "role": "user", "name": "n", "content": [{ "type": "text", "text": "a" }] },
            { "role": "user", "content": "b" },
        ] }));
        *input.turns().unwrap()[0].text = "(cut)".to_owned();
        let redacted: Value = serde_json::from_slice(&input.redacted().unwrap()).unwrap();
        let first = json!({ "role": "user", "name": "n", "content": "(cut)" });
        let expected = json!({ "temperature": 1.5, "messages": [first, { "role": "user", "content": "b" }] });
        assert_eq!(redacted, expected);
    }

    #[test]
    fn parts_that_cannot_be_judged_are_rejected() {
        let image = json!([{ "type": "image_url", "image_url": { "url": "data:," } }]);
        let cases = [
            (json!({ "messages": [{ "role": "user", "content": image }] }), "`image_url`"),
            (json!({ "messages": [{ "role": "user", "content": 7 }] }), "`messages[0].content` is neither"),
            (json!({ "messages": ["a"] }), "`messages[0]` is not an object"),
            (json!({ "messages": {} }), "`messages` is not an array"),
            (json!({ "prompt": [1, 2] }), "token ids"),
            (json!({ "prompt": 1 }), "token ids"),
        ];
        for (body, expected) in cases {
            let mut input = read(&body);
            let Err(error) = input.turns() else { panic!("{body} is accepted") };
            assert!(error.to_string().contains(expected), "{body}: {error}");
        }
    }
}
