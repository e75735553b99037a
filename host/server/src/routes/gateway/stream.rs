//! A streamed answer of an upstream, event by event.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::response::Response;
use infer_sandbox::Reservation;
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tracing::{Instrument as _, Span};

use super::account::Account;
use super::piece::Piece;
use super::sending::{request_id, send};
use crate::abort::Abort;
use crate::error::ApiError;
use crate::limits::MAX_STREAM_CHOICES;
use crate::routes::events::{self, Queue};
use crate::upstream::{Answer, Cause, EventReader, Outgoing};

/// Data of the event after which there is none.
const DONE: &[u8] = b"[DONE]";

/// Sends the request, and begins to answer with the upstream's events. `memory` belongs to the
/// request, `unsent` is for events that the client has not read. Dropping the body closes the
/// upstream's connection.
///
/// # Errors
///
/// As [`events::begin`].
pub(super) async fn begin(
    mut account: Account,
    outgoing: Outgoing,
    deadline: Instant,
    mut memory: Reservation,
    unsent: Reservation,
) -> Result<Response, ApiError> {
    let (queue, unread) = events::queue(unsent);
    let (started, start) = oneshot::channel();
    let (identified, mut identity) = oneshot::channel();
    let forwarding = async move {
        let answer = send(&mut account, &outgoing, deadline).await?;
        memory.shrink(outgoing.body.len());
        drop(outgoing);
        if let Some(id) = request_id(&answer) {
            let _ = identified.send(id);
        }
        let reader = EventReader::new(account.upstream.config.max_event_bytes);
        let mut pieces = Pieces { answer, reader, memory, held: 0, deadline, ending: Ending::default() };
        match forward(&mut pieces, &mut account, &queue, started).await {
            Ok(()) => {
                account.end("ok");
                pieces.answer.succeed().await;
                Ok(())
            }
            Err(cause) => {
                pieces.answer.fail(&cause);
                Err(account.failed(&cause))
            }
        }
    };
    let task = Abort(tokio::spawn(forwarding.instrument(Span::current())));
    let mut response = events::begin(task, unread, start).await?;
    // Before the first event, or never.
    response.headers_mut().extend(identity.try_recv().ok());
    Ok(response)
}

/// Forwards the pieces of a stream as they arrive.
async fn forward(
    pieces: &mut Pieces,
    account: &mut Account,
    queue: &Queue,
    started: oneshot::Sender<()>,
) -> Result<(), Cause> {
    let mut started = Some(started);
    while let Some(piece) = pieces.next(queue).await? {
        account.count(&piece);
        queue.push_json(piece.json()).map_err(|_| Cause::Memory)?;
        if let Some(started) = started.take() {
            let _ = started.send(());
        }
    }
    queue.done();
    Ok(())
}

/// The pieces of a streamed answer.
struct Pieces {
    answer: Answer,
    reader: EventReader,
    /// Charge for `held` bytes of events that are incomplete.
    memory: Reservation,
    held: usize,
    deadline: Instant,
    ending: Ending,
}

impl Pieces {
    /// Returns the next piece, or `None` after a complete answer. No more is read from the upstream
    /// while `queue` is full.
    ///
    /// # Errors
    ///
    /// If the upstream stalls, sends garbage or an error, or ends the stream too early.
    async fn next(&mut self, queue: &Queue) -> Result<Option<Piece>, Cause> {
        loop {
            let max = self.reader.max_bytes();
            if let Some(data) = self.reader.next().map_err(|_| Cause::EventTooLarge(max))? {
                if data.trim_ascii() == DONE {
                    return Ok(None);
                }
                let piece = Piece::read(data)?;
                if let Some(message) = piece.error() {
                    return Err(Cause::Reported(message));
                }
                self.ending.see(&piece)?;
                return Ok(Some(piece));
            }
            timeout_at(self.deadline.into(), queue.room()).await.map_err(|_| Cause::Deadline)?;
            let Some(data) = self.answer.next().await? else {
                let is_done = self.reader.finish().is_some_and(|data| data.trim_ascii() == DONE);
                return if is_done || self.ending.is_complete() { Ok(None) } else { Err(Cause::Unfinished) };
            };
            self.reader.add(data);
            self.charge()?;
        }
    }

    /// Charges the bytes that the reader holds.
    fn charge(&mut self) -> Result<(), Cause> {
        let held = self.reader.held_bytes();
        self.memory.shrink(self.held.saturating_sub(held));
        self.memory.grow(held.saturating_sub(self.held)).map_err(|_| Cause::Memory)?;
        self.held = held;
        Ok(())
    }
}

/// The choices of a stream, each with true once it has ended.
#[derive(Default)]
struct Ending(BTreeMap<u64, bool>);

impl Ending {
    fn see(&mut self, piece: &Piece) -> Result<(), Cause> {
        for choice in &piece.choices {
            *self.0.entry(choice.index).or_default() |= choice.is_finished;
        }
        if self.0.len() > MAX_STREAM_CHOICES {
            return Err(Cause::NotJson(format!("more than {MAX_STREAM_CHOICES} choices")));
        }
        Ok(())
    }

    /// True if every choice has ended.
    fn is_complete(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|is_finished| *is_finished)
    }
}
