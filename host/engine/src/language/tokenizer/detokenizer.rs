//! Incremental conversion of tokens to text, in complete characters.

use super::encode::Tokenizer;

/// A text under construction.
///
/// A character may take several tokens: an incomplete one waits for the next token.
pub(crate) struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    /// First bytes of a character; at most three.
    pending: Vec<u8>,
    /// True if the next token begins a text, to which the encoder adds a leading space.
    begins: bool,
}

impl Tokenizer {
    /// A detokenizer at the beginning of a text.
    pub(crate) fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(self)
    }
}

impl<'t> Detokenizer<'t> {
    fn new(tokenizer: &'t Tokenizer) -> Self {
        Detokenizer { tokenizer, pending: Vec::new(), begins: tokenizer.space_prefix }
    }

    /// Continues after `token`, the last one of the prompt. A new text begins here only if that is
    /// a control token.
    pub(crate) fn after(mut self, token: u32) -> Self {
        self.begins = self.tokenizer.space_prefix && self.tokenizer.is_control(token);
        self
    }

    /// True if the next token begins a text, so that its leading space is the encoder's.
    pub(crate) fn begins(&self) -> bool {
        self.begins
    }

    /// Appends `token`, and returns the characters that it completes. Control tokens and unknown
    /// ids are ignored.
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

    /// The rest: a replacement character for an incomplete one.
    pub(crate) fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// True if `bytes` are the beginning of a character.
fn begins_character(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
