//! Answers of an upstream under a guard. Their texts are judged as those of local models; a token
//! stands for at most [`TOKEN_BYTES`] bytes, because the upstream's tokens are unknown.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use super::piece::{Choice, Piece as Answer};
use crate::error::ApiError;
use crate::routes::guard::answer::Sent;
use crate::routes::guard::{Guard, Piece, Remark};

/// Bytes of a token.
const TOKEN_BYTES: usize = 4;

/// The guard of an answer.
pub(crate) struct Guarded {
    pub(crate) guard: Arc<Guard>,
    /// The one of the conversation.
    pub(crate) owner: Arc<str>,
    /// Remarks on the input.
    pub(crate) remarks: Vec<Remark>,
    pub(crate) call: infer_sandbox::Request,
}

/// Tokens of a text.
pub(super) fn tokens(text: &str) -> usize {
    text.len().div_ceil(TOKEN_BYTES)
}

/// All text of the choices of an event.
pub(super) fn text(choices: &[Choice]) -> String {
    choices.iter().flat_map(|choice| [choice.other.as_str(), choice.text.as_str()]).collect()
}

/// Judges a whole answer. Returns its JSON as the client may read it, with `remarks` on the input.
///
/// # Errors
///
/// Those of the guard.
pub(super) async fn whole(
    guard: &Guard,
    piece: Answer,
    mut remarks: Vec<Remark>,
    owner: &str,
    call: &infer_sandbox::Request,
) -> Result<String, ApiError> {
    let mut changed: Option<Value> = None;
    for (place, choice) in piece.choices.iter().enumerate() {
        let judged = judge(guard, &text(std::slice::from_ref(choice)), owner, call).await?;
        if judged.remarks.is_empty() {
            continue;
        }
        let answer = match &mut changed {
            Some(answer) => answer,
            None => changed.insert(parse(&piece)?),
        };
        remarks.extend(judged.remarks);
        if let Some(text) = judged.text {
            replace(
                &mut answer["choices"][place],
                &text,
                judged.is_ended,
                judged.is_ended && guard.refuses(),
            );
        }
    }
    if changed.is_none() && remarks.is_empty() {
        return Ok(piece.into_json());
    }
    let mut answer = changed.map_or_else(|| parse(&piece), Ok)?;
    answer["infer"] = json!({ "guard": remarks });
    Ok(answer.to_string())
}

fn parse(piece: &Answer) -> Result<Value, ApiError> {
    serde_json::from_str(piece.json()).map_err(|_| ApiError::internal("internal"))
}

/// A judged text.
struct Judged {
    /// The text in its place; `None` if it stays.
    text: Option<String>,
    remarks: Vec<Remark>,
    /// True if a flag ended it.
    is_ended: bool,
}

async fn judge(
    guard: &Guard,
    text: &str,
    owner: &str,
    call: &infer_sandbox::Request,
) -> Result<Judged, ApiError> {
    let (sender, mut parts) = unbounded_channel();
    let mut rest = text;
    while !rest.is_empty() {
        // No character is longer than a token.
        let end = rest.floor_char_boundary(TOKEN_BYTES);
        let (part, after) = rest.split_at(end);
        let _ = sender.send(part.to_owned());
        rest = after;
    }
    drop(sender);
    let (mut kept, mut remarks, mut is_redacted) = (String::new(), Vec::new(), false);
    let ended = guard
        .pass(
            &mut parts,
            |part: String| Piece { tokens: tokens(&part), text: part, extra: () },
            |sent| {
                match sent {
                    Sent::Piece(piece) => kept += &piece.text,
                    Sent::Redaction(remark) => {
                        is_redacted = true;
                        kept += guard.redaction();
                        remarks.push(remark);
                    }
                    Sent::Annotation(remark) => remarks.push(remark),
                }
                Ok(())
            },
            owner,
            call,
        )
        .await?;
    let is_ended = ended.is_some();
    if is_ended && guard.refuses() {
        guard.refusal().clone_into(&mut kept);
    }
    remarks.extend(ended);
    Ok(Judged { text: (is_redacted || is_ended).then_some(kept), remarks, is_ended })
}

/// Replaces all text of a choice.
fn replace(choice: &mut Value, text: &str, is_ended: bool, is_refusal: bool) {
    if let Some(message) = choice.get_mut("message") {
        let refusal = is_refusal.then_some(text);
        *message = json!({ "role": "assistant", "content": text, "refusal": refusal });
    } else {
        choice["text"] = text.into();
    }
    if is_ended {
        choice["finish_reason"] = "content_filter".into();
    }
    choice["logprobs"] = Value::Null;
}

/// Splits the event `json`, which has text and ends its choice, into one with the text and one that
/// ends the choice.
pub(super) fn split(json: &str) -> [String; 2] {
    let mut event: Value = serde_json::from_str(json).unwrap_or_default();
    let mut end = event.clone();
    for choice in event["choices"].as_array_mut().into_iter().flatten() {
        choice["finish_reason"] = Value::Null;
    }
    for choice in end["choices"].as_array_mut().into_iter().flatten() {
        match choice.get("text") {
            Some(_) => choice["text"] = "".into(),
            None => choice["delta"] = json!({}),
        }
        choice["logprobs"] = Value::Null;
    }
    if let Some(event) = event.as_object_mut() {
        event.remove("usage");
    }
    [event.to_string(), end.to_string()]
}

/// Events that a guard adds to a stream, in the form of the stream's own.
#[derive(Clone, Default)]
pub(super) struct Template(Value);

impl Template {
    /// Takes the form of the event `json`.
    pub(super) fn new(json: &str) -> Self {
        Template(serde_json::from_str(json).unwrap_or_default())
    }

    /// An event with `text`, and with a `refusal` if it is one.
    pub(super) fn text(&self, text: &str, is_refusal: bool) -> Value {
        let delta = match is_refusal {
            true => json!({ "content": text, "refusal": text }),
            false => json!({ "content": text }),
        };
        self.event(text, &delta, None)
    }

    /// The last event, or one with nothing but remarks.
    pub(super) fn remarks(&self, reason: Option<&str>, remarks: &[Remark]) -> Value {
        let mut event = self.event("", &json!({}), reason);
        event["infer"] = json!({ "guard": remarks });
        event
    }

    fn event(&self, text: &str, delta: &Value, reason: Option<&str>) -> Value {
        let is_chat = self.0["choices"][0].get("text").is_none();
        let mut choice = json!({ "index": 0, "logprobs": null, "finish_reason": reason });
        match is_chat {
            true => choice["delta"] = delta.clone(),
            false => choice["text"] = text.into(),
        }
        let mut event = self.0.clone();
        event["choices"] = json!([choice]);
        if let Some(event) = event.as_object_mut() {
            event.remove("usage");
        }
        event
    }
}
