//! A request that is being computed.

use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::decoder::Run;
use super::inbox::{Job, Work};
use super::kv::{Full, KvPool, Sequence};
use super::request::{Answer, Finish, Output, Params, Piece, TokenLogprob, TokenUsage};
use super::sampler::{Sampler, likeliest, log_sum_exp};
use super::tokenizer::{Detokenizer, Tokenizer};

pub(super) struct Task<'t> {
    pub(super) job: Job,
    /// The prompt, and what was generated after it.
    tokens: Vec<u32>,
    /// What is computed of it.
    pub(super) sequence: Sequence,
    goal: Goal<'t>,
    cached: usize,
    /// The most blocks that the task may yet take from the pool.
    pub(super) reserved: usize,
    /// Rows of the next pass that are this task's.
    pub(super) share: usize,
    pub(super) began: Instant,
    pub(super) compute: Duration,
    pub(super) batch: usize,
}

enum Goal<'t> {
    Score { branches: Vec<Branch>, next: usize },
    Generate(Box<Generation<'t>>),
}

/// One choice: its tokens after the prompt.
struct Branch {
    tokens: Vec<u32>,
    sequence: Sequence,
    logprob: f32,
}

struct Generation<'t> {
    params: Params,
    sampler: Sampler,
    /// None once the answer ended.
    detokenizer: Option<Detokenizer<'t>>,
    text: String,
    /// Bytes of `text` that the stream has had.
    sent: usize,
    /// Of each token of `text`; empty unless asked for.
    logprobs: Vec<TokenLogprob>,
    /// How many of these the stream has had.
    sent_logprobs: usize,
    finish: Option<Finish>,
}

impl<'t> Task<'t> {
    /// Begin a job at the prefix that was found for it.
    pub(super) fn new(mut job: Job, prefix: Sequence, tokenizer: &'t Tokenizer) -> Self {
        let last = *job.prompt.last().expect("a prompt has at least one token");
        let goal = match &mut job.work {
            Work::Score(choices) => {
                let branch = |tokens| Branch { tokens, sequence: Sequence::default(), logprob: 0.0 };
                Goal::Score { branches: std::mem::take(choices).into_iter().map(branch).collect(), next: 0 }
            }
            Work::Generate(params) => Goal::Generate(Box::new(Generation {
                params: params.clone(),
                sampler: Sampler::new(params),
                detokenizer: Some(tokenizer.detokenizer().after(last)),
                text: String::new(),
                sent: 0,
                logprobs: Vec::new(),
                sent_logprobs: 0,
                finish: None,
            })),
        };
        let reserved = blocks(&job).saturating_sub(prefix.whole_blocks());
        Task {
            tokens: job.prompt.to_vec(),
            cached: prefix.len(),
            sequence: prefix,
            goal,
            reserved,
            share: 0,
            began: Instant::now(),
            compute: Duration::ZERO,
            batch: 0,
            job,
        }
    }

    /// Rows that are ready to be computed now.
    pub(super) fn pending(&self) -> usize {
        match &self.goal {
            Goal::Score { branches, next } if self.sequence.len() == self.tokens.len() => {
                branches.get(*next).map_or(0, Branch::rows)
            }
            _ => self.tokens.len() - self.sequence.len(),
        }
    }

    /// Whether all that waits is to be computed in one piece, and soon: a token of an answer, or a
    /// choice.
    pub(super) fn is_urgent(&self) -> bool {
        self.sequence.len() >= self.job.prompt.len()
    }

    /// How many of its tokens the task shares with `prompt`.
    pub(super) fn common(&self, prompt: &[u32]) -> usize {
        self.job.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count()
    }

    /// Take part in the next pass with at most `rows` rows, at least those that are in one piece.
    ///
    /// # Errors
    ///
    /// When the pool has no blocks for them.
    pub(super) fn prepare(&mut self, rows: usize, pool: &KvPool) -> Result<(), Full> {
        let used = pool.used();
        self.share = 0;
        let computed = self.sequence.len();
        if computed < self.tokens.len() {
            let end = self.tokens.len().min(computed + rows);
            self.sequence.extend(pool, &self.tokens[computed..end])?;
            self.share = end - computed;
        } else if let Goal::Score { branches, next } = &mut self.goal {
            for branch in branches[*next..].iter_mut().filter(|branch| branch.rows() > 0) {
                if self.share > 0 && self.share + branch.rows() > rows {
                    break;
                }
                let mut own = self.sequence.fork();
                let room = own.extend(pool, &branch.tokens[..branch.rows()]);
                if room.is_err() && self.share > 0 {
                    break;
                }
                room?;
                branch.sequence = own;
                self.share += branch.rows();
            }
        }
        self.reserved = self.reserved.saturating_sub(pool.used() - used);
        Ok(())
    }

    /// The runs of the next pass, as prepared.
    pub(super) fn runs(&mut self) -> Vec<Run<'_>> {
        let Task { share, sequence, tokens, goal, .. } = self;
        match goal {
            _ if *share == 0 => Vec::new(),
            Goal::Score { branches, .. } if branches.iter().any(|branch| branch.computed() > 0) => {
                let forked = branches.iter_mut().filter(|branch| branch.computed() > 0);
                forked
                    .map(|branch| {
                        let wanted = branch.tokens.len() - 1;
                        let start = branch.sequence.len() - wanted;
                        Run { sequence: &mut branch.sequence, start, wanted }
                    })
                    .collect()
            }
            _ => {
                let start = sequence.len() - *share;
                let wanted = usize::from(sequence.len() == tokens.len());
                vec![Run { sequence, start, wanted }]
            }
        }
    }

    /// How many rows of logits of the pass are this task's: after its last token, or after all of
    /// its branches'.
    pub(super) fn wanted(&self) -> usize {
        match &self.goal {
            _ if self.share == 0 || self.sequence.len() < self.tokens.len() => 0,
            Goal::Score { branches, .. } => branches.iter().map(Branch::computed).sum::<usize>().max(1),
            Goal::Generate(_) => 1,
        }
    }

    /// Go on with row `row` of the pass's logits that are wanted. They come in order.
    pub(super) fn take(&mut self, row: usize, logits: &mut [f32], context: usize, tokenizer: &Tokenizer) {
        match &mut self.goal {
            Goal::Generate(generation) => {
                let token = generation.sampler.choose(logits);
                let generated = self.tokens.len() - self.job.prompt.len();
                let room = self.tokens.len() < context && generated + 1 < generation.params.max_tokens;
                if generation.take(token, logits, tokenizer) {
                    self.tokens.push(token);
                    if !room && generation.finish.is_none() {
                        generation.finish(Finish::Length);
                    }
                }
                generation.send(self.job.stream.as_ref());
            }
            Goal::Score { branches, next } => {
                let normaliser = log_sum_exp(logits);
                let logprob = |token: u32| logits[token as usize] - normaliser;
                if branches.iter().all(|branch| branch.computed() == 0) {
                    for branch in branches.iter_mut() {
                        branch.logprob = logprob(branch.tokens[0]);
                    }
                    *next = next_long(branches, 0);
                    return;
                }
                let mut left = row;
                for branch in branches.iter_mut().skip(*next) {
                    if left < branch.computed() {
                        branch.logprob += logprob(branch.tokens[left + 1]);
                        break;
                    }
                    left -= branch.computed();
                }
                if row + 1 == self.share {
                    let computed = branches.iter().rposition(|branch| branch.computed() > 0);
                    *next = next_long(branches, computed.map_or(0, |last| last + 1));
                    branches.iter_mut().for_each(|branch| branch.sequence = Sequence::default());
                }
            }
        }
    }

    /// Whether the answer is there.
    pub(super) fn is_done(&self) -> bool {
        match &self.goal {
            Goal::Score { branches, next } => self.is_urgent() && *next == branches.len(),
            Goal::Generate(generation) => generation.finish.is_some(),
        }
    }

    /// The answer, once it is there.
    pub(super) fn finish(self) -> (Job, Answer) {
        let prompt_tokens = self.job.prompt.len();
        let generated_tokens = self.tokens.len() - prompt_tokens;
        let output = match self.goal {
            Goal::Score { branches, .. } => {
                Output::Scores(branches.into_iter().map(|branch| branch.logprob).collect())
            }
            Goal::Generate(generation) => Output::Text {
                text: generation.text,
                tokens: self.tokens[prompt_tokens..].to_vec(),
                finish: generation.finish.unwrap_or(Finish::Length),
                logprobs: generation.logprobs,
            },
        };
        let usage = TokenUsage { prompt_tokens, cached_tokens: self.cached, generated_tokens };
        let queue = self.began - self.job.queued;
        (self.job, Answer { output, usage, queue, compute: self.compute, batch: self.batch })
    }
}

/// The most blocks that a job may hold: its prompt's and answer's, or its prompt's and those of its
/// choices' own.
pub(super) fn blocks(job: &Job) -> usize {
    let whole = |tokens: usize| tokens.div_ceil(infer_kernels::BLOCK_TOKENS);
    match &job.work {
        // The last token that is generated is not computed.
        Work::Generate(params) => whole(job.prompt.len() + params.max_tokens - 1),
        Work::Score(branches) => {
            let own = |branch: &Vec<u32>| match branch.len() {
                1 => 0,
                tokens => whole(job.prompt.len() % infer_kernels::BLOCK_TOKENS + tokens - 1),
            };
            whole(job.prompt.len()) + branches.iter().map(own).sum::<usize>()
        }
    }
}

/// The first branch from `from` on that one row of logits does not score.
fn next_long(branches: &[Branch], from: usize) -> usize {
    (from..branches.len()).find(|&index| branches[index].rows() > 0).unwrap_or(branches.len())
}

impl Branch {
    /// Tokens to compute: the last one's successor does not matter.
    fn rows(&self) -> usize {
        self.tokens.len() - 1
    }

    /// Those of them that the pass computed.
    fn computed(&self) -> usize {
        if self.sequence.len() > 0 { self.rows() } else { 0 }
    }
}

impl Generation<'_> {
    /// Take in a token that was chosen by `logits`. False when it ended the answer and is no part
    /// of it.
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
                // The space that an encoder puts before a text is no part of the answer.
                let own = if begins { bytes.strip_prefix(b" ").unwrap_or(bytes) } else { bytes };
                // Rounding may leave a certain token a little above 0.
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

    /// Give the stream what can no longer become part of a stop string.
    fn send(&mut self, stream: Option<&UnboundedSender<Piece>>) {
        let Some(stream) = stream else { return };
        let is_last = self.finish.is_some();
        let held = if is_last { 0 } else { self.held_back() };
        let end = self.text.len() - held;
        let waiting = &self.logprobs[self.sent_logprobs..];
        // Tokens without a text of their own come with what follows them, or at the end.
        if end > self.sent || (is_last && !waiting.is_empty()) {
            let begun = waiting.iter().take_while(|logprob| is_last || logprob.start < end);
            let logprobs: Vec<_> = begun.cloned().collect();
            self.sent_logprobs += logprobs.len();
            // A receiver that is gone will close the reply as well, or reads the whole text there.
            let _ = stream.send(Piece { text: self.text[self.sent..end].to_owned(), logprobs });
            self.sent = end;
        }
    }

    /// Bytes at the end of the text that a stop string begins with.
    fn held_back(&self) -> usize {
        let begun = |stop: &String| {
            let lengths = (1..stop.len()).rev().filter(|&length| stop.is_char_boundary(length));
            lengths.into_iter().find(|&length| self.text.ends_with(&stop[..length])).unwrap_or(0)
        };
        self.params.stop.iter().map(begun).max().unwrap_or(0)
    }
}
