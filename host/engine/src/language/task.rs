//! A request that is being computed.

use std::time::{Duration, Instant};

use super::clock;
use super::decoder::Run;
use super::generation::Generation;
use super::job::{Job, Work};
use super::kv::{Full, KvPool, Sequence};
use super::request::{Answer, Output, TokenUsage};
use super::sampler::log_sum_exp;
use super::tokenizer::Tokenizer;

pub(super) struct Task<'t> {
    pub(super) job: Job,
    /// The prompt, and the tokens generated after it.
    tokens: Vec<u32>,
    /// The computed part of `tokens`.
    pub(super) sequence: Sequence,
    goal: Goal<'t>,
    cached: usize,
    /// Maximum number of blocks that the task may still allocate.
    pub(super) reserved: usize,
    /// Rows of this task in the next pass.
    pub(super) share: usize,
    pub(super) began: Instant,
    pub(super) compute: Duration,
    pub(super) batch: usize,
}

enum Goal<'t> {
    Score { branches: Vec<Branch>, next: usize },
    Generate(Box<Generation<'t>>),
}

/// A choice: its tokens after the prompt.
struct Branch {
    tokens: Vec<u32>,
    sequence: Sequence,
    logprob: f32,
}

impl<'t> Task<'t> {
    /// Starts a job after its cached prefix.
    pub(super) fn new(mut job: Job, prefix: Sequence, tokenizer: &'t Tokenizer) -> Self {
        let last = *job.prompt.last().expect("a prompt has at least one token");
        let goal = match &mut job.work {
            Work::Score(choices) => {
                let branch = |tokens| Branch { tokens, sequence: Sequence::default(), logprob: 0.0 };
                Goal::Score { branches: std::mem::take(choices).into_iter().map(branch).collect(), next: 0 }
            }
            Work::Generate(params, constraint) => {
                Goal::Generate(Box::new(Generation::new(params, constraint.take(), last, tokenizer)))
            }
        };
        let reserved = job.blocks().saturating_sub(prefix.whole_blocks());
        Task {
            tokens: job.prompt.to_vec(),
            cached: prefix.len(),
            sequence: prefix,
            goal,
            reserved,
            share: 0,
            began: clock::now(),
            compute: Duration::ZERO,
            batch: 0,
            job,
        }
    }

    /// Number of rows that are ready to be computed.
    pub(super) fn pending(&self) -> usize {
        match &self.goal {
            Goal::Score { branches, next } if self.sequence.len() == self.tokens.len() => {
                branches.get(*next).map_or(0, Branch::rows)
            }
            _ => self.tokens.len() - self.sequence.len(),
        }
    }

    /// True if the pending rows belong together and have priority: a token of an answer, or a
    /// choice.
    pub(super) fn is_urgent(&self) -> bool {
        self.sequence.len() >= self.job.prompt.len()
    }

    /// Length of the common prefix of the task's prompt and `prompt`.
    pub(super) fn common(&self, prompt: &[u32]) -> usize {
        self.job.prompt.iter().zip(prompt).take_while(|(a, b)| a == b).count()
    }

    /// Takes part in the next pass with at most `rows` rows, but always with at least one
    /// indivisible group of rows.
    ///
    /// # Errors
    ///
    /// If the pool has no blocks for them.
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
                        let logit_rows = branch.tokens.len() - 1;
                        let start = branch.sequence.len() - logit_rows;
                        Run { sequence: &mut branch.sequence, start, logit_rows }
                    })
                    .collect()
            }
            _ => {
                let start = sequence.len() - *share;
                let logit_rows = usize::from(sequence.len() == tokens.len());
                vec![Run { sequence, start, logit_rows }]
            }
        }
    }

    /// Number of rows of logits of the pass that belong to this task: one after its last token, or
    /// those of all its branches.
    pub(super) fn logit_rows(&self) -> usize {
        match &self.goal {
            _ if self.share == 0 || self.sequence.len() < self.tokens.len() => 0,
            Goal::Score { branches, .. } => branches.iter().map(Branch::computed).sum::<usize>().max(1),
            Goal::Generate(_) => 1,
        }
    }

    /// Processes row `row` of this task's logits. The rows arrive in order.
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

    /// True if the answer is complete.
    pub(super) fn is_done(&self) -> bool {
        match &self.goal {
            Goal::Score { branches, next } => self.is_urgent() && *next == branches.len(),
            Goal::Generate(generation) => generation.is_done(),
        }
    }

    /// Reason that the answer could not be completed.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.goal {
            Goal::Generate(generation) => generation.failure(),
            Goal::Score { .. } => None,
        }
    }

    /// The answer, once it is complete.
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

/// Index of the first branch from `from` that needs more than one row of logits.
fn next_long(branches: &[Branch], from: usize) -> usize {
    (from..branches.len()).find(|&index| branches[index].rows() > 0).unwrap_or(branches.len())
}

impl Branch {
    /// Number of tokens to compute. The last token needs no successor.
    fn rows(&self) -> usize {
        self.tokens.len() - 1
    }

    /// Number of rows that the pass computed.
    fn computed(&self) -> usize {
        if self.sequence.len() > 0 { self.rows() } else { 0 }
    }
}
