//! From a request to tokens.
//!
//! The part of a prompt that choices cannot change is tokenized once; each choice is tokenized
//! together with the last word or turn only. That word may have other tokens when a choice follows
//! it, so the prompt ends where the tokens of the first choice differ.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::job::Work;
use super::request::{Message, Params, Prompt, Request};
use super::scheduler::Shared;
use super::tokenizer::{Open, TokenizerError};
use crate::limits::MAX_CHOICE_TOKENS;
use crate::text::{QUOTE_BYTES, excerpt};

/// The inputs of the conversion.
pub(super) struct Preparation {
    pub(super) shared: Arc<Shared>,
    /// Tokens of the session, which precede text and tokens of the request.
    pub(super) before: Vec<u32>,
    pub(super) context: usize,
    pub(super) vocabulary: usize,
    pub(super) deadline: Instant,
    /// Dropped when the caller leaves.
    pub(super) caller: Weak<()>,
}

/// A request in tokens.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The whole prompt, which the session holds afterwards.
    pub(super) session_tokens: Vec<u32>,
    /// The part that is computed before the choices or the answer.
    pub(super) prompt: Vec<u32>,
    /// Number of its leading tokens that other sessions of the component may reuse.
    pub(super) declared: usize,
    /// Pins these tokens in the prefix cache.
    pub(super) pin: bool,
    pub(super) work: Work,
}

/// Reason that there are no tokens.
#[derive(Debug)]
pub(super) enum PrepareError {
    /// The request is invalid; the message is one sentence.
    Invalid(String),
    /// The deadline has passed, or the caller has left.
    Expired,
}

impl From<String> for PrepareError {
    fn from(message: String) -> Self {
        PrepareError::Invalid(message)
    }
}

impl From<TokenizerError> for PrepareError {
    fn from(error: TokenizerError) -> Self {
        PrepareError::Invalid(error.to_string())
    }
}

impl Preparation {
    pub(super) fn run(&self, request: &Request) -> Result<Prepared, PrepareError> {
        let tokenizer = &self.shared.tokenizer;
        let open = self.open(request)?;
        let last = tokenizer.close(&open, "")?;
        let session_tokens = [&open.tokens[..], &last].concat();
        if session_tokens.is_empty() {
            return Err("the prompt has no tokens".to_owned().into());
        }
        self.check_length(session_tokens.len())?;
        self.check_time()?;
        let (prompt, work) = match &request.choices {
            None => {
                let room = self.context - session_tokens.len();
                let max_tokens = request.params.max_tokens.min(room);
                (session_tokens.clone(), Work::Generate(Params { max_tokens, ..request.params.clone() }))
            }
            Some(choices) => {
                let answer = match &request.prompt {
                    Prompt::Messages(messages) if !request.params.continues => {
                        let turn = Message { role: "assistant".to_owned(), content: String::new() };
                        Some(tokenizer.open_chat(&[&messages[..], &[turn]].concat(), true)?)
                    }
                    _ => None,
                };
                let (shared, branches) =
                    self.branches(answer.as_ref().unwrap_or(&open), &session_tokens, choices)?;
                (session_tokens[..shared].to_vec(), Work::Score(branches))
            }
        };
        let declared = self.declared(request, &prompt)?;
        Ok(Prepared { session_tokens, prompt, declared, pin: request.params.pin, work })
    }

    /// The prompt, with an open end.
    fn open(&self, request: &Request) -> Result<Open, PrepareError> {
        let tokenizer = &self.shared.tokenizer;
        let mut tokens = self.before.clone();
        Ok(match &request.prompt {
            Prompt::Messages(messages) => tokenizer.open_chat(messages, request.params.continues)?,
            Prompt::Question { messages, .. } => tokenizer.open_chat(messages, false)?,
            Prompt::Text(text) => {
                let continues = !tokens.is_empty();
                if !continues {
                    tokens.extend(tokenizer.bos());
                }
                tokenizer.open(tokens, text, continues)?
            }
            Prompt::Tokens(ids) => {
                self.check_length(tokens.len() + ids.len())?;
                if let Some(unknown) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
                    let vocabulary = self.vocabulary;
                    return Err(format!(
                        "`tokens`: {unknown} is not below the vocabulary size, {vocabulary}"
                    )
                    .into());
                }
                tokens.extend(ids);
                tokenizer.open(tokens, "", true)?
            }
        })
    }

    /// Number of prompt tokens that precede every choice, and the tokens of each choice after them.
    fn branches(
        &self,
        open: &Open,
        session_tokens: &[u32],
        choices: &[String],
    ) -> Result<(usize, Vec<Vec<u32>>), PrepareError> {
        let head = &open.tokens;
        self.check_length(head.len())?;
        let common_head = common(head, session_tokens);
        let mut tails = Vec::with_capacity(choices.len());
        let mut shared = session_tokens.len();
        for choice in choices {
            self.check_time()?;
            let tail = self.shared.tokenizer.close(open, choice)?;
            let all = if common_head < head.len() {
                common_head
            } else {
                common_head + common(&tail, &session_tokens[common_head..])
            };
            if all == 0 {
                let choice = excerpt(choice, QUOTE_BYTES);
                return Err(format!(
                    "choice `{choice}` merges with the whole prompt into one token, so that no prompt is \
                     left; use a longer prompt, or another beginning of the choice"
                )
                .into());
            }
            shared = shared.min(all);
            tails.push(tail);
            self.check_branch(head.len() + tails[tails.len() - 1].len(), shared, choice)?;
        }
        let branch = |(choice, tail): (&String, Vec<u32>)| {
            self.check_branch(head.len() + tail.len(), shared, choice)?;
            let skip = shared.saturating_sub(head.len());
            Ok([&head[shared.min(head.len())..], &tail[skip..]].concat())
        };
        let branches = choices.iter().zip(tails).map(branch).collect::<Result<_, PrepareError>>()?;
        Ok((shared, branches))
    }

    /// Checks the length of a choice, and of the prompt together with it.
    fn check_branch(&self, tokens: usize, shared: usize, choice: &str) -> Result<(), PrepareError> {
        let own = tokens - shared;
        if own == 0 {
            let choice = excerpt(choice, QUOTE_BYTES);
            return Err(format!("choice `{choice}` adds no token to the prompt").into());
        }
        if own > MAX_CHOICE_TOKENS {
            return Err(format!("a choice has {own} tokens, expected at most {MAX_CHOICE_TOKENS}").into());
        }
        if tokens > self.context {
            return Err(format!(
                "prompt and choice have {tokens} tokens, expected at most the {} of the context",
                self.context
            )
            .into());
        }
        Ok(())
    }

    /// Number of leading tokens of the prompt that the request declares as a shared prefix.
    fn declared(&self, request: &Request, prompt: &[u32]) -> Result<usize, PrepareError> {
        let Params { pin, prefix_messages, .. } = request.params;
        Ok(match (prefix_messages, &request.prompt) {
            (_, Prompt::Question { prefix, .. }) => common(prefix, prompt),
            (Some(0), _) => 0,
            (Some(first), Prompt::Messages(messages)) => {
                let prefix = &messages[..first.min(messages.len())];
                common(&self.shared.tokenizer.encode_chat(prefix, false)?, prompt)
            }
            _ if pin => prompt.len(),
            _ => 0,
        })
    }

    fn check_length(&self, tokens: usize) -> Result<(), PrepareError> {
        if tokens >= self.context {
            let context = self.context;
            let message =
                format!("the prompt has {tokens} tokens, expected fewer than the {context} of the context");
            return Err(message.into());
        }
        Ok(())
    }

    fn check_time(&self) -> Result<(), PrepareError> {
        match Instant::now() >= self.deadline || self.caller.strong_count() == 0 {
            true => Err(PrepareError::Expired),
            false => Ok(()),
        }
    }
}

fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
