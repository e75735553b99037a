//! A request that is being computed.

use std::time::{Duration, Instant};

use super::decoder::Run;
use super::generation::Generation;
use super::job::{Job, Work};
use super::kv::{Full, KvPool, Sequence};
use super::request::{Answer, Output, TokenUsage};
use super::sampler::log_sum_exp;
use super::tokenizer::Tokenizer;

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

impl<'t> Task<'t> {
    /// Begin a job at the prefix that was found for it.
    pub(super) fn new(mut job: Job, prefix: Sequence, tokenizer: &'t Tokenizer) -> Self {
        let last = *job.prompt.last().expect("a prompt has at least one token");
        let goal = match &mut job.work {
            Work::Score(choices) => {
                let branch = |tokens| Branch { tokens, sequence: Sequence::default(), logprob: 0.0 };
                Goal::Score { branches: std::mem::take(choices).into_iter().map(branch).collect(), next: 0 }
            }
            Work::Generate(params) => Goal::Generate(Box::new(Generation::new(params, last, tokenizer))),
        };
        let reserved = job.blocks().saturating_sub(prefix.whole_blocks());
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
                let generated = self.tokens.len() - self.job.prompt.len();
                let has_room = self.tokens.len() < context && generated + 1 < generation.max_tokens();
                let stream = self.job.stream.as_ref();
                self.tokens.extend(generation.advance(logits, has_room, tokenizer, stream));
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
            Goal::Generate(generation) => generation.is_done(),
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
            Goal::Generate(generation) => generation.output(self.tokens[prompt_tokens..].to_vec()),
        };
        let usage = TokenUsage { prompt_tokens, cached_tokens: self.cached, generated_tokens };
        let queue = self.began - self.job.queued;
        (self.job, Answer { output, usage, queue, compute: self.compute, batch: self.batch })
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
