//! The members of both request bodies, and the checks of each form.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::alternatives::{OneOrMore, Prompts};
use super::form::{Form, at};
use super::format::ResponseFormat;
use super::turns::{Turn, Turns};
use super::unsupported::{is_empty, is_number, is_without_bias, is_word, unsupported};
use crate::error::ApiError;

/// The body of both forms; the members of a form are checked after parsing. Members that begin with
/// `_` are ignored, because none of their values changes the answer. Members of the type
/// [`RawValue`] from `tools` on are checked by [`Body::check_unsupported`].
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Body<'a> {
    /// The model's name in infer.toml.
    pub(super) model: String,
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Turn<'a>>>)]
    pub(super) messages: Option<Turns<'a>>,
    #[serde(borrow)]
    #[schema(value_type = Option<Prompts>)]
    pub(super) prompt: Option<&'a RawValue>,
    pub(super) max_tokens: Option<usize>,
    pub(super) max_completion_tokens: Option<usize>,
    pub(super) temperature: Option<f32>,
    pub(super) top_p: Option<f32>,
    /// -1 and 0 mean no limit.
    pub(super) top_k: Option<i64>,
    pub(super) seed: Option<i64>,
    #[serde(borrow)]
    #[schema(value_type = Option<OneOrMore>)]
    pub(super) stop: Option<&'a RawValue>,
    pub(super) stream: Option<bool>,
    pub(super) stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    #[schema(value_type = Option<Value>)]
    pub(super) logprobs: Option<&'a RawValue>,
    pub(super) top_logprobs: Option<usize>,
    /// Variables of the chat template, such as `enable_thinking` and `tools`; at most 64 KiB.
    #[serde(borrow)]
    #[schema(value_type = Option<Object>)]
    pub(super) chat_template_kwargs: Option<&'a RawValue>,
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
    #[serde(borrow)]
    #[schema(value_type = Option<ResponseFormat>)]
    pub(super) response_format: Option<&'a RawValue>,
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
pub(super) struct StreamOptions {
    pub(super) include_usage: Option<bool>,
}

impl Body<'_> {
    /// Rejects members of the other form, and unsupported members.
    pub(super) fn check(&self, form: Form) -> Result<(), ApiError> {
        match (form, &self.messages, &self.prompt) {
            (Form::Chat, None, _) => return Err(at("messages", "is missing; expected an array of turns")),
            (Form::Chat, _, Some(_)) => return Err(at("prompt", "belongs to POST /v1/completions")),
            (Form::Completion, Some(_), _) => {
                return Err(at("messages", "belongs to POST /v1/chat/completions"));
            }
            (Form::Completion, _, None) => return Err(at("prompt", "is missing; expected a string")),
            (Form::Completion, ..) if self.chat_template_kwargs.is_some() => {
                return Err(at("chat_template_kwargs", "belongs to POST /v1/chat/completions"));
            }
            _ => {}
        }
        if let Some(n) = self.n.filter(|n| *n != 1) {
            return Err(at("n", &format!("is {n}, expected 1; repeat the request for another answer")));
        }
        let penalties =
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)];
        for (name, penalty) in penalties {
            if let Some(penalty) = penalty.filter(|penalty| *penalty != 0.0) {
                return Err(at(name, &format!("is {penalty}, expected 0: penalties are not applied")));
            }
        }
        self.check_unsupported()
    }

    /// Rejects unsupported members that clients send by default, unless their values are neutral.
    fn check_unsupported(&self) -> Result<(), ApiError> {
        const TOOLS: &str = "none: the models call no tools; describe them in a message, and read the answer";
        const CHOICE: &str = "`none` or `auto`: the models call no tools; leave it out";
        let has_no_choice = self.tool_choice.is_some_and(|choice| is_word(choice, &["none"]));
        let choice: fn(&RawValue) -> bool = |value| is_word(value, &["none", "auto"]);
        [
            unsupported("tools", self.tools.filter(|_| !has_no_choice), is_empty, TOOLS),
            unsupported("tool_choice", self.tool_choice, choice, CHOICE),
            unsupported("functions", self.functions, is_empty, TOOLS),
            unsupported("function_call", self.function_call, choice, CHOICE),
            unsupported(
                "logit_bias",
                self.logit_bias,
                is_without_bias,
                "no bias: biases are not applied; leave it out",
            ),
            unsupported(
                "modalities",
                self.modalities,
                |value| serde_json::from_str::<[String; 1]>(value.get()).is_ok_and(|[only]| only == "text"),
                "`[\"text\"]`: the models write only text",
            ),
            unsupported("audio", self.audio, is_empty, "none: the models write only text"),
            unsupported(
                "web_search_options",
                self.web_search_options,
                |_| false,
                "none: the server has no web search; leave it out",
            ),
            unsupported(
                "reasoning_effort",
                self.reasoning_effort,
                |value| is_word(value, &["none", "minimal", "low", "medium"]),
                "`none`, `minimal`, `low` or `medium`: the models do not reason before they answer",
            ),
            unsupported(
                "verbosity",
                self.verbosity,
                |value| is_word(value, &["medium"]),
                "`medium`: ask for short or long answers in a message",
            ),
            unsupported(
                "best_of",
                self.best_of,
                |value| is_number(value, 1.0),
                "1; repeat the request for another answer",
            ),
            unsupported("echo", self.echo, is_empty, "false: prepend the prompt to the answer yourself"),
            unsupported("suffix", self.suffix, is_empty, "none: texts are continued only at their end"),
            unsupported(
                "min_p",
                self.min_p,
                |value| is_number(value, 0.0),
                "0; `top_p` and `top_k` are supported",
            ),
            unsupported(
                "repetition_penalty",
                self.repetition_penalty,
                |value| is_number(value, 1.0),
                "1: penalties are not applied",
            ),
        ]
        .iter()
        .try_for_each(|member| member.check(""))
    }
}
