//! An answer as OpenAI's objects: whole, or in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use infer_engine::{Answer, Finish, Model, Output, TokenLogprob, TokenUsage};
use serde_json::{Map, Value, json};

use super::Form;
use crate::error::ApiError;

/// What all objects of one answer begin with.
pub(super) struct Head {
    form: Form,
    id: String,
    created: u64,
    model: String,
    hash: String,
    dummy: bool,
}

impl Head {
    pub(super) fn new(form: Form, id: &str, model: &Model) -> Self {
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
        }
    }

    /// The whole answer.
    pub(super) fn whole(&self, answer: Answer) -> Result<Value, ApiError> {
        let Output::Text { text, finish, logprobs, .. } = answer.output else {
            return Err(ApiError::internal("internal"));
        };
        let choice = match self.form {
            Form::Chat => json!({
                "index": 0,
                "message": { "role": "assistant", "content": text, "refusal": null },
                "logprobs": self.logprobs(&logprobs, 0),
                "finish_reason": reason(finish),
            }),
            Form::Completion => json!({
                "index": 0,
                "text": text,
                "logprobs": self.logprobs(&logprobs, 0),
                "finish_reason": reason(finish),
            }),
        };
        let object = match self.form {
            Form::Chat => "chat.completion",
            Form::Completion => "text_completion",
        };
        let mut whole = self.object(object);
        whole.insert("choices".into(), json!([choice]));
        whole.insert("usage".into(), usage(answer.usage));
        let infer = json!({ "dummy": self.dummy, "model": { "name": self.model, "hash": self.hash },
            "timings": { "queue_ms": answer.queue.as_secs_f64() * 1e3, "compute_ms": answer.compute.as_secs_f64() * 1e3 } });
        whole.insert("infer".into(), infer);
        Ok(Value::Object(whole))
    }

    /// The first chunk of a chat, which says who speaks.
    pub(super) fn first(&self) -> Option<Value> {
        let delta = json!({ "role": "assistant", "content": "" });
        (self.form == Form::Chat).then(|| {
            self.chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }]))
        })
    }

    /// A chunk of text that comes after `before` bytes of it.
    pub(super) fn piece(&self, text: &str, logprobs: &[TokenLogprob], before: usize) -> Value {
        let logprobs = self.logprobs(logprobs, before);
        self.chunk(match self.form {
            Form::Chat => {
                json!([{ "index": 0, "delta": { "content": text }, "logprobs": logprobs, "finish_reason": null }])
            }
            Form::Completion => {
                json!([{ "index": 0, "text": text, "logprobs": logprobs, "finish_reason": null }])
            }
        })
    }

    /// The chunk that says why the answer ended.
    pub(super) fn last(&self, finish: Finish) -> Value {
        let reason = reason(finish);
        self.chunk(match self.form {
            Form::Chat => json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": reason }]),
            Form::Completion => {
                json!([{ "index": 0, "text": "", "logprobs": null, "finish_reason": reason }])
            }
        })
    }

    /// The chunk that says what it took.
    pub(super) fn usage(&self, tokens: TokenUsage) -> Value {
        let mut chunk = self.chunk(json!([]));
        chunk["usage"] = usage(tokens);
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
            // Equal fingerprints and seeds draw equally.
            ("system_fingerprint".to_owned(), self.hash[..self.hash.len().min(16)].into()),
        ])
    }

    /// Null where none were asked for. `before`: bytes of the answer before the first of them.
    fn logprobs(&self, logprobs: &[TokenLogprob], before: usize) -> Value {
        if logprobs.is_empty() {
            return Value::Null;
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match self.form {
            Form::Chat => {
                let token = |bytes: &[u8], logprob: f32| json!({ "token": text(bytes), "logprob": logprob, "bytes": bytes });
                let content = logprobs.iter().map(|told| {
                    let mut object = token(&told.bytes, told.logprob);
                    let top = told.top.iter().map(|(bytes, logprob)| token(bytes, *logprob));
                    object["top_logprobs"] = top.collect();
                    object
                });
                json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
            }
            Form::Completion => {
                let offsets = logprobs.iter().scan(before, |offset, told| {
                    let at = *offset;
                    *offset += told.bytes.len();
                    Some(at)
                });
                let top = logprobs.iter().map(|told| {
                    told.top
                        .iter()
                        .map(|(bytes, logprob)| (text(bytes), json!(logprob)))
                        .collect::<Map<_, _>>()
                });
                json!({
                    "tokens": logprobs.iter().map(|told| text(&told.bytes)).collect::<Vec<_>>(),
                    "token_logprobs": logprobs.iter().map(|told| told.logprob).collect::<Vec<_>>(),
                    "top_logprobs": top.collect::<Vec<_>>(),
                    "text_offset": offsets.collect::<Vec<_>>(),
                })
            }
        }
    }
}

fn usage(tokens: TokenUsage) -> Value {
    let TokenUsage { prompt_tokens, cached_tokens, generated_tokens } = tokens;
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": generated_tokens,
        "total_tokens": prompt_tokens + generated_tokens,
        "prompt_tokens_details": { "cached_tokens": cached_tokens },
    })
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::End | Finish::Stop => "stop",
        Finish::Length => "length",
    }
}
