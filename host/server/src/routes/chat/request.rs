//! Parses a request for a chat turn or for a completion.

use infer_engine::{Params, Prompt, Request, TemplateArguments};
use serde_json::value::RawValue;

use super::body::Body;
use super::form::{Form, at, parse};
use super::format;
use super::turns;
use crate::error::ApiError;
use crate::routes::members;

/// Default limit on generated tokens of a chat turn, and of a completion; the latter is that of
/// OpenAI.
const CHAT_TOKENS: usize = 512;
const COMPLETION_TOKENS: usize = 16;

/// A parsed request.
#[derive(Debug)]
pub(super) struct ParsedRequest {
    pub(super) model: String,
    pub(super) request: Request,
    pub(super) stream: bool,
    /// In the last event of a stream.
    pub(super) include_usage: bool,
}

/// Parses a body in `form`.
///
/// # Errors
///
/// 400 with the path of the invalid member.
pub(super) fn read(form: Form, body: &[u8]) -> Result<ParsedRequest, ApiError> {
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
        format: format::read(body.response_format)?,
        template_arguments: body
            .chat_template_kwargs
            .map(|arguments| TemplateArguments::parse(arguments.get()))
            .transpose()
            .map_err(|message| at("chat_template_kwargs", &message))?
            .unwrap_or_default(),
        ..Params::default()
    };
    Ok(ParsedRequest {
        model: body.model,
        request: Request { prompt, choices: None, params },
        stream: body.stream.unwrap_or(false),
        include_usage: body.stream_options.and_then(|options| options.include_usage).unwrap_or(false),
    })
}

fn prompt(value: Option<&RawValue>) -> Result<Prompt, ApiError> {
    let invalid = |message: String| at("prompt", &message);
    let Some(value) = value else { return Err(invalid("is missing".to_owned())) };
    let inside = value.get().trim_start_matches('[').trim_start();
    if value.get().starts_with('[') && !inside.starts_with('"') {
        return parse(value).map(Prompt::Tokens).map_err(invalid);
    }
    let mut texts = one_or_more(value).map_err(invalid)?;
    match (texts.pop(), texts.is_empty()) {
        (Some(text), true) => Ok(Prompt::Text(text)),
        _ => {
            Err(invalid("is an array of several; expected one string, or one array of token ids".to_owned()))
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
fn logprobs(form: Form, requested: Option<&RawValue>, top: Option<usize>) -> Result<Option<usize>, ApiError> {
    let invalid = |message: String| at("logprobs", &message);
    match (form, requested) {
        (Form::Chat, Some(value)) => {
            let requested = parse::<Option<bool>>(value).map_err(invalid)?.unwrap_or(false);
            Ok(requested.then(|| top.unwrap_or(0)))
        }
        (Form::Completion, Some(value)) => parse::<Option<usize>>(value).map_err(invalid),
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
    fn both_forms_are_parsed() {
        let chat = r#"{"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"},
            {"type": "text", "text": "b"}]}], "max_completion_tokens": 3, "temperature": 0, "seed": -1, "stop": "x",
            "logprobs": true, "top_logprobs": 2, "chat_template_kwargs": {"enable_thinking": false}, "stream": true, "stream_options": {"include_usage": true}, "user": "u"}"#;
        let parsed = read(Form::Chat, chat.as_bytes()).unwrap();
        let message = Message { role: "user".to_owned(), content: "ab".to_owned() };
        assert_eq!(parsed.request.prompt, Prompt::Messages(vec![message]));
        let params = &parsed.request.params;
        assert_eq!((params.max_tokens, params.seed, params.logprobs), (3, u64::MAX, Some(2)));
        assert_eq!(params.stop, ["x"]);
        let arguments = TemplateArguments::parse(r#"{"enable_thinking": false}"#).unwrap();
        assert_eq!(params.template_arguments, arguments);
        assert!(parsed.stream && parsed.include_usage);
        let prompts = [
            (r#""a""#, Prompt::Text("a".to_owned())),
            (r#"["a"]"#, Prompt::Text("a".to_owned())),
            ("[1, 2]", Prompt::Tokens(vec![1, 2])),
        ];
        for (prompt, expected) in prompts {
            let body = format!(r#"{{"model": "m", "prompt": {prompt}, "logprobs": 1, "stop": null}}"#);
            let parsed = read(Form::Completion, body.as_bytes()).unwrap();
            assert_eq!((parsed.request.prompt, parsed.request.params.logprobs), (expected, Some(1)));
        }
    }

    #[test]
    fn invalid_member_is_named() {
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
            (
                Form::Chat,
                format!(r#""messages": [{user}], "chat_template_kwargs": {{"messages": []}}"#),
                "`chat_template_kwargs` sets `messages`",
            ),
            (
                Form::Completion,
                r#""prompt": "a", "chat_template_kwargs": {}"#.to_owned(),
                "`chat_template_kwargs` belongs to POST",
            ),
            (Form::Completion, r#""prompt": ["a", "b"]"#.to_owned(), "`prompt` is an array of several"),
            (Form::Completion, format!(r#""messages": [{user}]"#), "belongs to POST /v1/chat/completions"),
            (Form::Completion, r#""prompt": "a", "logprobs": true"#.to_owned(), "`logprobs` is invalid"),
        ];
        for (form, members, expected) in cases {
            let error =
                read(form, format!(r#"{{"model": "m", {members}}}"#).as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{members}: {error}");
        }
    }
}
