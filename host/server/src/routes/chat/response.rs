//! Answers as OpenAI's objects, in one object or in chunks.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use infer_engine::{Answer, Finish, Model, Output, TokenLogprob, TokenUsage};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::form::Form;
use crate::error::ApiError;

/// Members shared by all objects of one answer.
pub(super) struct Head {
    form: Form,
    id: String,
    created: u64,
    model: String,
    hash: String,
    dummy: bool,
    /// True if the request asks for log-probabilities.
    logprobs: bool,
}

impl Head {
    pub(super) fn new(form: Form, id: &str, model: &Model, logprobs: bool) -> Self {
        let prefix = match form {
            Form::Chat => "chatcmpl",
            Form::Completion => "cmpl",
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Head {
            form,
            id: format!("{prefix}-{id}"),
            created,
            model: model.name().to_owned(),
            hash: model.hash().to_owned(),
            dummy: model.is_dummy(),
            logprobs,
        }
    }

    /// The whole answer in one object.
    pub(super) fn completion(&self, answer: Answer) -> Result<Completion, ApiError> {
        let Output::Text { text, finish, logprobs, .. } = answer.output else {
            return Err(ApiError::internal("internal"));
        };
        let (index, logprobs, finish_reason) = (0, self.logprobs(&logprobs), reason(finish));
        let (object, choice) = match self.form {
            Form::Chat => {
                let message = Turn { role: "assistant", content: text, refusal: None };
                ("chat.completion", Choice::Turn { index, message, logprobs, finish_reason })
            }
            Form::Completion => ("text_completion", Choice::Text { index, text, logprobs, finish_reason }),
        };
        Ok(Completion {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: self.fingerprint().to_owned(),
            choices: [choice],
            usage: answer.usage.into(),
            infer: Facts {
                dummy: self.dummy,
                model: Hashed { name: self.model.clone(), hash: self.hash.clone() },
                timings: Timings {
                    queue_ms: answer.queue.as_secs_f64() * 1e3,
                    compute_ms: answer.compute.as_secs_f64() * 1e3,
                },
            },
        })
    }

    /// The first chunk of a chat, with the role.
    pub(super) fn first(&self) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.form == Form::Chat).then(|| {
            self.chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }]))
        })
    }

    /// A chunk of text.
    pub(super) fn piece(&self, text: &str, logprobs: &[TokenLogprob]) -> Value {
        let logprobs = self.logprobs(logprobs);
        self.chunk(match self.form {
            Form::Chat => {
                json!([{ "index": 0, "delta": { "content": text }, "logprobs": logprobs, "finish_reason": null }])
            }
            Form::Completion => {
                json!([{ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": null }])
            }
        })
    }

    /// The chunk with the finish reason.
    pub(super) fn last(&self, finish: Finish) -> Value {
        let reason = reason(finish);
        self.chunk(match self.form {
            Form::Chat => json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": reason }]),
            Form::Completion => {
                json!([{ "index": 0, "text": "", "logprobs": null, "finish_reason": reason }])
            }
        })
    }

    /// The chunk with the token usage.
    pub(super) fn usage(&self, tokens: TokenUsage) -> Value {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = json!(Usage::from(tokens));
        chunk
    }

    fn chunk(&self, choices: Value) -> Value {
        let object = match self.form {
            Form::Chat => "chat.completion.chunk",
            Form::Completion => "text_completion",
        };
        let mut chunk = self.object(object);
        chunk.insert("choices".into(), choices);
        Value::Object(chunk)
    }

    fn object(&self, object: &str) -> Map<String, Value> {
        Map::from_iter([
            ("id".to_owned(), self.id.as_str().into()),
            ("object".to_owned(), object.into()),
            ("created".to_owned(), self.created.into()),
            ("model".to_owned(), self.model.as_str().into()),
            ("system_fingerprint".to_owned(), self.fingerprint().into()),
        ])
    }

    /// Fingerprint of the model's file: equal fingerprints and seeds sample equally.
    fn fingerprint(&self) -> &str {
        &self.hash[..self.hash.len().min(16)]
    }

    /// `None` if the request did not ask for them; an answer without tokens has an empty list.
    fn logprobs(&self, logprobs: &[TokenLogprob]) -> Option<Logprobs> {
        self.logprobs.then(|| match self.form {
            Form::Chat => {
                let token =
                    |bytes: &[u8], logprob| Token { token: escaped(bytes), logprob, bytes: bytes.to_vec() };
                let logprobs_of = |entry: &TokenLogprob| TokenLogprobs {
                    token: token(&entry.bytes, entry.logprob),
                    top_logprobs: entry.top.iter().map(|(bytes, logprob)| token(bytes, *logprob)).collect(),
                };
                Logprobs::Turn { content: logprobs.iter().map(logprobs_of).collect(), refusal: None }
            }
            Form::Completion => {
                // Two tokens may have the same text: the likelier one, which comes first, wins.
                let top = |entry: &TokenLogprob| {
                    let mut top = BTreeMap::new();
                    for (bytes, logprob) in &entry.top {
                        top.entry(completion_token(bytes)).or_insert(*logprob);
                    }
                    top
                };
                Logprobs::Text {
                    tokens: logprobs.iter().map(|entry| completion_token(&entry.bytes)).collect(),
                    token_logprobs: logprobs.iter().map(|entry| entry.logprob).collect(),
                    top_logprobs: logprobs.iter().map(top).collect(),
                    text_offset: logprobs.iter().map(|entry| entry.start).collect(),
                }
            }
        })
    }
}

/// A token in the format of OpenAI's chats: bytes that are not valid UTF-8 are escaped, `\xf0\x9f`.
/// A replacement character would be the same for all of them.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    text
}

/// A token in the format of OpenAI's completions: `bytes:\xf0\x9f` if it is not valid UTF-8.
fn completion_token(bytes: &[u8]) -> String {
    let text = escaped(bytes);
    if std::str::from_utf8(bytes).is_ok() { text } else { format!("bytes:{text}") }
}

/// An answer in one object.
#[derive(Serialize, ToSchema)]
pub(super) struct Completion {
    id: String,
    /// `chat.completion` or `text_completion`.
    object: &'static str,
    /// In seconds since 1970.
    created: u64,
    model: String,
    /// Fingerprint of the model's file: equal fingerprints and seeds sample equally.
    system_fingerprint: String,
    choices: [Choice; 1],
    usage: Usage,
    infer: Facts,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CompletionChoice)]
#[serde(untagged)]
enum Choice {
    Turn {
        index: usize,
        message: Turn,
        logprobs: Option<Logprobs>,
        /// `stop` or `length`.
        finish_reason: &'static str,
    },
    Text {
        index: usize,
        text: String,
        logprobs: Option<Logprobs>,
        /// `stop` or `length`.
        finish_reason: &'static str,
    },
}

#[derive(Serialize, ToSchema)]
#[schema(as = AssistantTurn)]
struct Turn {
    role: &'static str,
    content: String,
    /// Always null.
    refusal: Option<String>,
}

/// Log-probabilities of the tokens.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Logprobs {
    Turn {
        content: Vec<TokenLogprobs>,
        /// Always null.
        refusal: Option<String>,
    },
    Text {
        tokens: Vec<String>,
        token_logprobs: Vec<f32>,
        top_logprobs: Vec<BTreeMap<String, f32>>,
        /// In bytes of the answer.
        text_offset: Vec<usize>,
    },
}

#[derive(Serialize, ToSchema)]
#[schema(as = TokenLogprob)]
struct TokenLogprobs {
    #[serde(flatten)]
    token: Token,
    top_logprobs: Vec<Token>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LikelyToken)]
struct Token {
    token: String,
    logprob: f32,
    #[schema(value_type = Vec<u16>)]
    bytes: Vec<u8>,
}

/// Token usage of an answer.
#[derive(Serialize, ToSchema)]
#[schema(as = CompletionUsage)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
    prompt_tokens_details: PromptTokens,
}

#[derive(Serialize, ToSchema)]
struct PromptTokens {
    /// Prompt tokens that were already computed and cached.
    cached_tokens: usize,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CompletionFacts)]
struct Facts {
    /// The weights are random: the answer has no meaning.
    dummy: bool,
    model: Hashed,
    timings: Timings,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CompletionModel)]
struct Hashed {
    name: String,
    /// SHA-256 of the model's file, in hexadecimal.
    hash: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CompletionTimings)]
struct Timings {
    queue_ms: f64,
    compute_ms: f64,
}

impl From<TokenUsage> for Usage {
    fn from(tokens: TokenUsage) -> Self {
        let TokenUsage { prompt_tokens, cached_tokens, generated_tokens } = tokens;
        Usage {
            prompt_tokens,
            completion_tokens: generated_tokens,
            total_tokens: prompt_tokens + generated_tokens,
            prompt_tokens_details: PromptTokens { cached_tokens },
        }
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::End | Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(form: Form, logprobs: bool) -> Head {
        Head {
            form,
            id: String::new(),
            created: 0,
            model: String::new(),
            hash: "0123456789abcdef".to_owned(),
            dummy: false,
            logprobs,
        }
    }

    #[test]
    fn answer_without_tokens_has_empty_logprobs() {
        let logprobs_of =
            |form, is_requested| serde_json::to_value(head(form, is_requested).logprobs(&[])).unwrap();
        assert_eq!(logprobs_of(Form::Chat, true), json!({ "content": [], "refusal": null }));
        let empty = json!({ "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [] });
        assert_eq!(logprobs_of(Form::Completion, true), empty);
        assert_eq!(logprobs_of(Form::Chat, false), Value::Null);
        assert_eq!(logprobs_of(Form::Completion, false), Value::Null);
    }

    #[test]
    fn incomplete_utf8_tokens_stay_distinct() {
        let (one, other) = (b"\xf0\x9f".to_vec(), b"\xe2\x80".to_vec());
        let top =
            vec![(one.clone(), -0.5), (other.clone(), -1.0), (b"a".to_vec(), -2.0), (b"a".to_vec(), -9.0)];
        let token = TokenLogprob { start: 3, bytes: one, logprob: -0.5, top };
        let logprobs_of =
            |form| serde_json::to_value(head(form, true).logprobs(std::slice::from_ref(&token))).unwrap();
        let completion = logprobs_of(Form::Completion);
        assert_eq!(completion["tokens"], json!(["bytes:\\xf0\\x9f"]));
        let top = json!({ "bytes:\\xf0\\x9f": -0.5, "bytes:\\xe2\\x80": -1.0, "a": -2.0 });
        assert_eq!(completion["top_logprobs"], json!([top]));
        assert_eq!(completion["text_offset"], json!([3]));
        let chat = logprobs_of(Form::Chat);
        assert_eq!(chat["content"][0]["token"], "\\xf0\\x9f");
        assert_eq!(chat["content"][0]["bytes"], json!([0xf0, 0x9f]));
        assert_eq!(chat["content"][0]["top_logprobs"][1]["token"], "\\xe2\\x80");
    }
}
