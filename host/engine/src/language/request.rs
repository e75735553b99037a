//! What is asked of a language model, and what it answers.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};

pub use super::tokenizer::Message;
pub use crate::model::TokenUsage;

/// The most choices of one request.
pub(super) const MAX_CHOICES: usize = 64;

/// The most tokens of one choice.
pub(super) const MAX_CHOICE_TOKENS: usize = 64;

/// The most stop strings of one request, and the most bytes of each.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;

/// The most tokens of which an answer says, in place of each of its own, how likely they were.
const MAX_TOP: usize = 20;

/// A prompt, and what is wanted for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What comes before the answer.
    pub prompt: Prompt,
    /// Score these instead of generating text; at most 64, each at most 64 tokens.
    pub choices: Option<Vec<String>>,
    /// How to generate, and how the prompt is treated.
    pub params: Params,
}

/// What comes before the answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// Text as it is; control tokens in it are text.
    Text(String),
    /// Turns of a conversation, put through the model's chat template.
    Messages(Vec<Message>),
    /// The vocabulary's ids, control tokens included.
    Tokens(Vec<u32>),
}

/// How to generate, and how the prompt is treated.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Params {
    /// The most tokens that are generated.
    pub max_tokens: usize,
    /// 0 takes the likeliest token each time; 1 draws from the model's own distribution.
    pub temperature: f32,
    /// Draw only from the likeliest tokens that together have this probability; 1 is all.
    pub top_p: f32,
    /// Draw only from so many likeliest tokens; 0 is all.
    pub top_k: usize,
    /// Equal seeds draw equally.
    pub seed: u64,
    /// Text that ends the answer and is not part of it; at most 16.
    #[serde(deserialize_with = "stops")]
    pub stop: Vec<String>,
    /// With text or tokens: they come after what the session holds. With messages: the last turn is
    /// left open.
    #[serde(rename = "continue")]
    pub continues: bool,
    /// Keep the prompt's prefix computed before others when room is short. Without
    /// `prefix_messages` it is all of the prompt.
    pub pin: bool,
    /// With messages: so many of the first are a prefix of many requests, which every session of
    /// the component may find computed. What comes after them, and a prompt with neither this nor
    /// `pin`, is found by its own session alone.
    pub prefix_messages: Option<usize>,
    /// Say of each token of an answer how likely it was, and of so many of the likeliest in its
    /// place; at most 20. Guests cannot ask for it: they score choices.
    #[serde(skip)]
    pub logprobs: Option<usize>,
}

/// A list of at most `MAX` items: reading ends at the first one too many.
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
    List::<String, MAX_STOPS>::deserialize(deserializer).map(|List(stops)| stops)
}

impl Default for Params {
    /// The likeliest 256 tokens, nothing stopped, nothing pinned.
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
            logprobs: None,
        }
    }
}

/// What a language model answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Log-probabilities or text.
    pub output: Output,
    /// What it took.
    pub usage: TokenUsage,
    /// From the request until its computation began.
    pub queue: Duration,
    /// How long the passes took that it was part of.
    pub compute: Duration,
    /// The most rows of one of these passes, those of other requests included.
    pub batch: usize,
}

/// Log-probabilities or text.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// The natural logarithm of each whole choice's probability, in their order.
    Scores(Vec<f32>),
    /// An answer.
    Text {
        /// What was generated, without a stop string.
        text: String,
        /// Its tokens, without the one that ended it.
        tokens: Vec<u32>,
        /// Why it ended.
        finish: Finish,
        /// Of each token that is part of `text`; empty unless `logprobs` asks for them.
        logprobs: Vec<TokenLogprob>,
    },
}

/// A token of an answer, and how likely the model found it, by its own distribution: before
/// temperature and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Where in the answer's text it begins, in bytes; one that goes on with a character begins
    /// where the character does.
    pub start: usize,
    /// What it stands for in the text; it may end within a character.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens in its place, in falling order, with the same of theirs.
    pub top: Vec<(Vec<u8>, f32)>,
}

/// A part of an answer as it comes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Whole characters; none of them will turn out to be part of a stop string.
    pub text: String,
    /// Of the tokens that begin in it; empty unless `logprobs` asks for them.
    pub logprobs: Vec<TokenLogprob>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended its turn.
    End,
    /// A stop string came.
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
    /// Look at everything that can be judged without the model.
    ///
    /// # Errors
    ///
    /// What is out of range, in a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let Params { max_tokens, temperature, top_p, stop, prefix_messages, logprobs, .. } = &self.params;
        if *max_tokens == 0 {
            return Err("`max_tokens` is 0, expected at least 1".to_owned());
        }
        if !(0.0..=100.0).contains(temperature) {
            return Err(format!("`temperature` is {temperature}, expected 0 to 100"));
        }
        if !(*top_p > 0.0 && *top_p <= 1.0) {
            return Err(format!("`top_p` is {top_p}, expected above 0 and at most 1"));
        }
        if stop.len() > MAX_STOPS {
            return Err(format!("`stop` has {} strings, expected at most {MAX_STOPS}", stop.len()));
        }
        if stop.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            return Err(format!("a `stop` string is empty or above {MAX_STOP_BYTES} bytes"));
        }
        if let Some(top) = logprobs.filter(|top| *top > MAX_TOP) {
            return Err(format!("`logprobs` asks for {top} tokens, expected at most {MAX_TOP}"));
        }
        if prefix_messages.is_some() && !matches!(self.prompt, Prompt::Messages(_)) {
            return Err("`prefix_messages` is given without `messages`".to_owned());
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
