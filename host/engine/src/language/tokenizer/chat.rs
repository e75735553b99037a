//! Chats formatted by the file's template, and texts with an open end.
//!
//! A template may omit turns silently; Phi-3's has no `system`. Each content is marked, and a turn
//! whose mark is missing from the template's output was omitted. Instructions are then folded into
//! the user's next turn, as other chat programs do for such models. Any other omitted turn is an
//! error.

use super::control::{Guards, Piece};
use super::encode::Tokenizer;
use super::error::TokenizerError;
use crate::language::gguf::quoted;
use crate::language::request::Message;
use crate::language::template::{self, Template, TemplateArguments, TemplateError};
use crate::limits::{MAX_MESSAGES, MAX_TEXT_BYTES};
use crate::text::names;

/// Permitted roles. Templates write a role between the brackets of control tokens, so other names
/// are rejected.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// Roles whose content may be folded into a user's turn.
const INSTRUCTIONS: [&str; 2] = ["system", "developer"];

/// Tokens of a text, and its end, whose tokens depend on the text that follows.
#[derive(Default)]
pub(crate) struct Open {
    /// Final tokens.
    pub(crate) tokens: Vec<u32>,
    tail: String,
    /// True if a space is put before the tail.
    space_prefix: bool,
    /// True if the token before the tail strips whitespace.
    strips: bool,
}

/// The options of a chat.
#[derive(Clone, Copy)]
pub(crate) struct ChatOptions<'a> {
    /// Ends at the end of the last turn's content instead of with the beginning of the assistant's
    /// turn.
    pub(crate) continue_last: bool,
    /// Further variables of the template.
    pub(crate) arguments: &'a TemplateArguments,
    /// The template's time, in seconds after 1970 in UTC.
    pub(crate) now: i64,
}

/// The output of a template, with guards.
struct Layout {
    text: String,
    guards: Guards,
    /// The first turn that is missing from it.
    missing: Option<usize>,
}

impl Tokenizer {
    /// Encodes a chat without options.
    ///
    /// # Errors
    ///
    /// As in [`Tokenizer::open_chat`].
    #[cfg(any(test, fuzzing))]
    pub(crate) fn encode_chat(
        &self,
        messages: &[Message],
        continue_last: bool,
    ) -> Result<Vec<u32>, TokenizerError> {
        let arguments = &TemplateArguments::default();
        self.whole(self.open_chat(messages, ChatOptions { continue_last, arguments, now: 0 })?)
    }

    /// Encodes a chat with the file's template, with BOS if the file requires it, with an open end.
    ///
    /// # Errors
    ///
    /// If the file has no template; if there are no messages, or they are too long, have an unknown
    /// role, or are rejected or omitted by the template; with `continue_last`, if the last turn is
    /// not the assistant's.
    pub(crate) fn open_chat(
        &self,
        messages: &[Message],
        options: ChatOptions<'_>,
    ) -> Result<Open, TokenizerError> {
        check(messages, options.continue_last)?;
        self.format_chat(messages, options)
    }

    /// Encodes the beginning of a chat: `messages`, of which the last one is not complete.
    ///
    /// # Errors
    ///
    /// As in [`Tokenizer::open_chat`].
    pub(crate) fn begin_chat(
        &self,
        messages: &[Message],
        options: ChatOptions<'_>,
    ) -> Result<Open, TokenizerError> {
        check(messages, false)?;
        self.format_chat(messages, ChatOptions { continue_last: true, ..options })
    }

    fn format_chat(&self, messages: &[Message], options: ChatOptions<'_>) -> Result<Open, TokenizerError> {
        let template = self.template.as_ref().ok_or(TokenizerError::NoTemplate)?;
        let mut layout = self.render_chat(template, messages, options);
        let incomplete = match &layout {
            Ok(layout) => layout.missing.is_some(),
            Err(error) => matches!(error, TokenizerError::Template(TemplateError::Refused(_))),
        };
        if incomplete && messages.iter().any(is_instruction) {
            let folded = self.render_chat(template, &folded(messages), options);
            if folded.as_ref().is_ok_and(|layout| layout.missing.is_none()) {
                layout = folded;
            }
        }
        let Layout { text, guards, missing } = layout?;
        if let Some(turn) = missing {
            let role = &messages[turn].role;
            return Err(TokenizerError::Messages(format!(
                "has a turn of `{role}`, turn {turn}, that the chat template omits; move its content to a \
                 turn of `user`"
            )));
        }
        self.open_layout(&text, &guards)
    }

    /// Encodes `text` after the tokens `before`, without BOS, with an open end. `continues` is true
    /// if the text continues other text.
    ///
    /// # Errors
    ///
    /// If the text exceeds 1 MiB.
    pub(crate) fn open(&self, before: Vec<u32>, text: &str, continues: bool) -> Result<Open, TokenizerError> {
        let space_prefix = self.space_prefix && !continues;
        let open = Open { tokens: before, tail: text.to_owned(), space_prefix, strips: false };
        self.decide(open)
    }

    /// The tokens of the open end, followed by `more`.
    ///
    /// # Errors
    ///
    /// If they exceed 1 MiB.
    pub(crate) fn close(&self, open: &Open, more: &str) -> Result<Vec<u32>, TokenizerError> {
        let text = [&open.tail, more].concat();
        let text = if open.strips { text.trim_start() } else { &text };
        let mut tokens = Vec::new();
        self.encode_fragment(text, open.space_prefix, &mut tokens)?;
        Ok(tokens)
    }

    /// All tokens, with nothing after the open end.
    ///
    /// # Errors
    ///
    /// As in [`Tokenizer::close`].
    pub(crate) fn whole(&self, mut open: Open) -> Result<Vec<u32>, TokenizerError> {
        let tail = self.close(&open, "")?;
        open.tokens.extend(tail);
        Ok(open.tokens)
    }

    fn render_chat(
        &self,
        template: &Template,
        messages: &[Message],
        options: ChatOptions<'_>,
    ) -> Result<Layout, TokenizerError> {
        let ChatOptions { continue_last, arguments, now } = options;
        let texts = messages.iter().map(|message| message.content.as_str());
        let control = self.control_texts.iter().map(|(_, text)| text.as_str());
        let given = arguments.texts();
        let texts = texts.chain(control).chain(given.iter().copied()).chain([template.source()]);
        let guards = Guards::absent_from(texts, messages.len()).ok_or_else(|| {
            TokenizerError::Messages("use every private-use character of Unicode; remove one".to_owned())
        })?;
        let mut guarded: Vec<Message> = messages
            .iter()
            .zip(&guards.marks)
            .map(|(message, mark)| {
                let mut content = self.control.guarded(&message.content, guards.guard);
                // Before trailing whitespace, which templates trim. Blank content may be omitted.
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
        let spelt = |text: &str| self.control.guarded(text, guards.guard);
        let mut text = template.render(template::Chat {
            messages: &guarded,
            generation_prompt: !continue_last,
            variables: arguments.variables(&spelt).map_err(TemplateError::arguments)?,
            variable_bytes: given.iter().map(|text| text.len()).sum(),
            now,
        })?;
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
        // Some templates write BOS behind a blank.
        let is_blank = |piece: &&Piece<'_>| matches!(piece, Piece::Text(text) if text.trim().is_empty());
        let first = pieces.iter().find(|piece| !is_blank(piece));
        let writes_bos = matches!((first, self.bos), (Some(Piece::Control(id)), Some(bos)) if *id == bos);
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
        if let Some(bos) = self.bos.filter(|_| !writes_bos) {
            open.tokens.insert(0, bos);
        }
        self.decide(open)
    }

    /// Encodes the part of the open end that no following text can change: everything before its
    /// last word.
    fn decide(&self, mut open: Open) -> Result<Open, TokenizerError> {
        if !self.words_are_separate {
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

/// Start of the last word, if it and the word before it consist of ASCII letters and are separated
/// by a space. In all supported vocabularies, no token and no pre-tokenizer step crosses such a
/// place.
fn last_word(text: &str) -> Option<usize> {
    let parts = |three: &[u8]| matches!(three, [before, b' ', after] if before.is_ascii_alphabetic() && after.is_ascii_alphabetic());
    text.as_bytes().windows(3).rposition(parts).map(|at| at + 1)
}

fn is_instruction(message: &Message) -> bool {
    INSTRUCTIONS.contains(&message.role.as_str())
}

/// The chat with instructions at the beginning of the user's next turn, or in a turn of the user's
/// own if none follows.
fn folded(messages: &[Message]) -> Vec<Message> {
    let mut folded: Vec<Message> = Vec::with_capacity(messages.len());
    let mut instructions: Vec<&str> = Vec::new();
    for (turn, message) in messages.iter().enumerate() {
        let user_follows = messages[turn..].iter().any(|later| later.role == "user");
        if is_instruction(message) && user_follows {
            instructions.push(&message.content);
            continue;
        }
        let role = if is_instruction(message) { "user" } else { message.role.as_str() };
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
        return wrong("is empty; expected at least one turn".to_owned());
    };
    if messages.len() > MAX_MESSAGES {
        return wrong(format!("has {} turns; expected at most {MAX_MESSAGES}", messages.len()));
    }
    let unknown = messages.iter().position(|message| !ROLES.contains(&message.role.as_str()));
    if let Some(turn) = unknown {
        let (role, roles) = (quoted(&messages[turn].role), names(ROLES));
        return wrong(format!("has role {role} at turn {turn}; expected one of {roles}"));
    }
    let found = messages.iter().map(|message| message.content.len()).sum();
    if found > MAX_TEXT_BYTES {
        return Err(TokenizerError::Long { found });
    }
    if continue_last && last.role != "assistant" {
        return wrong(format!("end in a turn of `{}`; `continue` expects a turn of `assistant`", last.role));
    }
    Ok(())
}
