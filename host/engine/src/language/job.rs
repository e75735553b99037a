//! A request in tokens, and the blocks that it needs.

use std::sync::Arc;
use std::time::Instant;

use infer_kernels::BLOCK_TOKENS;
use tokio::sync::{mpsc, oneshot};

use super::choices::Choices;
use super::format::Constraint;
use super::prefix::CacheOwner;
use super::request::{Answer, Params, Piece};
use crate::model::RunError;

/// A queued request, in tokens.
pub(super) struct Job {
    /// The session. Fairness applies to its component.
    pub(super) owner: CacheOwner,
    /// Not empty.
    pub(super) prompt: Arc<[u32]>,
    /// Number of leading tokens that other sessions of the component may reuse.
    pub(super) declared: usize,
    /// Pins these tokens in the prefix cache.
    pub(super) pin: bool,
    pub(super) work: Work,
    /// Receives text as it is generated.
    pub(super) stream: Option<mpsc::UnboundedSender<Piece>>,
    pub(super) queued: Instant,
    pub(super) deadline: Instant,
    /// Closed after the caller has left.
    pub(super) reply: oneshot::Sender<Result<Answer, RunError>>,
}

/// The computation that is requested for a prompt.
#[derive(Debug)]
pub(super) enum Work {
    /// The log-probability of each choice after the prompt.
    Score(Choices),
    /// Text after the prompt, in the format of the constraint, if there is one.
    Generate(Params, Option<Box<Constraint>>),
}

impl Job {
    /// True if the caller has left, or the deadline has passed.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_closed() || now >= self.deadline
    }

    /// Maximum number of blocks that the job may use: for the prompt and the answer, or for the
    /// prompt and the choices.
    pub(super) fn blocks(&self) -> usize {
        let whole = |tokens: usize| tokens.div_ceil(BLOCK_TOKENS);
        match &self.work {
            // The last generated token is not computed.
            Work::Generate(params, _) => whole(self.prompt.len() + params.max_tokens - 1),
            Work::Score(choices) => {
                whole(self.prompt.len() + choices.first().count()) + choices.blocks(self.prompt.len())
            }
        }
    }
}
