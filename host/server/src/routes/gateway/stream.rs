//! A streamed answer of an upstream, event by event.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Instant;

use axum::response::Response;
use infer_sandbox::Reservation;
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tracing::{Instrument as _, Span};

use super::account::Account;
use super::guarded::{self, Guarded, Template};
use super::piece::Piece;
use super::sending::{request_id, send};
use crate::abort::Abort;
use crate::error::ApiError;
use crate::limits::MAX_STREAM_CHOICES;
use crate::routes::events::{self, Queue};
use crate::routes::guard::answer::Sent;
use crate::routes::guard::{self, Remark};
use crate::upstream::{Answer, Cause, EventReader, Outgoing};

/// Data of the last event of a stream.
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
    guarded: Option<Guarded>,
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
        let forwarded = match guarded {
            None => {
                let forwarded = forward(&mut pieces, &mut account, &queue, started).await;
                forwarded.map(|()| true).map_err(Stop::Failed)
            }
            Some(guarded) => judge(&mut pieces, &mut account, &queue, started, guarded).await,
        };
        match forwarded {
            Ok(true) => {
                account.end("ok");
                pieces.answer.succeed().await;
                Ok(())
            }
            // Dropping the answer cancels the rest of it.
            Ok(false) | Err(Stop::Flagged(_)) => {
                account.end("filtered");
                Ok(())
            }
            Err(Stop::Guard(error)) => {
                account.end("unjudged");
                Err(error)
            }
            Err(Stop::Failed(cause)) => {
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

/// Reason that a stream ends before its end.
enum Stop {
    Failed(Cause),
    Guard(ApiError),
    Flagged(Remark),
}

/// Forwards the pieces of a stream as its guard releases them. Returns false if a flag ended it.
async fn judge(
    pieces: &mut Pieces,
    account: &mut Account,
    queue: &Queue,
    started: oneshot::Sender<()>,
    Guarded { guard, owner, mut remarks, call }: Guarded,
) -> Result<bool, Stop> {
    // Bounded by `max_response_bytes`, and read as fast as the guard judges.
    let (sender, mut arrived) = unbounded_channel();
    // Events that end the answer, without text of their own.
    let mut ending = Vec::new();
    let form = OnceLock::new();
    let reading = async {
        let sender = sender;
        let mut has_text = false;
        while let Some(piece) = pieces.next(queue).await.map_err(Stop::Failed)? {
            account.count(&piece);
            form.get_or_init(|| Template::new(piece.json()));
            let text = guarded::text(&piece.choices);
            let is_last = piece.choices.iter().any(|choice| choice.is_finished);
            let json = match (text.is_empty(), is_last) {
                (true, _) if has_text || is_last => {
                    ending.push(piece.into_json());
                    continue;
                }
                (false, true) => {
                    let [json, end] = guarded::split(piece.json());
                    ending.push(end);
                    json
                }
                _ => piece.into_json(),
            };
            has_text |= !text.is_empty();
            let _ = sender.send((text, json));
        }
        Ok(())
    };
    let template = || form.get().cloned().unwrap_or_default();
    let read =
        |(text, json): (String, String)| guard::Piece { tokens: guarded::tokens(&text), text, extra: json };
    let mut started = Some(started);
    let mut begin = || started.take().map(|started| started.send(()));
    let send = |sent: Sent<String>| {
        let pushed = match sent {
            Sent::Piece(piece) => queue.push_json(&piece.extra),
            Sent::Redaction(remark) => {
                remarks.push(remark);
                queue.push(&template().text(guard.redaction(), false))
            }
            Sent::Annotation(remark) => {
                let pushed = queue.push(&template().remarks(None, std::slice::from_ref(&remark)));
                remarks.push(remark);
                pushed
            }
        };
        begin();
        pushed.map_err(|_| ApiError::busy())
    };
    let passing = async {
        match guard.pass(&mut arrived, read, send, &owner, &call).await {
            Ok(None) => Ok(()),
            Ok(Some(remark)) => Err(Stop::Flagged(remark)),
            Err(error) => Err(Stop::Guard(error)),
        }
    };
    let is_complete = match tokio::try_join!(reading, passing) {
        Ok(_) => {
            for json in ending {
                queue.push_json(&json).map_err(|_| Stop::Failed(Cause::Memory))?;
            }
            if !remarks.is_empty() {
                queue.end(&template().remarks(None, &remarks));
            }
            true
        }
        Err(Stop::Flagged(remark)) => {
            remarks.push(remark);
            if guard.refuses() {
                queue.end(&template().text(guard.refusal(), true));
            }
            queue.end(&template().remarks(Some("content_filter"), &remarks));
            false
        }
        Err(stop) => return Err(stop),
    };
    if let Some(started) = started.take() {
        let _ = started.send(());
    }
    queue.done();
    Ok(is_complete)
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
