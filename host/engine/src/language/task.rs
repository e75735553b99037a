//! A request that is being computed.

use std::time::{Duration, Instant};

use super::choices::Choices;
use super::clock;
use super::decoder::Run;
use super::generation::Generation;
use super::job::{Job, Work};
use super::kv::{Full, KvPool, Sequence};
use super::request::{Answer, Output, TokenUsage};
use super::tokenizer::Tokenizer;

pub(super) struct Task<'t> {
    pub(super) job: Job,
    /// The prompt, and the tokens generated after it or the first run of the choices.
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
    Score(Choices),
    Generate(Box<Generation<'t>>),
}

impl<'t> Task<'t> {
    /// Starts a job after its cached prefix.
    pub(super) fn new(mut job: Job, prefix: Sequence, tokenizer: &'t Tokenizer) -> Self {
        let last = *job.prompt.last().expect("a prompt has at least one token");
        let mut tokens = job.prompt.to_vec();
        let reserved = job.blocks().saturating_sub(prefix.whole_blocks());
        let goal = match &mut job.work {
            Work::Score(choices) => {
                let choices = std::mem::take(choices);
                tokens.extend(choices.first());
                Goal::Score(choices)
            }
            Work::Generate(params, constraint) => {
                Goal::Generate(Box::new(Generation::new(params, constraint.take(), last, tokenizer)))
            }
        };
        Task {
            tokens,
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
            Goal::Score(choices) if self.sequence.len() == self.tokens.len() => choices.pending(),
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
            if let Goal::Score(choices) = &mut self.goal {
                // Rows from the last token of the prompt.
                let of_choices = |tokens: usize| (tokens + 1).saturating_sub(self.job.prompt.len());
                choices.prepare_first(of_choices(computed), of_choices(end));
            }
        } else if let Goal::Score(choices) = &mut self.goal {
            self.share = choices.prepare(&self.sequence, self.job.prompt.len(), rows, pool)?;
        }
        self.reserved = self.reserved.saturating_sub(pool.used() - used);
        Ok(())
    }

    /// The runs of the next pass, as prepared.
    pub(super) fn runs(&mut self) -> Vec<Run<'_>> {
        let logit_rows = self.logit_rows();
        let Task { share, sequence, goal, .. } = self;
        match goal {
            _ if *share == 0 => Vec::new(),
            Goal::Score(choices) if choices.is_after_first() => choices.runs().collect(),
            _ => {
                let start = sequence.len() - *share;
                vec![Run { sequence, start, logit_rows }]
            }
        }
    }

    /// Number of rows of logits of the pass that belong to this task: one after its last token, or
    /// those of its choices.
    pub(super) fn logit_rows(&self) -> usize {
        match &self.goal {
            _ if self.share == 0 => 0,
            Goal::Score(choices) => choices.logit_rows(),
            Goal::Generate(_) => usize::from(self.sequence.len() == self.tokens.len()),
        }
    }

    /// Processes row `row` of this task's logits. The rows arrive in order.
    pub(super) fn take(&mut self, row: usize, logits: &mut [f32], context: usize, tokenizer: &Tokenizer) {
        match &mut self.goal {
            Goal::Generate(generation) => {
                let prompt_tokens = self.job.prompt.len();
                let generated_tokens = self.tokens.len() - prompt_tokens;
                let has_room = self.tokens.len() < context && generated_tokens + 1 < generation.max_tokens();
                let usage = TokenUsage { prompt_tokens, cached_tokens: self.cached, generated_tokens };
                let stream = self.job.stream.as_ref();
                self.tokens.extend(generation.advance(logits, has_room, tokenizer, usage, stream));
            }
            Goal::Score(choices) => choices.take(row, logits),
        }
    }

    /// Length of the computed part of the prompt, and of a generated answer: a later request of the
    /// session may begin with it.
    pub(super) fn reusable(&self) -> usize {
        match &self.goal {
            Goal::Score(_) => self.sequence.len().min(self.job.prompt.len()),
            Goal::Generate(_) => self.sequence.len(),
        }
    }

    /// All sequences that the task holds.
    #[cfg(test)]
    pub(super) fn sequences(&self) -> impl Iterator<Item = &Sequence> {
        let choices = match &self.goal {
            Goal::Score(choices) => Some(choices),
            Goal::Generate(_) => None,
        };
        std::iter::once(&self.sequence).chain(choices.into_iter().flat_map(Choices::sequences))
    }

    /// True if the answer is complete.
    pub(super) fn is_done(&self) -> bool {
        match &self.goal {
            Goal::Score(choices) => self.sequence.len() == self.tokens.len() && choices.is_done(),
            Goal::Generate(generation) => generation.is_done(),
        }
    }

    /// Reason that the answer could not be completed.
    pub(super) fn failure(&self) -> Option<&str> {
        match &self.goal {
            Goal::Generate(generation) => generation.failure(),
            Goal::Score(_) => None,
        }
    }

    /// The answer, once it is complete.
    pub(super) fn finish(self) -> (Job, Answer) {
        let prompt_tokens = self.job.prompt.len();
        let (output, generated_tokens) = match self.goal {
            Goal::Score(choices) => (Output::Scores(choices.logprobs()), 0),
            Goal::Generate(generation) => {
                let generated = self.tokens[prompt_tokens..].to_vec();
                let count = generated.len();
                (generation.output(generated), count)
            }
        };
        let usage = TokenUsage { prompt_tokens, cached_tokens: self.cached, generated_tokens };
        let queue = self.began - self.job.queued;
        (self.job, Answer { output, usage, queue, compute: self.compute, batch: self.batch })
    }
}
