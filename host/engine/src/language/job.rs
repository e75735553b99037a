//! A request in tokens, and what it needs.

use std::sync::Arc;
use std::time::Instant;

use infer_kernels::BLOCK_TOKENS;
use tokio::sync::{mpsc, oneshot};

use super::prefix::CacheOwner;
use super::request::{Answer, Params, Piece};
use crate::model::RunError;

/// A request in tokens.
pub(super) struct Job {
    /// Who asks: fairness is kept by component.
    pub(super) owner: CacheOwner,
    /// At least one token.
    pub(super) prompt: Arc<[u32]>,
    /// How many of the first tokens other sessions of the component may find.
    pub(super) declared: usize,
    /// Whether to pin these.
    pub(super) pin: bool,
    pub(super) work: Work,
    /// Receives text as it is generated.
    pub(super) stream: Option<mpsc::UnboundedSender<Piece>>,
    pub(super) queued: Instant,
    pub(super) deadline: Instant,
    /// Closed once the caller is gone.
    pub(super) reply: oneshot::Sender<Result<Answer, RunError>>,
}

/// What is wanted for the prompt.
#[derive(Debug)]
pub(super) enum Work {
    /// The log-probability of each branch after it; none is empty.
    Score(Vec<Vec<u32>>),
    /// Text after it.
    Generate(Params),
}

impl Job {
    /// Whether nobody waits for the answer any more.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_closed() || now >= self.deadline
    }

    /// The most blocks that a job may hold: its prompt's and answer's, or its prompt's and those of its
    /// choices' own.
    pub(super) fn blocks(&self) -> usize {
        let whole = |tokens: usize| tokens.div_ceil(BLOCK_TOKENS);
        match &self.work {
            // The last token that is generated is not computed.
            Work::Generate(params) => whole(self.prompt.len() + params.max_tokens - 1),
            Work::Score(branches) => {
                let own = |branch: &Vec<u32>| match branch.len() {
                    1 => 0,
                    tokens => whole(self.prompt.len() % BLOCK_TOKENS + tokens - 1),
                };
                whole(self.prompt.len()) + branches.iter().map(own).sum::<usize>()
            }
        }
    }
}
