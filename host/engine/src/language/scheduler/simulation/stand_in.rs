//! A stand-in for the decoder. Its logits are a function of the tokens, so that every answer can be
//! predicted; its keys and values are a hash of all tokens up to their position, so that a block
//! that is lost, shared wrongly or reused too early is noticed.

use crate::language::decoder::Run;
use crate::language::forward::Forward;
use crate::language::tokenizer::Tokenizer;

/// Logit of the likeliest token. The others are 0.
const PEAK: f32 = 5.0;

#[derive(Clone)]
pub(super) struct StandIn {
    context: usize,
    vocabulary: usize,
    /// A token that ends an answer, and those that do not.
    end: u32,
    words: Vec<u32>,
    /// Hashes at the positions whose logits were requested by the last pass.
    hidden: Vec<u16>,
    logits: Vec<f32>,
}

/// Hash of a text that continues by `token` after a text of hash `hash`.
fn hash(hash: u16, token: u32) -> u16 {
    hash.wrapping_mul(31).wrapping_add(token as u16).wrapping_add(7)
}

fn hash_of(tokens: &[u32]) -> u16 {
    tokens.iter().fold(0, |state, &token| hash(state, token))
}

impl StandIn {
    pub(super) fn new(tokenizer: &Tokenizer, context: usize) -> StandIn {
        let vocabulary = tokenizer.vocabulary_size();
        let (ends, words): (Vec<u32>, Vec<u32>) =
            (0..vocabulary as u32).partition(|&token| tokenizer.is_end(token));
        StandIn { context, vocabulary, end: ends[0], words, hidden: Vec::new(), logits: Vec::new() }
    }

    /// The likeliest token after a text of hash `hash`.
    fn likeliest(&self, hash: u16) -> u32 {
        if hash.is_multiple_of(61) { self.end } else { self.words[usize::from(hash) % self.words.len()] }
    }

    /// The answer to `prompt`, of at most `max` tokens.
    pub(super) fn answer(&self, prompt: &[u32], max: usize) -> Vec<u32> {
        let mut state = hash_of(prompt);
        let mut answer = Vec::new();
        while answer.len() < max {
            let token = self.likeliest(state);
            if token == self.end {
                break;
            }
            answer.push(token);
            state = hash(state, token);
        }
        answer
    }

    /// The log-probability of `branch` after `prompt`.
    pub(super) fn score(&self, prompt: &[u32], branch: &[u32]) -> f32 {
        let normaliser = (PEAK.exp() + (self.vocabulary - 1) as f32).ln();
        let mut state = hash_of(prompt);
        let mut score = 0.0;
        for &token in branch {
            score += if self.likeliest(state) == token { PEAK } else { 0.0 } - normaliser;
            state = hash(state, token);
        }
        score
    }
}

impl Forward for StandIn {
    fn context(&self) -> usize {
        self.context
    }

    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn forward(&mut self, runs: &mut [Run<'_>]) {
        self.hidden.clear();
        for run in runs {
            let mut state = 0;
            let mut expected = Vec::new();
            for &token in run.sequence.tokens() {
                state = hash(state, token);
                expected.push(state);
            }
            for to in run.sequence.destinations(0, run.start, 0) {
                let slots = &mut to.block.as_chunks_mut::<2>().0[to.slot..][..to.rows.len()];
                for (slot, &hash) in slots.iter_mut().zip(&expected[to.position..]) {
                    *slot = hash.to_le_bytes();
                }
            }
            let stored = run.sequence.spans(0).flat_map(|span| &span.block.as_chunks::<2>().0[..span.tokens]);
            assert!(
                stored.map(|slot| u16::from_le_bytes(*slot)).eq(expected.iter().copied()),
                "keys and values of other tokens"
            );
            self.hidden.extend(&expected[expected.len() - run.logit_rows..]);
        }
    }

    fn logits(&mut self, first: usize, rows: usize) -> &mut [f32] {
        self.logits.clear();
        self.logits.resize(rows * self.vocabulary, 0.0);
        for row in 0..rows {
            let token = self.likeliest(self.hidden[first + row]) as usize;
            self.logits[row * self.vocabulary + token] = PEAK;
        }
        &mut self.logits
    }
}
