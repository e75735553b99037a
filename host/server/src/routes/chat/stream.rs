//! An answer as server-sent events, while it is being generated.

use axum::response::Response;
use infer_engine::TokenUsage;
use infer_sandbox::Reservation;
use tokio::sync::oneshot;

use super::answer::Turn;
use super::response::{End, Head};
use crate::abort::Abort;
use crate::error::ApiError;
use crate::routes::events::{self, Queue};
use crate::routes::guard::answer::Sent;
use crate::routes::guard::{Guard, Remark};

/// A stream beside its answer.
pub(super) struct Stream {
    pub(super) head: Head,
    /// Adds the usage at the end.
    pub(super) include_usage: bool,
    /// Remarks on the input.
    pub(super) remarks: Vec<Remark>,
    /// Memory of the events that the client has not read.
    pub(super) unsent: Reservation,
}

/// Begins to answer. The computation continues until its last event, or until the body is dropped
/// because the client disconnected; then it is cancelled after the current pass, and its resources
/// are released.
///
/// # Errors
///
/// As [`events::begin`].
pub(super) async fn begin(turn: Turn, stream: Stream) -> Result<Response, ApiError> {
    let Stream { head, include_usage, mut remarks, unsent } = stream;
    // Bounded: at most one event per token, which the request limits.
    let (queue, unread) = events::queue(unsent);
    let (started, start) = oneshot::channel();
    let computing = async move {
        let guard = turn.guard.clone();
        let text = |of: fn(&Guard) -> &str| guard.as_deref().map_or("", of);
        let mut started = Some(started);
        let mut first = || {
            let Some(started) = started.take() else { return };
            if let Some(event) = head.first() {
                queue.end(&event);
            }
            let _ = started.send(());
        };
        // If memory is exhausted, a client that reads slower than events are generated ends the
        // computation.
        let ended = turn
            .write(|sent| {
                first();
                let event = match sent {
                    Sent::Piece(piece) => head.piece(&piece.text, &piece.extra),
                    Sent::Redaction(remark) => {
                        remarks.push(remark);
                        head.piece(text(Guard::redaction), &[])
                    }
                    Sent::Annotation(remark) => {
                        let event = head.remarks(std::slice::from_ref(&remark));
                        remarks.push(remark);
                        event
                    }
                };
                queue.push(&event).map_err(|_| ApiError::busy())
            })
            // Before the first event this is the response, afterwards the last event of the stream.
            .await?;
        first();
        if matches!(ended.end, End::Filtered { is_refusal: true }) {
            queue.end(&head.refusal(text(Guard::refusal)));
        }
        remarks.extend(ended.remark);
        finish(&queue, &head, ended.end, &remarks, include_usage.then_some(ended.usage));
        Ok(())
    };
    events::begin(Abort(tokio::spawn(computing)), unread, start).await
}

/// The stream of a request that a guard refused.
pub(super) fn refused(stream: Stream, refusal: &str) -> Response {
    let Stream { head, include_usage, remarks, unsent } = stream;
    let (queue, unread) = events::queue(unsent);
    if let Some(event) = head.first() {
        queue.end(&event);
    }
    queue.end(&head.refusal(refusal));
    finish(&queue, &head, End::REFUSED, &remarks, include_usage.then(TokenUsage::default));
    let done = Abort(tokio::spawn(async { Ok(()) }));
    events::respond(done, unread)
}

/// Adds the events that end a stream.
fn finish(queue: &Queue, head: &Head, end: End, remarks: &[Remark], usage: Option<TokenUsage>) {
    queue.end(&head.last(end, remarks));
    if let Some(usage) = usage {
        queue.end(&head.usage(usage));
    }
    queue.done();
}
