//! Requests to a language model, and its answers.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::Value;

use crate::limits::{MAX_CHOICES, MAX_LOGPROBS, MAX_STOP_BYTES, MAX_STOPS};

pub use super::template::TemplateArguments;
pub use crate::model::TokenUsage;

/// A prompt and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The input that precedes the answer.
    pub prompt: Prompt,
    /// Choices to score instead of generating text; at most 64, each of at most 64 tokens.
    pub choices: Option<Vec<String>>,
    /// Parameters of generation and of the prompt.
    pub params: Params,
}

/// The input that precedes the answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Plain text. Control tokens in it are treated as text.
    Text(String),
    /// Turns of a conversation, formatted by the model's chat template.
    Messages(Vec<Message>),
    /// Token ids of the vocabulary, including control tokens.
    Tokens(Vec<u32>),
    /// Turns that a guard judges, formatted by the model's chat template. The choices follow the
    /// formatted prompt directly, rather than as a further turn.
    Question {
        /// Turns of the conversation.
        messages: Vec<Message>,
        /// Tokens with which prompts of the guard begin. Other sessions of the component may reuse
        /// them.
        prefix: Arc<[u32]>,
    },
}

/// One turn of a chat.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Role of the speaker: `system`, `developer`, `user`, `assistant` or `tool`.
    pub role: String,
    /// Plain text. Control tokens in it are treated as text.
    pub content: String,
}

/// Parameters of generation and of the prompt.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// Maximum number of generated tokens.
    pub max_tokens: usize,
    /// 0 selects the most likely token (greedy); 1 samples from the model's distribution.
    pub temperature: f32,
    /// Samples from the smallest set of most likely tokens with this total probability; 1 means
    /// all.
    pub top_p: f32,
    /// Samples from this number of most likely tokens; 0 means all.
    pub top_k: usize,
    /// Seed of the sampler; the same seed gives the same draws.
    pub seed: u64,
    /// Strings that end the answer and are not part of it; at most 16.
    #[serde(deserialize_with = "stops")]
    pub stop: Vec<String>,
    /// With text or tokens: appends them to the tokens of the session. With messages: leaves the
    /// last turn open.
    #[serde(rename = "continue")]
    pub continues: bool,
    /// Pins the prompt's shared prefix in the cache. Without `prefix_messages`, the prefix is the
    /// whole prompt.
    pub pin: bool,
    /// With messages: number of leading messages that form a prefix of many requests. Every session
    /// of the component may reuse it. The rest of the prompt, or the whole prompt without this and
    /// `pin`, is reused by its own session only.
    pub prefix_messages: Option<usize>,
    /// With `prefix_messages`: number of leading bytes of the next message that belong to the
    /// prefix, except for a last token that depends on what follows.
    pub prefix_bytes: usize,
    /// With choices: scores each one only up to the first token that no other choice has there.
    pub distinct: bool,
    /// With messages: further variables of the chat template. With choices, `enable_thinking` is
    /// false unless this sets it.
    #[serde(rename = "chat_template_kwargs")]
    pub template_arguments: TemplateArguments,
    /// Format of the answer; `None` for any text. Guests cannot set it: they score choices.
    #[serde(skip)]
    pub format: Option<AnswerFormat>,
    /// Reports the log-probability of each token of an answer, and of this number of most likely
    /// alternatives; at most 20. Guests cannot set it: they score choices.
    #[serde(skip)]
    pub logprobs: Option<usize>,
}

/// Format of an answer.
#[derive(Clone, Debug, PartialEq)]
pub enum AnswerFormat {
    /// A JSON object.
    JsonObject,
    /// JSON that a JSON Schema accepts.
    JsonSchema(Value),
    /// One of these texts.
    Choice(Vec<String>),
}

/// A list of at most `MAX` items. Reading stops at the first item beyond that.
pub(super) struct List<T, const MAX: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX} items")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
                let mut all = Vec::new();
                while let Some(item) = items.next_element()? {
                    if all.len() == MAX {
                        return Err(A::Error::invalid_length(MAX + 1, &self));
                    }
                    all.push(item);
                }
                Ok(all)
            }
        }
        deserializer.deserialize_seq(Items::<T, MAX>(PhantomData)).map(List)
    }
}

fn stops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    List::<String, { MAX_STOPS.max() }>::deserialize(deserializer).map(|List(stops)| stops)
}

impl Default for Params {
    /// At most 256 tokens, greedy, without stop strings and pins.
    fn default() -> Self {
        Params {
            max_tokens: 256,
            temperature: 0.0,
            top_p: 1.0,
            top_k: 0,
            seed: 0,
            stop: Vec::new(),
            continues: false,
            pin: false,
            prefix_messages: None,
            prefix_bytes: 0,
            distinct: false,
            template_arguments: TemplateArguments::default(),
            format: None,
            logprobs: None,
        }
    }
}

/// The answer of a language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Log-probabilities or text.
    pub output: Output,
    /// Tokens used.
    pub usage: TokenUsage,
    /// Time from the request to the start of its computation.
    pub queue: Duration,
    /// Total duration of the passes that the request was part of.
    pub compute: Duration,
    /// Maximum rows of one of these passes, including those of other requests.
    pub batch: usize,
}

/// Log-probabilities or text.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Natural logarithm of the probability of each choice, in their order; of the part that tells
    /// it from the others with [`Params::distinct`].
    Scores(Vec<f32>),
    /// Generated text.
    Text {
        /// The text, without a stop string.
        text: String,
        /// Its tokens, without the one that ended it.
        tokens: Vec<u32>,
        /// Reason that it ended.
        finish: Finish,
        /// One entry for each token of `text`; empty unless `logprobs` is set.
        logprobs: Vec<TokenLogprob>,
    },
}

/// A token of an answer, and its log-probability in the model's own distribution, before
/// temperature and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Byte offset in the text of the answer. A token that continues a character has the offset of
    /// that character.
    pub start: usize,
    /// The bytes of the token; they may end within a character.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens at this position in descending order, as bytes and log-probability.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// A part of an answer that is streamed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Complete characters. None of them becomes part of a stop string.
    pub text: String,
    /// Entries of the tokens that begin in this part; empty unless `logprobs` is set.
    pub logprobs: Vec<TokenLogprob>,
    /// Usage so far: the tokens since the piece before are those of this one.
    pub usage: TokenUsage,
}

/// Reason that an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn.
    End,
    /// The text contains a stop string.
    Stop,
    /// `max_tokens`, or the model's context, was reached.
    Length,
}

impl Finish {
    /// `end`, `stop` or `length`.
    pub fn name(self) -> &'static str {
        match self {
            Finish::End => "end",
            Finish::Stop => "stop",
            Finish::Length => "length",
        }
    }
}

impl Request {
    /// Checks everything that does not depend on the model.
    ///
    /// # Errors
    ///
    /// One sentence that names the value that is out of range.
    pub(super) fn check(&self) -> Result<(), String> {
        let Params { max_tokens, temperature, top_p, stop, logprobs, .. } = &self.params;
        let Params { prefix_messages, prefix_bytes, distinct, .. } = &self.params;
        if *max_tokens == 0 {
            return Err("`max_tokens` is 0, expected at least 1".to_owned());
        }
        if !(0.0..=100.0).contains(temperature) {
            return Err(format!("`temperature` is {temperature}, expected 0 to 100"));
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return Err(format!("`top_p` is {top_p}, expected above 0 and at most 1"));
        }
        MAX_STOPS.check("`stop`", stop.len())?;
        if stop.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            return Err(format!("a `stop` string is empty or longer than {MAX_STOP_BYTES} bytes"));
        }
        if let Some(top) = logprobs.filter(|top| *top > MAX_LOGPROBS) {
            return Err(format!("`logprobs` is {top}, expected at most {MAX_LOGPROBS}"));
        }
        if prefix_messages.is_some() && !matches!(self.prompt, Prompt::Messages(_)) {
            return Err("`prefix_messages` requires `messages`".to_owned());
        }
        if *prefix_bytes > 0 && prefix_messages.is_none() {
            return Err("`prefix_bytes` requires `prefix_messages`".to_owned());
        }
        if *distinct && self.choices.is_none() {
            return Err("`distinct` requires `choices`".to_owned());
        }
        match &self.choices {
            Some(choices) if choices.is_empty() || choices.len() > MAX_CHOICES => {
                Err(format!("`choices` has {} strings, expected 1 to {MAX_CHOICES}", choices.len()))
            }
            Some(choices) if choices.iter().any(String::is_empty) => {
                Err("a string of `choices` is empty".to_owned())
            }
            _ => Ok(()),
        }
    }
}
