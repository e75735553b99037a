//! Text from tokens as they come, in whole characters.

use super::encode::Tokenizer;

/// A text in the making.
///
/// A character may take several tokens: what is incomplete waits for the next ones.
pub(crate) struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    /// The first bytes of a character, three at most.
    pending: Vec<u8>,
    /// Whether the next token begins a text, before which the encoder puts a space of its own.
    begins: bool,
}

impl Tokenizer {
    /// A text from tokens as they come.
    pub(crate) fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(self)
    }
}

impl<'t> Detokenizer<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Self {
        Detokenizer { tokenizer, pending: Vec::new(), begins: tokenizer.space_prefix }
    }

    /// The text goes on behind `token`, the prompt's last: it only begins here where that is a
    /// control token.
    pub(crate) fn after(mut self, token: u32) -> Self {
        self.begins = self.tokenizer.space_prefix && self.tokenizer.is_control(token);
        self
    }

    /// Whether the next token begins a text, so that a space before it is the encoder's own.
    pub(crate) fn begins(&self) -> bool {
        self.begins
    }

    /// Take `token`; the characters that it completes, if any. Control tokens, and ids that are
    /// none, give nothing.
    pub(crate) fn push(&mut self, token: u32) -> Option<String> {
        let mut bytes = self.tokenizer.bytes.get(token);
        if bytes.is_empty() {
            return None;
        }
        if std::mem::take(&mut self.begins) {
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.pending.extend(bytes);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let incomplete = done + invalid.len() == self.pending.len() && begins_character(invalid);
            if !invalid.is_empty() && !incomplete {
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.pending.drain(..done);
        (!text.is_empty()).then_some(text)
    }

    /// What is left: a replacement character where a character was never completed.
    pub(crate) fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Whether more bytes could make a character of `bytes`.
fn begins_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
