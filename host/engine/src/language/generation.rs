//! An answer that is being generated, and the part of it that was streamed.

use tokio::sync::mpsc::UnboundedSender;

use super::format::Constraint;
use super::request::{Finish, Output, Params, Piece, TokenLogprob, TokenUsage};
use super::sampler::{Sampler, likeliest, log_sum_exp};
use super::tokenizer::{Detokenizer, Tokenizer};

pub(super) struct Generation<'t> {
    params: Params,
    sampler: Sampler,
    constraint: Option<Box<Constraint>>,
    /// Reason that the constraint could not be applied.
    failure: Option<String>,
    /// `None` after the answer has ended.
    detokenizer: Option<Detokenizer<'t>>,
    text: String,
    /// Bytes of `text` that were streamed.
    sent: usize,
    /// One entry for each token of `text`; empty unless requested.
    logprobs: Vec<TokenLogprob>,
    /// Number of `logprobs` that were streamed.
    sent_logprobs: usize,
    finish: Option<Finish>,
}

impl<'t> Generation<'t> {
    /// An empty answer that follows the token `last`.
    pub(super) fn new(
        params: &Params,
        constraint: Option<Box<Constraint>>,
        last: u32,
        tokenizer: &'t Tokenizer,
    ) -> Self {
        Generation {
            params: params.clone(),
            sampler: Sampler::new(params),
            constraint,
            failure: None,
            detokenizer: Some(tokenizer.detokenizer().after(last)),
            text: String::new(),
            sent: 0,
            logprobs: Vec::new(),
            sent_logprobs: 0,
            finish: None,
        }
    }

    /// Chooses the next token from `logits`, and streams the text that is now final. `has_room` is
    /// true if another token may follow, `usage` is that before it. Returns `None` if the token
    /// ended the answer and is not part of it.
    pub(super) fn advance(
        &mut self,
        logits: &mut [f32],
        has_room: bool,
        tokenizer: &Tokenizer,
        usage: TokenUsage,
        stream: Option<&UnboundedSender<Piece>>,
    ) -> Option<u32> {
        // Reported log-probabilities are those of the model, without the constraint.
        let own = self.params.logprobs.filter(|_| self.constraint.is_some()).map(|_| logits.to_vec());
        let (token, is_last) = match self.choose(logits) {
            Ok(chosen) => chosen,
            Err(message) => {
                self.failure = Some(message);
                self.finish = Some(Finish::Length);
                return None;
            }
        };
        let is_part = self.take(token, own.as_deref().unwrap_or(logits), tokenizer);
        if is_part && self.finish.is_none() && (is_last || !has_room) {
            self.finish(if is_last { Finish::End } else { Finish::Length });
        }
        let generated_tokens = usage.generated_tokens + usize::from(is_part);
        self.send(TokenUsage { generated_tokens, ..usage }, stream);
        is_part.then_some(token)
    }

    /// Chooses the next token. The second value is true if it completes the format.
    fn choose(&mut self, logits: &mut [f32]) -> Result<(u32, bool), String> {
        let Some(constraint) = &mut self.constraint else { return Ok((self.sampler.choose(logits), false)) };
        constraint.restrict(logits)?;
        let token = self.sampler.choose(logits);
        Ok((token, constraint.accept(token)?))
    }

    /// Reason that the answer could not be completed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    pub(super) fn max_tokens(&self) -> usize {
        self.params.max_tokens
    }

    pub(super) fn is_done(&self) -> bool {
        self.finish.is_some()
    }

    /// The answer, with its tokens `tokens`.
    pub(super) fn output(self, tokens: Vec<u32>) -> Output {
        let Generation { text, finish, logprobs, .. } = self;
        Output::Text { text, tokens, finish: finish.unwrap_or(Finish::Length), logprobs }
    }

    /// Appends a token that was chosen from `logits`. Returns false if it ended the answer and is
    /// not part of it.
    fn take(&mut self, token: u32, logits: &[f32], tokenizer: &Tokenizer) -> bool {
        if tokenizer.is_end(token) {
            self.finish(Finish::End);
            return false;
        }
        let before = self.text.len();
        if let Some(top) = self.params.logprobs {
            let normaliser = log_sum_exp(logits);
            let begins = self.detokenizer.as_ref().is_some_and(Detokenizer::begins);
            let of = |token: u32| {
                let bytes = tokenizer.token_bytes(token);
                // The leading space that an encoder adds to a text is not part of the answer.
                let own = if begins { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes };
                // Rounding may leave a certain token slightly above 0.
                (own.to_vec(), (logits[token as usize] - normaliser).min(0.0))
            };
            let (bytes, logprob) = of(token);
            let top = likeliest(logits, top).into_iter().map(of).collect();
            self.logprobs.push(TokenLogprob { start: before, bytes, logprob, top });
        }
        self.text.extend(self.detokenizer.as_mut().and_then(|detokenizer| detokenizer.push(token)));
        self.look_for_stop(before);
        true
    }

    fn look_for_stop(&mut self, before: usize) {
        let longest = self.params.stop.iter().map(String::len).max().unwrap_or(0);
        let from = self.text.floor_char_boundary(before.saturating_sub(longest));
        let found = self.params.stop.iter().filter_map(|stop| self.text[from..].find(stop.as_str())).min();
        if let Some(at) = found {
            self.text.truncate(from + at);
            self.logprobs.retain(|logprob| logprob.start < from + at);
            self.finish = Some(Finish::Stop);
        }
    }

    fn finish(&mut self, finish: Finish) {
        let before = self.text.len();
        self.text.extend(self.detokenizer.take().map(Detokenizer::finish));
        self.finish = Some(finish);
        self.look_for_stop(before);
    }

    /// Streams the text that can no longer become part of a stop string.
    fn send(&mut self, usage: TokenUsage, stream: Option<&UnboundedSender<Piece>>) {
        let Some(stream) = stream else { return };
        let is_last = self.finish.is_some();
        let pending = if is_last { 0 } else { self.pending_stop_bytes() };
        let end = self.text.len() - pending;
        let waiting = &self.logprobs[self.sent_logprobs..];
        // A token without text of its own is sent with the text that follows it, or at the end.
        if end > self.sent || (is_last && !waiting.is_empty()) {
            let final_logprobs = waiting.iter().take_while(|logprob| is_last || logprob.start < end);
            let logprobs: Vec<_> = final_logprobs.cloned().collect();
            self.sent_logprobs += logprobs.len();
            // If the receiver is closed, the reply is closed too, or the caller reads the whole
            // text from it.
            let _ = stream.send(Piece { text: self.text[self.sent..end].to_owned(), logprobs, usage });
            self.sent = end;
        }
    }

    /// Number of bytes at the end of the text that are a prefix of a stop string.
    fn pending_stop_bytes(&self) -> usize {
        let longest_prefix = |stop: &String| {
            let lengths = (1..stop.len()).rev().filter(|&length| stop.is_char_boundary(length));
            lengths.into_iter().find(|&length| self.text.ends_with(&stop[..length])).unwrap_or(0)
        };
        self.params.stop.iter().map(longest_prefix).max().unwrap_or(0)
    }
}
