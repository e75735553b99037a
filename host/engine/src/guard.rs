//! Guards: language models that judge texts by the answers to the questions of their card.
//!
//! A guard takes texts and returns scores, as text models do. The prompt is the model's own chat
//! template with the text as the user's turn, and all choices of a question are a tree behind it,
//! so that the prompt is computed once. What it has in common with all texts, such as the taxonomy,
//! stays in the prefix cache.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::card::Question;
use crate::encoder::{Metadata, Text, TextRequest, json, named_rows, softmax, text_request};
use crate::language::{
    Answer, LanguageModel, Message, Output, Params, Prompt, Request, Session, THINKING, TemplateArguments,
    TokenUsage,
};
use crate::limits::{MAX_CHOICE_TOKENS, MAX_ENCODED_BYTES};
use crate::model::{LoadError, Reply, RunError};
use crate::tensor::Tensor;

/// Roles of the turns of a pair; a text is a turn of the first.
const ROLES: [&str; 2] = ["user", "assistant"];

/// A loaded guard.
pub(crate) struct Guard {
    name: String,
    /// The model that answers.
    pub(crate) model: LanguageModel,
    questions: Vec<Asked>,
    /// Maximum number of tokens of a text.
    room: usize,
}

/// A question that is ready to be asked.
struct Asked {
    choices: Vec<String>,
    /// Label of each choice.
    labels: Vec<usize>,
    /// Label of the answer that nothing is wrong.
    clear: Option<usize>,
    /// Its prompts for texts and for pairs.
    forms: [Form; 2],
}

/// The form of a prompt.
struct Form {
    arguments: TemplateArguments,
    /// Tokens with which it begins for any text.
    prefix: Arc<[u32]>,
}

impl Guard {
    /// Prepares `model` for the questions of its card.
    ///
    /// # Errors
    ///
    /// When the file has no chat template, or the template leaves no room for a text.
    pub(crate) fn new(name: &str, model: LanguageModel, questions: &[Question]) -> Result<Self, LoadError> {
        let invalid = |message| LoadError::Guard { model: name.to_owned(), message };
        let (mut asked, mut longest) = (Vec::with_capacity(questions.len()), 0);
        for Question { labels, choices, clear, template, pair } in questions {
            let form = |variables: &Map<String, Value>, texts: [&[&str]; 2]| {
                let arguments = serde_json::from_value(Value::Object(variables.clone()));
                let arguments: TemplateArguments = arguments.map_err(|error| error.to_string())?;
                // As for all scored choices.
                let arguments = arguments.with_default(THINKING, false);
                let prompt = |texts: &[&str]| {
                    let tokens = model.chat_tokens(&turns(texts), &arguments);
                    tokens.map_err(|error| error.to_string())
                };
                let (one, other) = (prompt(texts[0])?, prompt(texts[1])?);
                let shared = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
                let prefix = one[..shared].into();
                Ok((Form { arguments, prefix }, one.len() + MAX_CHOICE_TOKENS))
            };
            let (single, length) = form(template, [&["a"], &["1. Some words"]]).map_err(invalid)?;
            longest = longest.max(length);
            let of_pair = pair.as_ref().unwrap_or(template);
            let pair = match form(of_pair, [&["a", "a"], &["1. Some words", "2. More words"]]) {
                Ok((pair, length)) => {
                    longest = longest.max(length);
                    pair
                }
                Err(error) if pair.is_some() => return Err(invalid(format!("`pair`: {error}"))),
                // The template takes no pairs, as a request with one will say.
                Err(_) => Form { arguments: single.arguments.clone(), prefix: Arc::default() },
            };
            if let Some([one, other]) = nested(&model, choices).map_err(|error| invalid(error.to_string()))? {
                return Err(invalid(format!(
                    "the tokens of the choice {other:?} begin with those of {one:?}, which then has the probability \
                     of both; end each with what the model writes behind it, such as a line feed"
                )));
            }
            let label = |(label, choices): (usize, &Vec<String>)| std::iter::repeat_n(label, choices.len());
            asked.push(Asked {
                choices: choices.concat(),
                labels: choices.iter().enumerate().flat_map(label).collect(),
                clear: clear.as_ref().and_then(|clear| labels.iter().position(|label| label == clear)),
                forms: [single, pair],
            });
        }
        let context = model.context();
        let room = context.checked_sub(longest).filter(|room| *room > 0).ok_or_else(|| {
            invalid(format!(
                "its prompt and answers take {longest} tokens, and the context has {context}; raise `context_tokens`"
            ))
        })?;
        Ok(Guard { name: name.to_owned(), model, questions: asked, room })
    }

    /// Implements [`crate::Model::run`] for texts: the probability of each choice among those of
    /// its question.
    pub(crate) async fn run(
        &self,
        session: &Session,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let TextRequest { texts, params } = text_request(&self.name, inputs)?;
        let failed = |message| RunError::Failed { model: self.name.clone(), message };
        let (mut scores, mut metadata, mut cost) = (Vec::new(), Metadata::default(), Cost::default());
        for (index, text) in texts.iter().enumerate() {
            let Turns { messages, tokens, is_truncated } = self.turns(text, deadline).await?;
            if is_truncated && !params.truncate {
                let room = self.room;
                let message =
                    format!("text {index} has {tokens} tokens, expected at most {room}; shorten it");
                return Err(RunError::InvalidInput { model: self.name.clone(), message });
            }
            metadata.tokens.push(tokens);
            metadata.known.push(tokens);
            metadata.windows.push(1);
            metadata.truncated.push(is_truncated);
            // The session finds the prompt of the first question again for the second.
            let mut session = session.clone();
            for question in &self.questions {
                let request = question.request(messages.clone());
                let answer = self.model.run(&mut session, request, None, deadline).await?;
                cost.add(&answer);
                let Output::Scores(mut values) = answer.output else {
                    return Err(failed("the answer has no scores".to_owned()));
                };
                scores.extend(question.scores(&mut values, params.raw));
            }
        }
        let outputs = vec![
            named_rows("scores", texts.len(), &scores).map_err(failed)?,
            ("metadata".to_owned(), json(&metadata).map_err(failed)?),
        ];
        Ok(cost.reply(outputs))
    }

    /// The turns of a text: the user's, or of a pair the user's and the assistant's.
    async fn turns(&self, text: &Text, deadline: Instant) -> Result<Turns, RunError> {
        let parts = match text {
            Text::Single(text) => vec![text],
            Text::Pair(user, assistant) => vec![user, assistant],
            Text::Tokens(_) => {
                return Err(RunError::InvalidInput {
                    model: self.name.clone(),
                    message: "a text is an array of token ids, expected a string or a pair of strings"
                        .to_owned(),
                });
            }
        };
        let (mut messages, mut tokens, mut is_truncated) = (Vec::new(), 0, false);
        for (part, role) in parts.iter().zip(ROLES) {
            if part.len() > MAX_ENCODED_BYTES {
                let found = part.len();
                return Err(RunError::TooLarge {
                    model: self.name.clone(),
                    message: format!(
                        "a text has {found} bytes, expected at most {MAX_ENCODED_BYTES}; send it in pieces"
                    ),
                });
            }
            let (content, count) = self.model.beginning(part, self.room / parts.len(), deadline).await?;
            is_truncated |= content.len() < part.len();
            tokens += count;
            messages.push(Message { role: role.to_owned(), content });
        }
        Ok(Turns { messages, tokens, is_truncated })
    }
}

impl Asked {
    fn request(&self, messages: Vec<Message>) -> Request {
        let Form { arguments, prefix } = &self.forms[messages.len() - 1];
        Request {
            prompt: Prompt::Question { messages, prefix: prefix.clone() },
            choices: Some(self.choices.clone()),
            params: Params { pin: true, template_arguments: arguments.clone(), ..Params::default() },
        }
    }

    /// The score of each label, from the log-probabilities of the choices. With `is_raw`, the
    /// log-probability of each label.
    fn scores(&self, logprobs: &mut [f32], is_raw: bool) -> Vec<f32> {
        if !is_raw {
            softmax(logprobs);
        }
        // The choices of a label are next to each other.
        let mut of_labels = self.labels.chunk_by(|one, other| one == other);
        let mut left = &*logprobs;
        let mut next = || left.split_off(..of_labels.next()?.len());
        let of_labels = std::iter::from_fn(&mut next);
        if is_raw {
            return of_labels.map(log_sum).collect();
        }
        // Rounding may lead beyond 1.
        let mut scores: Vec<f32> = of_labels.map(|values| values.iter().sum::<f32>().min(1.0)).collect();
        if let Some(clear) = self.clear {
            share(&mut scores, clear);
        }
        scores
    }
}

/// The first two choices of which one's tokens begin with the other's.
fn nested<'c>(model: &LanguageModel, choices: &'c [Vec<String>]) -> Result<Option<[&'c str; 2]>, RunError> {
    let choices = choices.iter().flatten().map(|choice| Ok((choice.as_str(), model.tokens(choice)?)));
    let choices = choices.collect::<Result<Vec<_>, _>>()?;
    let mut pairs = choices.iter().flat_map(|one| choices.iter().map(move |other| (one, other)));
    let found = pairs.find(|((one, first), (other, second))| one != other && second.starts_with(first));
    Ok(found.map(|((one, _), (other, _))| [*one, *other]))
}

/// The log-probability of any of several choices.
fn log_sum(logprobs: &[f32]) -> f32 {
    let max = logprobs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if max == f32::NEG_INFINITY {
        return max;
    }
    max + logprobs.iter().map(|logprob| (logprob - max).exp()).sum::<f32>().ln()
}

/// Gives the likeliest label other than `clear` the probability of all others together, and the
/// rest a part by their ratio to the likeliest.
fn share(scores: &mut [f32], clear: usize) {
    let others = || scores.iter().enumerate().filter(|(label, _)| *label != clear).map(|(_, score)| *score);
    let (all, likeliest) = (others().sum::<f32>(), others().fold(0.0, f32::max));
    if likeliest > 0.0 {
        let factor = all / likeliest;
        scores
            .iter_mut()
            .enumerate()
            .filter(|(label, _)| *label != clear)
            .for_each(|(_, score)| *score = (*score * factor).min(1.0));
    }
}

/// A text as turns of a chat.
struct Turns {
    messages: Vec<Message>,
    /// Number of tokens of the text, of which the turns may have only the beginning.
    tokens: usize,
    is_truncated: bool,
}

/// Total of the answers of a call.
#[derive(Default)]
struct Cost {
    usage: TokenUsage,
    queue: Duration,
    compute: Duration,
    batch: usize,
}

impl Cost {
    fn add(&mut self, answer: &Answer) {
        self.usage.prompt_tokens += answer.usage.prompt_tokens;
        self.usage.cached_tokens += answer.usage.cached_tokens;
        self.queue += answer.queue;
        self.compute += answer.compute;
        self.batch = self.batch.max(answer.batch);
    }

    fn reply(self, outputs: Vec<(String, Tensor)>) -> Reply {
        let Cost { usage, queue, compute, batch } = self;
        Reply { outputs, queue, compute, batch, usage: Some(usage) }
    }
}

/// The turns of a text or a pair.
fn turns(texts: &[&str]) -> Vec<Message> {
    let turn = |(text, role): (&&str, &str)| Message { role: role.to_owned(), content: (*text).to_owned() };
    texts.iter().zip(ROLES).map(turn).collect()
}
