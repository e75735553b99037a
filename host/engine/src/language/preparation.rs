//! From a request to tokens.
//!
//! What choices have before them is split once; a choice is encoded with the last word or turn
//! alone. That word's letters may become other tokens with a choice behind them, so what all
//! choices leave as it is counts as the prompt.

use std::sync::{Arc, Weak};
use std::time::Instant;

use super::job::Work;
use super::request::{MAX_CHOICE_TOKENS, Message, Params, Prompt, Request};
use super::scheduler::Shared;
use super::tokenizer::{Open, TokenizerError};
use crate::text::{QUOTE_BYTES, excerpt};

/// What turns a request into tokens.
pub(super) struct Preparation {
    pub(super) shared: Arc<Shared>,
    /// The session's tokens, which text and tokens come after.
    pub(super) before: Vec<u32>,
    pub(super) context: usize,
    pub(super) vocabulary: usize,
    pub(super) deadline: Instant,
    /// Gone once nobody waits for the tokens.
    pub(super) caller: Weak<()>,
}

/// A request in tokens.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The whole prompt, which the session holds afterwards.
    pub(super) said: Vec<u32>,
    /// What is computed before choices, or before the answer.
    pub(super) prompt: Vec<u32>,
    /// How many of its first tokens other sessions of the component may find.
    pub(super) declared: usize,
    /// Whether to pin these.
    pub(super) pin: bool,
    pub(super) work: Work,
}

/// Why there are no tokens.
#[derive(Debug)]
pub(super) enum Unprepared {
    /// The request is at fault, in a sentence.
    Invalid(String),
    /// The deadline has passed, or the caller has gone.
    Late,
}

impl From<String> for Unprepared {
    fn from(message: String) -> Self {
        Unprepared::Invalid(message)
    }
}

impl From<TokenizerError> for Unprepared {
    fn from(error: TokenizerError) -> Self {
        Unprepared::Invalid(error.to_string())
    }
}

impl Preparation {
    pub(super) fn run(&self, request: &Request) -> Result<Prepared, Unprepared> {
        let tokenizer = &self.shared.tokenizer;
        let open = self.open(request)?;
        let last = tokenizer.close(&open, "")?;
        let said = [&open.tokens[..], &last].concat();
        if said.is_empty() {
            return Err("the prompt has no tokens".to_owned().into());
        }
        self.check_length(said.len())?;
        self.check_time()?;
        let (prompt, work) = match &request.choices {
            None => {
                let room = self.context - said.len();
                let max_tokens = request.params.max_tokens.min(room);
                (said.clone(), Work::Generate(Params { max_tokens, ..request.params.clone() }))
            }
            Some(choices) => {
                let answer = match &request.prompt {
                    Prompt::Messages(messages) if !request.params.continues => {
                        let turn = Message { role: "assistant".to_owned(), content: String::new() };
                        Some(tokenizer.open_chat(&[&messages[..], &[turn]].concat(), true)?)
                    }
                    _ => None,
                };
                let (shared, branches) = self.branches(answer.as_ref().unwrap_or(&open), &said, choices)?;
                (said[..shared].to_vec(), Work::Score(branches))
            }
        };
        let declared = self.declared(request, &prompt)?;
        Ok(Prepared { said, prompt, declared, pin: request.params.pin, work })
    }

    /// The prompt, open at its end.
    fn open(&self, request: &Request) -> Result<Open, Unprepared> {
        let tokenizer = &self.shared.tokenizer;
        let mut tokens = self.before.clone();
        Ok(match &request.prompt {
            Prompt::Messages(messages) => tokenizer.open_chat(messages, request.params.continues)?,
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
                    return Err(
                        format!("`tokens`: {unknown} is not below the vocabulary's {vocabulary}").into()
                    );
                }
                tokens.extend(ids);
                tokenizer.open(tokens, "", true)?
            }
        })
    }

    /// How many of the prompt's tokens come before every choice, and each choice's own behind them.
    fn branches(
        &self,
        open: &Open,
        said: &[u32],
        choices: &[String],
    ) -> Result<(usize, Vec<Vec<u32>>), Unprepared> {
        let head = &open.tokens;
        self.check_length(head.len())?;
        let begun = common(head, said);
        let mut tails = Vec::with_capacity(choices.len());
        let mut shared = said.len();
        for choice in choices {
            self.check_time()?;
            let tail = self.shared.tokenizer.close(open, choice)?;
            let all = if begun < head.len() { begun } else { begun + common(&tail, &said[begun..]) };
            if all == 0 {
                let choice = excerpt(choice, QUOTE_BYTES);
                return Err(format!(
                    "choice `{choice}` becomes one token with all of the prompt, so nothing is left to come before it; \
                     expected a longer prompt, or another beginning of the choice"
                )
                .into());
            }
            shared = shared.min(all);
            tails.push(tail);
            self.check_branch(head.len() + tails[tails.len() - 1].len(), shared, choice)?;
        }
        let branch = |(choice, tail): (&String, Vec<u32>)| {
            self.check_branch(head.len() + tail.len(), shared, choice)?;
            let behind = shared.saturating_sub(head.len());
            Ok([&head[shared.min(head.len())..], &tail[behind..]].concat())
        };
        let branches = choices.iter().zip(tails).map(branch).collect::<Result<_, Unprepared>>()?;
        Ok((shared, branches))
    }

    /// Of a choice with everything before it.
    fn check_branch(&self, tokens: usize, shared: usize, choice: &str) -> Result<(), Unprepared> {
        let own = tokens - shared;
        if own == 0 {
            let choice = excerpt(choice, QUOTE_BYTES);
            return Err(format!("choice `{choice}` adds no token to the prompt").into());
        }
        if own > MAX_CHOICE_TOKENS {
            return Err(format!("a choice has {own} tokens, expected at most {MAX_CHOICE_TOKENS}").into());
        }
        if tokens > self.context {
            return Err(
                format!("prompt and choice have {tokens} tokens, the context {}", self.context).into()
            );
        }
        Ok(())
    }

    /// How many of the prompt's first tokens the request says to be a prefix of many.
    fn declared(&self, request: &Request, prompt: &[u32]) -> Result<usize, Unprepared> {
        let Params { pin, prefix_messages, .. } = request.params;
        Ok(match (prefix_messages, &request.prompt) {
            (Some(0), _) => 0,
            (Some(first), Prompt::Messages(messages)) => {
                let prefix = &messages[..first.min(messages.len())];
                common(&self.shared.tokenizer.encode_chat(prefix, false)?, prompt)
            }
            _ if pin => prompt.len(),
            _ => 0,
        })
    }

    fn check_length(&self, tokens: usize) -> Result<(), Unprepared> {
        if tokens >= self.context {
            let context = self.context;
            let message =
                format!("the prompt has {tokens} tokens, expected fewer than the {context} of the context");
            return Err(message.into());
        }
        Ok(())
    }

    fn check_time(&self) -> Result<(), Unprepared> {
        match Instant::now() >= self.deadline || self.caller.strong_count() == 0 {
            true => Err(Unprepared::Late),
            false => Ok(()),
        }
    }
}

fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
