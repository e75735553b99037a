//! Parses a request for a chat turn or for a completion.

use infer_engine::{Params, Prompt, Request};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::accepted::{accepted, is_empty, is_number, is_text_format, is_without_bias, is_word};
use super::alternatives::{OneOrMore, Prompts};
use super::form::{Form, at, parse};
use super::turns::{self, Turn, Turns};
use crate::error::ApiError;
use crate::routes::members;

/// Default limit on generated tokens of a chat turn, and of a completion; the latter is that of
/// OpenAI.
const CHAT_TOKENS: usize = 512;
const COMPLETION_TOKENS: usize = 16;

/// A parsed request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) request: Request,
    pub(super) stream: bool,
    /// In the last event of a stream.
    pub(super) include_usage: bool,
}

/// The body of both forms; the members of a form are checked after parsing. Members that begin with
/// `_` are ignored, because no value of theirs changes the answer here. Members of the type
/// [`RawValue`] from `tools` on are checked by [`Body::asks_no_more`].
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Body<'a> {
    /// The model's name in infer.toml.
    model: String,
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Turn<'a>>>)]
    messages: Option<Turns<'a>>,
    #[serde(borrow)]
    #[schema(value_type = Option<Prompts>)]
    prompt: Option<&'a RawValue>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    /// -1 and 0 mean no limit.
    top_k: Option<i64>,
    seed: Option<i64>,
    #[serde(borrow)]
    #[schema(value_type = Option<OneOrMore>)]
    stop: Option<&'a RawValue>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    logprobs: Option<&'a RawValue>,
    top_logprobs: Option<usize>,
    n: Option<u64>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    /// Empty, or with the `tool_choice` `none`.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Value>>)]
    tools: Option<&'a RawValue>,
    /// `none` or `auto`.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    tool_choice: Option<&'a RawValue>,
    /// Empty.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Value>>)]
    functions: Option<&'a RawValue>,
    /// `none` or `auto`.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    function_call: Option<&'a RawValue>,
    /// Of the type `text`.
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    response_format: Option<&'a RawValue>,
    /// Empty.
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    logit_bias: Option<&'a RawValue>,
    /// `["text"]`.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<String>>)]
    modalities: Option<&'a RawValue>,
    /// Null.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    audio: Option<&'a RawValue>,
    /// Null.
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    web_search_options: Option<&'a RawValue>,
    /// `none`, `minimal`, `low` or `medium`: the models do not reason before they answer.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    reasoning_effort: Option<&'a RawValue>,
    /// `medium`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    verbosity: Option<&'a RawValue>,
    /// 1.
    #[serde(borrow)]
    #[schema(value_type = Option<u64>)]
    best_of: Option<&'a RawValue>,
    /// False.
    #[serde(borrow)]
    #[schema(value_type = Option<bool>)]
    echo: Option<&'a RawValue>,
    /// Empty.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    suffix: Option<&'a RawValue>,
    /// 0.
    #[serde(borrow)]
    #[schema(value_type = Option<f32>)]
    min_p: Option<&'a RawValue>,
    /// 1.
    #[serde(borrow)]
    #[schema(value_type = Option<f32>)]
    repetition_penalty: Option<&'a RawValue>,
    #[serde(default, rename = "parallel_tool_calls")]
    #[schema(value_type = Option<Value>)]
    _parallel_tool_calls: IgnoredAny,
    #[serde(default, rename = "prediction")]
    #[schema(value_type = Option<Value>)]
    _prediction: IgnoredAny,
    #[serde(default, rename = "user")]
    #[schema(value_type = Option<Value>)]
    _user: IgnoredAny,
    #[serde(default, rename = "store")]
    #[schema(value_type = Option<Value>)]
    _store: IgnoredAny,
    #[serde(default, rename = "metadata")]
    #[schema(value_type = Option<Value>)]
    _metadata: IgnoredAny,
    #[serde(default, rename = "service_tier")]
    #[schema(value_type = Option<Value>)]
    _service_tier: IgnoredAny,
    #[serde(default, rename = "safety_identifier")]
    #[schema(value_type = Option<Value>)]
    _safety_identifier: IgnoredAny,
    #[serde(default, rename = "prompt_cache_key")]
    #[schema(value_type = Option<Value>)]
    _prompt_cache_key: IgnoredAny,
    #[serde(default, rename = "prompt_cache_retention")]
    #[schema(value_type = Option<Value>)]
    _prompt_cache_retention: IgnoredAny,
}

#[derive(Deserialize, ToSchema)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Parses a body in `form`.
///
/// # Errors
///
/// 400 with the path of the invalid member.
pub(super) fn read(form: Form, body: &[u8]) -> Result<Asked, ApiError> {
    let body: Body<'_> = members::read(body)?;
    body.check(form)?;
    let (prompt, prefix_messages, default) = match form {
        Form::Chat => {
            let messages = turns::read(body.messages.unwrap_or_default())?;
            let turns = messages.len();
            (Prompt::Messages(messages), Some(turns), CHAT_TOKENS)
        }
        Form::Completion => (prompt(body.prompt)?, None, COMPLETION_TOKENS),
    };
    let params = Params {
        max_tokens: body.max_completion_tokens.or(body.max_tokens).unwrap_or(default),
        temperature: body.temperature.unwrap_or(1.0),
        top_p: body.top_p.unwrap_or(1.0),
        top_k: match body.top_k.unwrap_or(0) {
            -1 => 0,
            top_k => usize::try_from(top_k)
                .map_err(|_| at("top_k", &format!("is {top_k}, expected 1 or more, or 0 or -1 for all")))?,
        },
        seed: match body.seed {
            Some(seed) => seed.cast_unsigned(),
            None => random()?,
        },
        stop: body
            .stop
            .map(one_or_more)
            .transpose()
            .map_err(|message| at("stop", &message))?
            .unwrap_or_default(),
        logprobs: logprobs(form, body.logprobs, body.top_logprobs)?,
        prefix_messages,
        ..Params::default()
    };
    Ok(Asked {
        model: body.model,
        request: Request { prompt, choices: None, params },
        stream: body.stream.unwrap_or(false),
        include_usage: body.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
    })
}

impl Body<'_> {
    /// Rejects members of the other form, and unsupported members.
    fn check(&self, form: Form) -> Result<(), ApiError> {
        match (form, &self.messages, &self.prompt) {
            (Form::Chat, None, _) => return Err(at("messages", "is missing; expected an array of turns")),
            (Form::Chat, _, Some(_)) => return Err(at("prompt", "belongs to POST /v1/completions")),
            (Form::Completion, Some(_), _) => {
                return Err(at("messages", "belongs to POST /v1/chat/completions"));
            }
            (Form::Completion, _, None) => return Err(at("prompt", "is missing; expected a string")),
            _ => {}
        }
        if let Some(n) = self.n.filter(|n| *n != 1) {
            return Err(at("n", &format!("is {n}, expected 1; send the request again for another answer")));
        }
        let penalties =
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)];
        for (name, penalty) in penalties {
            if let Some(penalty) = penalty.filter(|penalty| *penalty != 0.0) {
                return Err(at(name, &format!("is {penalty}, expected 0: penalties are not applied here")));
            }
        }
        self.asks_no_more()
    }

    /// Rejects unsupported members that clients send by default, unless their values are neutral.
    fn asks_no_more(&self) -> Result<(), ApiError> {
        const TOOLS: &str =
            "none: the models call no tools here; describe them in a message, and read the answer";
        const CHOICE: &str = "`none` or `auto`: the models call no tools here; leave it out";
        const TEXT: &str = "`{\"type\": \"text\"}`: a format is not enforced here; ask for it in a message, and check \
                            the answer";
        let refuses_tools = self.tool_choice.is_some_and(|choice| is_word(choice, &["none"]));
        let choice: fn(&RawValue) -> bool = |value| is_word(value, &["none", "auto"]);
        [
            accepted("tools", self.tools.filter(|_| !refuses_tools), is_empty, TOOLS),
            accepted("tool_choice", self.tool_choice, choice, CHOICE),
            accepted("functions", self.functions, is_empty, TOOLS),
            accepted("function_call", self.function_call, choice, CHOICE),
            accepted("response_format", self.response_format, is_text_format, TEXT),
            accepted(
                "logit_bias",
                self.logit_bias,
                is_without_bias,
                "no bias: none is applied here; leave it out",
            ),
            accepted(
                "modalities",
                self.modalities,
                |value| serde_json::from_str::<[String; 1]>(value.get()).is_ok_and(|[only]| only == "text"),
                "`[\"text\"]`: the models write text alone",
            ),
            accepted("audio", self.audio, is_empty, "none: the models write text alone"),
            accepted(
                "web_search_options",
                self.web_search_options,
                |_| false,
                "none: the server searches nothing; leave it out",
            ),
            accepted(
                "reasoning_effort",
                self.reasoning_effort,
                |value| is_word(value, &["none", "minimal", "low", "medium"]),
                "`none`, `minimal`, `low` or `medium`: the models do not reason before they answer",
            ),
            accepted(
                "verbosity",
                self.verbosity,
                |value| is_word(value, &["medium"]),
                "`medium`: ask for short or long answers in a message",
            ),
            accepted(
                "best_of",
                self.best_of,
                |value| is_number(value, 1.0),
                "1; send the request again for another answer",
            ),
            accepted("echo", self.echo, is_empty, "false: put the prompt before the answer yourself"),
            accepted("suffix", self.suffix, is_empty, "none: texts are continued at their end alone"),
            accepted(
                "min_p",
                self.min_p,
                |value| is_number(value, 0.0),
                "0; `top_p` and `top_k` are applied here",
            ),
            accepted(
                "repetition_penalty",
                self.repetition_penalty,
                |value| is_number(value, 1.0),
                "1: penalties are not applied here",
            ),
        ]
        .iter()
        .try_for_each(|accepted| accepted.check(""))
    }
}

fn prompt(value: Option<&RawValue>) -> Result<Prompt, ApiError> {
    let refused = |message: String| at("prompt", &message);
    let Some(value) = value else { return Err(refused("is missing".to_owned())) };
    let inside = value.get().trim_start_matches('[').trim_start();
    if value.get().starts_with('[') && !inside.starts_with('"') {
        return parse(value).map(Prompt::Tokens).map_err(refused);
    }
    let mut texts = one_or_more(value).map_err(refused)?;
    match (texts.pop(), texts.is_empty()) {
        (Some(text), true) => Ok(Prompt::Text(text)),
        _ => {
            Err(refused("is an array of several; expected one string, or one array of token ids".to_owned()))
        }
    }
}

/// Parses a string, an array of strings, or null.
fn one_or_more(value: &RawValue) -> Result<Vec<String>, String> {
    match value.get().chars().next() {
        Some('"') => parse(value).map(|text| vec![text]),
        Some('n') => Ok(Vec::new()),
        _ => parse(value),
    }
}

/// Parses `logprobs`: for a chat a boolean and a separate number, for a completion the number.
fn logprobs(form: Form, wanted: Option<&RawValue>, top: Option<usize>) -> Result<Option<usize>, ApiError> {
    let refused = |message: String| at("logprobs", &message);
    match (form, wanted) {
        (Form::Chat, Some(value)) => {
            let wanted = parse::<Option<bool>>(value).map_err(refused)?.unwrap_or(false);
            Ok(wanted.then(|| top.unwrap_or(0)))
        }
        (Form::Completion, Some(value)) => parse::<Option<usize>>(value).map_err(refused),
        (_, None) => Ok(None),
    }
}

fn random() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|_| ApiError::internal("internal"))
}

#[cfg(test)]
mod tests {
    use infer_engine::Message;

    use super::*;

    #[test]
    fn both_forms_are_read() {
        let chat = r#"{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
            {"type": "text", "text": "b"}]}], "max_completion_tokens": 3, "temperature": 0, "seed": -1, "stop": "x",
            "logprobs": true, "top_logprobs": 2, "stream": true, "stream_options": {"include_usage": true}, "user": "u"}"#;
        let asked = read(Form::Chat, chat.as_bytes()).unwrap();
        let message = Message { role: "user".to_owned(), content: "ab".to_owned() };
        assert_eq!(asked.request.prompt, Prompt::Messages(vec![message]));
        let params = &asked.request.params;
        assert_eq!((params.max_tokens, params.seed, params.logprobs), (3, u64::MAX, Some(2)));
        assert_eq!(params.stop, ["x"]);
        assert!(asked.stream && asked.include_usage);
        let prompts = [
            (r#""a""#, Prompt::Text("a".to_owned())),
            (r#"["a"]"#, Prompt::Text("a".to_owned())),
            ("[1, 2]", Prompt::Tokens(vec![1, 2])),
        ];
        for (prompt, expected) in prompts {
            let body = format!(r#"{{"model": "m", "prompt": {prompt}, "logprobs": 1, "stop": null}}"#);
            let asked = read(Form::Completion, body.as_bytes()).unwrap();
            assert_eq!((asked.request.prompt, asked.request.params.logprobs), (expected, Some(1)));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let user = r#"{"role": "user", "content": "a"}"#;
        let cases = [
            (Form::Chat, r#""x": 1"#.to_owned(), "unknown field `x`"),
            (Form::Chat, r#""stream": false"#.to_owned(), "`messages` is missing"),
            (
                Form::Chat,
                r#""messages": [{"role": "user", "content": 7}]"#.to_owned(),
                "`messages[0].content` is `7`",
            ),
            (
                Form::Chat,
                r#""messages": [{"role": "user", "content": [{"type": "image_url"}]}]"#.to_owned(),
                "`messages[0].content[0]` has the type `image_url`",
            ),
            (Form::Chat, format!(r#""messages": [{user}], "n": 2"#), "`n` is 2, expected 1"),
            (
                Form::Chat,
                format!(r#""messages": [{user}], "presence_penalty": 1"#),
                "`presence_penalty` is 1",
            ),
            (Form::Chat, format!(r#""messages": [{user}], "tools": [1]"#), "`tools` is `[1]`, expected none"),
            (Form::Completion, r#""prompt": ["a", "b"]"#.to_owned(), "`prompt` is an array of several"),
            (Form::Completion, format!(r#""messages": [{user}]"#), "belongs to POST /v1/chat/completions"),
            (
                Form::Completion,
                r#""prompt": "a", "logprobs": true"#.to_owned(),
                "`logprobs` is not what is expected",
            ),
        ];
        for (form, members, expected) in cases {
            let error =
                read(form, format!(r#"{{"model": "m", {members}}}"#).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{members}: {error}");
        }
    }
}
