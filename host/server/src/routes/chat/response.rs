//! Answers as OpenAI's objects, in one object or in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use infer_engine::{Finish, Model, TokenLogprob, TokenUsage};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::form::Form;
use super::logprobs::Logprobs;
use crate::routes::guard::Remark;

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

/// A whole answer.
#[derive(Default)]
pub(super) struct Written {
    pub(super) text: String,
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) remarks: Vec<Remark>,
}

/// Reason that an answer ended.
#[derive(Clone, Copy)]
pub(super) enum End {
    Model(Finish),
    /// A guard refused the request, with the refusal as the text, or ended the answer.
    Filtered {
        is_refusal: bool,
    },
}

impl Head {
    pub(super) fn new(form: Form, id: &str, model: &Model, logprobs: bool) -> Self {
        let (hash, dummy) = (model.hash().to_owned(), model.is_dummy());
        Head { hash, dummy, logprobs, ..Head::remote(form, id, model.name()) }
    }

    /// The members of an answer about the `model` of an upstream.
    pub(super) fn remote(form: Form, id: &str, model: &str) -> Self {
        let prefix = match form {
            Form::Chat => "chatcmpl",
            Form::Completion => "cmpl",
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Head {
            form,
            id: format!("{prefix}-{id}"),
            created,
            model: model.to_owned(),
            hash: String::new(),
            dummy: false,
            logprobs: false,
        }
    }

    /// The whole answer in one object.
    pub(super) fn completion(
        &self,
        written: Written,
        end: End,
        usage: TokenUsage,
        timings: Option<Timings>,
    ) -> Completion {
        let Written { text, logprobs, remarks } = written;
        let (index, logprobs, finish_reason) = (0, self.logprobs(&logprobs), end.reason());
        let (object, choice) = match self.form {
            Form::Chat => {
                let refusal = matches!(end, End::Filtered { is_refusal: true }).then(|| text.clone());
                let message = Turn { role: "assistant", content: text, refusal };
                ("chat.completion", Choice::Turn { index, message, logprobs, finish_reason })
            }
            Form::Completion => ("text_completion", Choice::Text { index, text, logprobs, finish_reason }),
        };
        Completion {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: self.fingerprint().to_owned(),
            choices: [choice],
            usage: usage.into(),
            infer: Facts {
                dummy: self.dummy,
                model: Hashed { name: self.model.clone(), hash: self.hash.clone() },
                timings,
                guard: remarks,
            },
        }
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

    /// The chunk with a refusal.
    pub(super) fn refusal(&self, text: &str) -> Value {
        let delta = json!({ "content": text, "refusal": text });
        match self.form {
            Form::Chat => {
                self.chunk(json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }]))
            }
            Form::Completion => self.piece(text, &[]),
        }
    }

    /// A chunk with nothing but a guard's remarks.
    pub(super) fn remarks(&self, remarks: &[Remark]) -> Value {
        self.without_text(None, remarks)
    }

    /// The chunk with the finish reason.
    pub(super) fn last(&self, end: End, remarks: &[Remark]) -> Value {
        self.without_text(Some(end.reason()), remarks)
    }

    fn without_text(&self, reason: Option<&str>, remarks: &[Remark]) -> Value {
        let mut chunk = self.chunk(match self.form {
            Form::Chat => json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": reason }]),
            Form::Completion => {
                json!([{ "index": 0, "text": "", "logprobs": null, "finish_reason": reason }])
            }
        });
        if !remarks.is_empty() {
            chunk["infer"] = json!({ "guard": remarks });
        }
        chunk
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
        self.logprobs.then(|| Logprobs::new(self.form, logprobs))
    }
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
        /// `stop`, `length`, or `content_filter` if a guard ended it.
        finish_reason: &'static str,
    },
    Text {
        index: usize,
        text: String,
        logprobs: Option<Logprobs>,
        /// `stop`, `length`, or `content_filter` if a guard ended it.
        finish_reason: &'static str,
    },
}

#[derive(Serialize, ToSchema)]
#[schema(as = AssistantTurn)]
struct Turn {
    role: &'static str,
    content: String,
    /// The content, if a guard refused the request; otherwise null.
    refusal: Option<String>,
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
    /// Absent if a guard ended the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    /// Remarks of a guard; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    guard: Vec<Remark>,
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
pub(super) struct Timings {
    pub(super) queue_ms: f64,
    pub(super) compute_ms: f64,
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

impl End {
    /// The end of a request that a guard refused.
    pub(super) const REFUSED: End = End::Filtered { is_refusal: true };

    fn reason(self) -> &'static str {
        match self {
            End::Model(Finish::End | Finish::Stop) => "stop",
            End::Model(Finish::Length) => "length",
            End::Filtered { .. } => "content_filter",
        }
    }
}
