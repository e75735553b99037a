//! From a request to tokens.
//!
//! The part of a prompt that choices cannot change is tokenized once; each choice is tokenized
//! together with the last word or turn only. That word may have other tokens when a choice follows
//! it, so the prompt ends where the tokens of the first choice differ.

use std::borrow::Cow;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::choices::Choices;
use super::clock;
use super::job::Work;
use super::request::{Message, Params, Prompt, Request};
use super::scheduler::Shared;
use super::tokenizer::{ChatOptions, Open, TokenizerError};
use crate::limits::MAX_CHOICE_TOKENS;
use crate::text::{QUOTE_BYTES, excerpt};

/// Variable of templates that switches a model's thoughts on or off.
pub(crate) const THINKING: &str = "enable_thinking";

/// Two texts that may follow the prefix of a prompt. They have no character in common.
const FOLLOWING: [&str; 2] = ["a", "1"];

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
        // A verdict is scored where the answer begins, without thoughts before it.
        let arguments = &request.params.template_arguments;
        let arguments = match &request.choices {
            Some(_) => Cow::Owned(arguments.with_default(THINKING, false)),
            None => Cow::Borrowed(arguments),
        };
        let (continue_last, now) = (request.params.continues, clock::unix_seconds());
        let options = ChatOptions { continue_last, arguments: &arguments, now };
        let open = self.open(request, options)?;
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
                let format = request.params.format.as_ref();
                let constraint = format.map(|format| self.shared.formats.constraint(tokenizer, format));
                let constraint = constraint
                    .transpose()
                    .map_err(|message| format!("the format of the answer: {message}"))?;
                let params = Params { max_tokens, ..request.params.clone() };
                (session_tokens.clone(), Work::Generate(params, constraint.map(Box::new)))
            }
            Some(choices) => {
                let answer = self.answer(request, options, &session_tokens)?;
                let (shared, branches) =
                    self.branches(answer.as_ref().unwrap_or(&open), &session_tokens, choices)?;
                (
                    session_tokens[..shared].to_vec(),
                    Work::Score(choices_of(branches, request.params.distinct)),
                )
            }
        };
        let declared = self.declared(request, options, &prompt)?;
        Ok(Prepared { session_tokens, prompt, declared, pin: request.params.pin, work })
    }

    /// The prompt, with an open end.
    fn open(&self, request: &Request, options: ChatOptions<'_>) -> Result<Open, PrepareError> {
        let tokenizer = &self.shared.tokenizer;
        let mut tokens = self.before.clone();
        Ok(match &request.prompt {
            Prompt::Messages(messages) | Prompt::Question { messages, .. } => {
                tokenizer.open_chat(messages, options)?
            }
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

    /// The chat with the beginning of the answer as a turn, which may differ from that of the
    /// `prompt`: Llama 2's template puts a space there.
    ///
    /// `None` for other prompts, and if the prompt goes further than such a turn: SmolLM3's
    /// template ends it with an empty thought.
    fn answer(
        &self,
        request: &Request,
        options: ChatOptions<'_>,
        prompt: &[u32],
    ) -> Result<Option<Open>, PrepareError> {
        let tokenizer = &self.shared.tokenizer;
        let messages = match &request.prompt {
            Prompt::Messages(messages) if !options.continue_last => messages,
            _ => return Ok(None),
        };
        let turn = Message { role: "assistant".to_owned(), content: String::new() };
        let turns = [&messages[..], &[turn]].concat();
        let answer = tokenizer.open_chat(&turns, ChatOptions { continue_last: true, ..options })?;
        let tail = tokenizer.close(&answer, "")?;
        let length = answer.tokens.len() + tail.len();
        let goes_further = length < prompt.len()
            && prompt.starts_with(&answer.tokens)
            && prompt[answer.tokens.len()..].starts_with(&tail);
        Ok((!goes_further).then_some(answer))
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
    fn declared(
        &self,
        request: &Request,
        options: ChatOptions<'_>,
        prompt: &[u32],
    ) -> Result<usize, PrepareError> {
        let Params { pin, prefix_messages, prefix_bytes, .. } = request.params;
        Ok(match (prefix_messages, &request.prompt) {
            (_, Prompt::Question { prefix, .. }) => common(prefix, prompt),
            (Some(0), _) => 0,
            (Some(first), Prompt::Messages(messages)) => {
                let options = ChatOptions { continue_last: false, ..options };
                let tokenizer = &self.shared.tokenizer;
                let Some(next) = messages.get(first) else {
                    let whole = tokenizer.whole(tokenizer.open_chat(messages, options)?)?;
                    return Ok(common(&whole, prompt));
                };
                let end = next.content.floor_char_boundary(prefix_bytes);
                let next = Message { content: next.content[..end].to_owned(), ..next.clone() };
                let begun = [&messages[..first], &[next]].concat();
                let open = tokenizer.begin_chat(&begun, options)?;
                // The tokens that do not depend on what follows.
                let [one, other] = FOLLOWING.map(|text| tokenizer.close(&open, text));
                let (mut prefix, one) = (open.tokens, one?);
                prefix.extend_from_slice(&one[..common(&one, &other?)]);
                common(&prefix, prompt)
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

/// The choices of these tokens; with `distinct`, each up to its first token that no other one has
/// in this place, if there is one.
fn choices_of(mut branches: Vec<Vec<u32>>, distinct: bool) -> Choices {
    if distinct {
        let needed = |(index, own): (usize, &Vec<u32>)| {
            let others = branches.iter().enumerate().filter(|(other, _)| *other != index);
            own.len().min(1 + others.map(|(_, other)| common(own, other)).max().unwrap_or(0))
        };
        let needed: Vec<usize> = branches.iter().enumerate().map(needed).collect();
        branches.iter_mut().zip(needed).for_each(|(branch, needed)| branch.truncate(needed));
    }
    Choices::new(&branches)
}

fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}
