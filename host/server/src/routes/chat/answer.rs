//! An answer, from the model through its guard to the response.

use std::sync::Arc;

use infer_engine::{Model, Output, Request, Session, TokenLogprob, TokenUsage};
use tokio::sync::mpsc::unbounded_channel;

use super::form::language;
use super::response::{End, Timings, Written};
use crate::error::ApiError;
use crate::routes::guard::answer::Sent;
use crate::routes::guard::{Guard, Piece, Remark};

/// A request to a model.
pub(super) struct Turn {
    pub(super) model: Arc<Model>,
    pub(super) session: Session,
    pub(super) request: Request,
    pub(super) guard: Option<Arc<Guard>>,
    /// Whose conversation it is.
    pub(super) owner: Arc<str>,
    /// Identifies the request, with its deadline.
    pub(super) call: infer_sandbox::Request,
}

/// The end of an answer.
pub(super) struct Ended {
    pub(super) end: End,
    /// Remark of the guard that ended the answer.
    pub(super) remark: Option<Remark>,
    pub(super) usage: TokenUsage,
    /// `None` if the guard ended the answer.
    pub(super) timings: Option<Timings>,
}

/// Reason that an answer stops before its end.
enum Stop {
    Failed(ApiError),
    Flagged(Remark),
}

impl Turn {
    /// Writes the answer, and gives its parts to `send`. Dropping the future cancels the
    /// computation after the current pass.
    ///
    /// # Errors
    ///
    /// Those of the model, of the guard and of `send`.
    pub(super) async fn write(
        self,
        mut send: impl FnMut(Sent<Vec<TokenLogprob>>) -> Result<(), ApiError>,
    ) -> Result<Ended, ApiError> {
        let Turn { model, mut session, request, guard, owner, call } = self;
        let language = language(&model)?;
        let (sender, mut pieces) = unbounded_channel();
        let mut usage = TokenUsage::default();
        let read = |piece: infer_engine::Piece| {
            let before = std::mem::replace(&mut usage, piece.usage);
            let tokens = usage.generated_tokens.saturating_sub(before.generated_tokens);
            Piece { text: piece.text, tokens, extra: piece.logprobs }
        };
        let answering = async {
            language
                .run(&mut session, request, Some(sender), call.deadline)
                .await
                .map_err(|e| Stop::Failed(e.into()))
        };
        let passing = async {
            let passed = match &guard {
                Some(guard) => guard.pass(&mut pieces, read, send, &owner, &call).await,
                None => {
                    let mut read = read;
                    let mut passed = Ok(None);
                    while let (Ok(_), Some(piece)) = (&passed, pieces.recv().await) {
                        passed = send(Sent::Piece(read(piece))).map(|()| None);
                    }
                    passed
                }
            };
            match passed {
                Ok(None) => Ok(()),
                Ok(Some(remark)) => Err(Stop::Flagged(remark)),
                Err(error) => Err(Stop::Failed(error)),
            }
        };
        match tokio::try_join!(answering, passing) {
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Flagged(remark)) => {
                let is_refusal = guard.is_some_and(|guard| guard.refuses());
                Ok(Ended { end: End::Filtered { is_refusal }, remark: Some(remark), usage, timings: None })
            }
            Ok((answer, ())) => {
                let Output::Text { finish, .. } = answer.output else {
                    return Err(ApiError::internal("internal"));
                };
                let timings = Timings {
                    queue_ms: answer.queue.as_secs_f64() * 1e3,
                    compute_ms: answer.compute.as_secs_f64() * 1e3,
                };
                let (end, usage) = (End::Model(finish), answer.usage);
                Ok(Ended { end, remark: None, usage, timings: Some(timings) })
            }
        }
    }

    /// Writes the whole answer. A refusal replaces it.
    ///
    /// # Errors
    ///
    /// As [`Turn::write`].
    pub(super) async fn whole(self, remarks: Vec<Remark>) -> Result<(Written, Ended), ApiError> {
        let guard = self.guard.clone();
        let redaction = guard.as_ref().map_or("", |guard| guard.redaction());
        let mut written = Written { remarks, ..Written::default() };
        let mut ended = self
            .write(|sent| {
                match sent {
                    Sent::Piece(piece) => {
                        written.text += &piece.text;
                        written.logprobs.extend(piece.extra);
                    }
                    Sent::Redaction(remark) => {
                        written.text += redaction;
                        written.remarks.push(remark);
                    }
                    Sent::Annotation(remark) => written.remarks.push(remark),
                }
                Ok(())
            })
            .await?;
        written.remarks.extend(ended.remark.take());
        if let (End::Filtered { is_refusal: true }, Some(guard)) = (ended.end, &guard) {
            written.text = guard.refusal().to_owned();
            written.logprobs.clear();
        }
        Ok((written, ended))
    }
}
