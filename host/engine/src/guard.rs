//! Guards: language models that judge texts by the answers to the questions of their card.
//!
//! A guard takes texts and returns scores, as text models do. The prompt is the model's own chat
//! template with the text as the user's turn, and all choices of a question are branches behind it,
//! so that the prompt is computed once. What it has in common with all texts, such as the taxonomy,
//! stays in the prefix cache.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::card::Question;
use crate::encoder::{Metadata, Text, TextRequest, json, named_rows, softmax, text_request};
use crate::language::{
    Answer, LanguageModel, Message, Output, Params, Prompt, Request, Session, THINKING, TemplateArguments,
    TokenUsage,
};
use crate::limits::{MAX_CHOICE_TOKENS, MAX_ENCODED_BYTES};
use crate::model::{LoadError, Reply, RunError};
use crate::tensor::Tensor;

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
    arguments: TemplateArguments,
    /// Tokens with which its prompt begins for any text.
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
        for Question { choices, template, .. } in questions {
            let arguments = serde_json::from_value(Value::Object(template.clone()));
            let arguments: TemplateArguments = arguments.map_err(|error| invalid(error.to_string()))?;
            // As for all scored choices.
            let arguments = arguments.with_default(THINKING, false);
            let prompt = |text: &str| {
                model.chat_tokens(&[user(text)], &arguments).map_err(|error| invalid(error.to_string()))
            };
            let (one, other) = (prompt("a")?, prompt("1. Some words")?);
            let shared = one.iter().zip(&other).take_while(|(one, other)| one == other).count();
            longest = longest.max(one.len() + MAX_CHOICE_TOKENS);
            asked.push(Asked { choices: choices.clone(), arguments, prefix: one[..shared].into() });
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
            let Turns { messages, tokens, is_truncated } = self.turns(text).await?;
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
                if !params.raw {
                    softmax(&mut values);
                }
                scores.extend(values);
            }
        }
        let outputs = vec![
            named_rows("scores", texts.len(), &scores).map_err(failed)?,
            ("metadata".to_owned(), json(&metadata).map_err(failed)?),
        ];
        Ok(cost.reply(outputs))
    }

    /// The turns of a text: the user's, or of a pair the user's and the assistant's.
    async fn turns(&self, text: &Text) -> Result<Turns, RunError> {
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
        for (part, role) in parts.iter().zip(["user", "assistant"]) {
            if part.len() > MAX_ENCODED_BYTES {
                let found = part.len();
                return Err(RunError::TooLarge {
                    model: self.name.clone(),
                    message: format!(
                        "a text has {found} bytes, expected at most {MAX_ENCODED_BYTES}; send it in pieces"
                    ),
                });
            }
            let (content, count) = self.model.beginning(part, self.room / parts.len()).await?;
            is_truncated |= content.len() < part.len();
            tokens += count;
            messages.push(Message { role: role.to_owned(), content });
        }
        Ok(Turns { messages, tokens, is_truncated })
    }
}

impl Asked {
    fn request(&self, messages: Vec<Message>) -> Request {
        let template_arguments = self.arguments.clone();
        Request {
            prompt: Prompt::Question { messages, prefix: self.prefix.clone() },
            choices: Some(self.choices.clone()),
            params: Params { pin: true, template_arguments, ..Params::default() },
        }
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

fn user(text: &str) -> Message {
    Message { role: "user".to_owned(), content: text.to_owned() }
}
