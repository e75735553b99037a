//! Reading a request for a chat's next turn, or for a text's continuation.

use infer_engine::text::{MESSAGE_BYTES, QUOTE_BYTES, excerpt, excerpt_of};
use infer_engine::{Message, Params, Prompt, Request};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Form;
use super::schema::{Content, OneOrMore, Prompts};
use crate::error::ApiError;

/// Tokens of an answer whose request does not say how many: of a turn, and, as OpenAI has it, of a continuation.
const CHAT_TOKENS: usize = 512;
const COMPLETION_TOKENS: usize = 16;

/// What a body asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) request: Request,
    pub(super) stream: bool,
    /// In the last event of a stream.
    pub(super) include_usage: bool,
}

/// Both forms in one: which members a form has is looked at afterwards. Those that begin with `_` change no answer here.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Body<'a> {
    /// Its name in infer.toml.
    model: String,
    #[serde(borrow)]
    messages: Option<Vec<Turn<'a>>>,
    #[serde(borrow)]
    #[schema(value_type = Option<Prompts>)]
    prompt: Option<&'a RawValue>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
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
}

#[derive(Deserialize, ToSchema)]
#[schema(as = AskedTurn)]
#[serde(deny_unknown_fields)]
struct Turn<'a> {
    /// One that the model's chat template knows, such as `system`, `user` and `assistant`.
    role: String,
    #[serde(borrow)]
    #[schema(value_type = Content)]
    content: &'a RawValue,
    #[serde(default, rename = "name")]
    #[schema(value_type = Option<Value>)]
    _name: IgnoredAny,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = TurnPart)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    /// `text`.
    r#type: String,
    text: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// A body in `form`.
///
/// # Errors
///
/// 400 with the path of what is wrong.
pub(super) fn read(form: Form, body: &[u8]) -> Result<Asked, ApiError> {
    let body: Body<'_> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid("", format_args!("the body is not what is expected: {error}")))?;
    body.check(form)?;
    let (prompt, prefix_messages, default) = match form {
        Form::Chat => {
            let messages = messages(body.messages.unwrap_or_default())?;
            let turns = messages.len();
            (Prompt::Messages(messages), Some(turns), CHAT_TOKENS)
        }
        Form::Completion => (prompt(body.prompt)?, None, COMPLETION_TOKENS),
    };
    let params = Params {
        max_tokens: body.max_completion_tokens.or(body.max_tokens).unwrap_or(default),
        temperature: body.temperature.unwrap_or(1.0),
        top_p: body.top_p.unwrap_or(1.0),
        top_k: body.top_k.unwrap_or(0),
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
        include_usage: body.stream_options.is_some_and(|options| options.include_usage),
    })
}

impl Body<'_> {
    /// Members of the other form, and what is not done here.
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
        Ok(())
    }
}

fn at(name: &str, message: &str) -> ApiError {
    ApiError::invalid(name, format!("`{name}` {message}"))
}

fn messages(turns: Vec<Turn<'_>>) -> Result<Vec<Message>, ApiError> {
    let message = |(index, turn): (usize, Turn<'_>)| {
        let content =
            content(turn.content).map_err(|message| at(&format!("messages[{index}].content"), &message))?;
        Ok(Message { role: turn.role, content })
    };
    turns.into_iter().enumerate().map(message).collect()
}

/// A turn's text, from a string or from parts.
fn content(value: &RawValue) -> Result<String, String> {
    const EXPECTED: &str =
        "expected a string, or an array of parts such as {\"type\": \"text\", \"text\": \"…\"}";
    if value.get().starts_with('"') {
        return parse(value);
    }
    if !value.get().starts_with('[') {
        return Err(format!("is `{}`; {EXPECTED}", excerpt(value.get(), QUOTE_BYTES)));
    }
    let mut text = String::new();
    for part in parse::<Vec<Part>>(value)? {
        let Part { r#type, text: Some(more) } = part else {
            return Err(format!(
                "has a part of the type `{}` without `text`; {EXPECTED}",
                excerpt(&part.r#type, QUOTE_BYTES)
            ));
        };
        if r#type != "text" {
            return Err(format!("has a part of the type `{}`; {EXPECTED}", excerpt(&r#type, QUOTE_BYTES)));
        }
        text.push_str(&more);
    }
    Ok(text)
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

/// A string, an array of strings, or null.
fn one_or_more(value: &RawValue) -> Result<Vec<String>, String> {
    match value.get().chars().next() {
        Some('"') => parse(value).map(|text| vec![text]),
        Some('n') => Ok(Vec::new()),
        _ => parse(value),
    }
}

/// Of a chat a boolean, and a number beside it; of a continuation the number.
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

fn parse<T: DeserializeOwned>(value: &RawValue) -> Result<T, String> {
    serde_json::from_str(value.get())
        .map_err(|error| format!("is not what is expected: {}", excerpt_of(error, MESSAGE_BYTES)))
}

fn random() -> Result<u64, ApiError> {
    getrandom::u64().map_err(|_| ApiError::internal("internal"))
}

#[cfg(test)]
mod tests {
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
                "has a part of the type `image_url`",
            ),
            (Form::Chat, format!(r#""messages": [{user}], "n": 2"#), "`n` is 2, expected 1"),
            (
                Form::Chat,
                format!(r#""messages": [{user}], "presence_penalty": 1"#),
                "`presence_penalty` is 1",
            ),
            (Form::Chat, format!(r#""messages": [{user}], "tools": []"#), "unknown field `tools`"),
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
