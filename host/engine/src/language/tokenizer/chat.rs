//! Chats by the file's template, and texts that are still open at their end.
//!
//! Templates may leave turns out without a word; Phi-3's knows no `system`. A mark goes into every
//! content, and a turn whose mark is not in what the template wrote is missing: instructions then
//! become part of the user's next turn, as chat programs do for such models, and anything else is
//! refused.

use super::control::{Guards, Piece};
use super::encode::Tokenizer;
use super::error::TokenizerError;
use super::limits::{MAX_MESSAGES, MAX_TEXT_BYTES};
use crate::language::gguf::quoted;
use crate::language::request::Message;
use crate::language::template::{Template, TemplateError};

/// The roles that a turn may have. Templates write them between control tokens' brackets, so no
/// others are taken.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// The roles whose content may stand in a user's turn instead.
const INSTRUCTIONS: [&str; 2] = ["system", "developer"];

/// Tokens of a text, and the end of it whose tokens depend on what follows.
#[derive(Default)]
pub(crate) struct Open {
    /// What is decided, whatever follows.
    pub(crate) tokens: Vec<u32>,
    tail: String,
    /// Whether a space is put before the tail.
    space_prefix: bool,
    /// Whether the token before the tail swallows white space.
    strips: bool,
}

/// What a template made of a chat, with guards.
struct Layout {
    text: String,
    guards: Guards,
    /// The first turn that is not in it.
    missing: Option<usize>,
}

impl Tokenizer {
    /// The tokens of a chat by the file's template, with BOS where the file wants it, and the
    /// beginning of the assistant's turn; or, with `continue_last`, with the last turn left open at
    /// the end of its content.
    ///
    /// # Errors
    ///
    /// When the file has no template; when the messages are none, too long, of a role that is not
    /// known, or refused by the template; when it leaves one out; when `continue_last` finds
    /// another turn than the assistant's.
    pub(crate) fn encode_chat(
        &self,
        messages: &[Message],
        continue_last: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        self.whole(self.open_chat(messages, continue_last)?)
    }

    /// As [`Tokenizer::encode_chat`], open at its end.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::encode_chat`].
    pub(crate) fn open_chat(
        &self,
        messages: &[Message],
        continue_last: bool,
    ) -> Result<Open, TokenizerError> {
        let template = self.template.as_ref().ok_or(TokenizerError::NoTemplate)?;
        check(messages, continue_last)?;
        let mut layout = self.lay_out(template, messages, continue_last);
        let unfit = match &layout {
            Ok(layout) => layout.missing.is_some(),
            Err(error) => matches!(error, TokenizerError::Template(TemplateError::Refused(_))),
        };
        if unfit && messages.iter().any(instructs) {
            let folded = self.lay_out(template, &folded(messages), continue_last);
            if folded.as_ref().is_ok_and(|layout| layout.missing.is_none()) {
                layout = folded;
            }
        }
        let Layout { text, guards, missing } = layout?;
        if let Some(turn) = missing {
            let role = &messages[turn].role;
            return Err(TokenizerError::Messages(format!(
                "has a turn of `{role}`, turn {turn}, that the chat template leaves out; put what it says into a turn of \
                 `user`"
            )));
        }
        self.open_layout(&text, &guards)
    }

    /// The tokens of `text` behind `before`, without BOS, open at its end. With `continues` it goes
    /// on behind other text.
    ///
    /// # Errors
    ///
    /// When the text is over 1 MiB.
    pub(crate) fn open(&self, before: Vec<u32>, text: &str, continues: bool) -> Result<Open, TokenizerError> {
        let space_prefix = self.space_prefix && !continues;
        let open = Open { tokens: before, tail: text.to_owned(), space_prefix, strips: false };
        self.decide(open)
    }

    /// The tokens of the open end with `more` behind it.
    ///
    /// # Errors
    ///
    /// When they are over 1 MiB.
    pub(crate) fn close(&self, open: &Open, more: &str) -> Result<Vec<u32>, TokenizerError> {
        let text = [&open.tail, more].concat();
        let text = if open.strips { text.trim_start() } else { &text };
        let mut tokens = Vec::new();
        self.encode_fragment(text, open.space_prefix, &mut tokens)?;
        Ok(tokens)
    }

    /// All tokens, with nothing behind the open end.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::close`].
    pub(crate) fn whole(&self, mut open: Open) -> Result<Vec<u32>, TokenizerError> {
        let tail = self.close(&open, "")?;
        open.tokens.extend(tail);
        Ok(open.tokens)
    }

    fn lay_out(
        &self,
        template: &Template,
        messages: &[Message],
        continue_last: bool,
    ) -> Result<Layout, TokenizerError> {
        let texts = messages.iter().map(|message| message.content.as_str());
        let control = self.control_texts.iter().map(|(_, text)| text.as_str());
        let texts = texts.chain(control).chain([template.source()]);
        let guards = Guards::absent_from(texts, messages.len()).ok_or_else(|| {
            TokenizerError::Messages("use every private-use character of Unicode; leave one out".to_owned())
        })?;
        let mut guarded: Vec<Message> = messages
            .iter()
            .zip(&guards.marks)
            .map(|(message, mark)| {
                let mut content = self.control.guarded(&message.content, guards.guard);
                // Before white space at the end, which templates trim; blank content may go
                // missing.
                let end = content.trim_end().len();
                if end > 0 {
                    content.insert(end, *mark);
                }
                Message { role: message.role.clone(), content }
            })
            .collect();
        if let (true, Some(last)) = (continue_last, guarded.last_mut()) {
            last.content.push(guards.end);
        }
        let mut text = template.render(&guarded, !continue_last)?;
        let last = messages.len() - 1;
        if continue_last {
            let Some(end) = text.rfind(guards.end) else {
                return Ok(Layout { text, guards, missing: Some(last) });
            };
            text.truncate(end);
        }
        let found = guards.marks_in(&text);
        let marked = guarded.iter().zip(&guards.marks);
        let missing = marked
            .enumerate()
            .find(|(_, (turn, mark))| turn.content.contains(**mark) && !found.contains(mark));
        let missing = missing.map(|(turn, _)| turn);
        Ok(Layout { text, guards, missing })
    }

    fn open_layout(&self, text: &str, guards: &Guards) -> Result<Open, TokenizerError> {
        let mut open = Open { space_prefix: self.space_prefix, ..Open::default() };
        let mut pieces = self.control.split(text);
        let tail = match pieces.last() {
            Some(Piece::Text(text)) => {
                let tail = guards.remove(text);
                pieces.pop();
                tail
            }
            _ => String::new(),
        };
        let strips = |tokens: &[u32]| tokens.last().is_some_and(|token| self.strips.contains(token));
        for piece in pieces {
            match piece {
                Piece::Control(id) => open.tokens.push(id),
                Piece::Text(text) => {
                    let text = guards.remove(text);
                    let text = if strips(&open.tokens) { text.trim_start() } else { &text };
                    self.encode_fragment(text, self.space_prefix, &mut open.tokens)?;
                }
            }
        }
        (open.strips, open.tail) = (strips(&open.tokens), tail);
        if let Some(bos) = self.bos
            && open.tokens.first() != Some(&bos)
        {
            open.tokens.insert(0, bos);
        }
        self.decide(open)
    }

    /// Encode of the open end what nothing behind it can change: the words before its last one.
    fn decide(&self, mut open: Open) -> Result<Open, TokenizerError> {
        if !self.words_part {
            return Ok(open);
        }
        if let Some(at) = last_word(&open.tail) {
            let rest = open.tail.split_off(at);
            let decided = self.close(&open, "")?;
            open.tokens.extend(decided);
            (open.tail, open.space_prefix, open.strips) = (rest, false, false);
        }
        Ok(open)
    }
}

/// Where the last word begins that is of ASCII letters, behind a space and another such word: no
/// kind of vocabulary that is known has a token, or a step before tokens, across such a place.
fn last_word(text: &str) -> Option<usize> {
    let parts = |three: &[u8]| matches!(three, [before, b' ', after] if before.is_ascii_alphabetic() && after.is_ascii_alphabetic());
    text.as_bytes().windows(3).rposition(parts).map(|at| at + 1)
}

fn instructs(message: &Message) -> bool {
    INSTRUCTIONS.contains(&message.role.as_str())
}

/// The chat with instructions at the beginning of the user's next turn, or in a turn of the user's
/// where none follows.
fn folded(messages: &[Message]) -> Vec<Message> {
    let mut folded: Vec<Message> = Vec::with_capacity(messages.len());
    let mut instructions: Vec<&str> = Vec::new();
    for (turn, message) in messages.iter().enumerate() {
        let asked_later = messages[turn..].iter().any(|later| later.role == "user");
        if instructs(message) && asked_later {
            instructions.push(&message.content);
            continue;
        }
        let role = if instructs(message) { "user" } else { message.role.as_str() };
        let content = if role == "user" {
            instructions.push(&message.content);
            std::mem::take(&mut instructions).join("\n\n")
        } else {
            message.content.clone()
        };
        folded.push(Message { role: role.to_owned(), content });
    }
    folded
}

fn check(messages: &[Message], continue_last: bool) -> Result<(), TokenizerError> {
    let wrong = |message| Err(TokenizerError::Messages(message));
    let Some(last) = messages.last() else {
        return wrong("is empty; expected one turn at least".to_owned());
    };
    if messages.len() > MAX_MESSAGES {
        return wrong(format!("has {} turns; expected {MAX_MESSAGES} at most", messages.len()));
    }
    let unknown = messages.iter().position(|message| !ROLES.contains(&message.role.as_str()));
    if let Some(turn) = unknown {
        let (role, roles) = (quoted(&messages[turn].role), ROLES.map(|role| format!("`{role}`")).join(", "));
        return wrong(format!("has role {role} at turn {turn}; expected one of {roles}"));
    }
    let found = messages.iter().map(|message| message.content.len()).sum();
    if found > MAX_TEXT_BYTES {
        return Err(TokenizerError::Long { found });
    }
    if continue_last && last.role != "assistant" {
        return wrong(format!(
            "end in a turn of `{}`; expected `assistant`, whose turn `continue` goes on",
            last.role
        ));
    }
    Ok(())
}
