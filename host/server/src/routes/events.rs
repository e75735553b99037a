//! A response of server-sent events, while they are being made.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use http_body::Frame;
use infer_sandbox::{Exhausted, Reservation};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Sleep, sleep};

use crate::abort::Abort;
use crate::error::ApiError;
use crate::limits::MAX_UNSENT_BYTES;

/// Header that makes nginx and similar proxies forward a stream unbuffered.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Interval of keep-alive comments in a silent stream: proxies close a stream that is silent for a
/// minute.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A comment of server-sent events, which every client ignores.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The task that makes the events.
pub(super) type Computing = Abort<Result<(), ApiError>>;

/// Returns a queue of events, and the end from which the client reads. Unread events are charged to
/// `unsent`.
pub(super) fn queue(unsent: Reservation) -> (Queue, Unread) {
    // Bounded by whatever makes the events; their memory is counted.
    let (sender, receiver) = unbounded_channel();
    let charge = Charge { reservation: unsent, bytes: 0 };
    let unsent = Arc::new(Unsent { charge: Mutex::new(charge), read: Notify::new() });
    (Queue { sender, unsent: unsent.clone() }, Unread { receiver, unsent })
}

/// Begins a response with the events of `task`, which continues until its last event, or until the
/// body is dropped because the client disconnected; then it is cancelled. `start` resolves before
/// the first event.
///
/// # Errors
///
/// Errors before the first event, which still have their own status. Later errors, and all errors
/// after [`KEEP_ALIVE_INTERVAL`], become the stream's last event.
pub(super) async fn begin(
    mut task: Computing,
    unread: Unread,
    start: oneshot::Receiver<()>,
) -> Result<Response, ApiError> {
    tokio::select! {
        biased;
        Ok(()) = start => {}
        ended = &mut task.0 => ended.map_err(|_| ApiError::internal("internal"))??,
        // The first event takes long, as after a long prompt.
        () = sleep(KEEP_ALIVE_INTERVAL) => {}
    }
    Ok(respond(task, unread))
}

/// The response with the events of `task`.
pub(super) fn respond(task: Computing, unread: Unread) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        // A buffering proxy would delay events.
        (ACCEL_BUFFERING, "no"),
    ];
    (headers, Body::new(Events::new(unread, task, KEEP_ALIVE_INTERVAL))).into_response()
}

/// Memory of the events that the client has not read.
struct Unsent {
    /// Locked for a few instructions, by the computation and by the connection.
    charge: Mutex<Charge>,
    /// Wakes the computation when an event was read.
    read: Notify,
}

struct Charge {
    reservation: Reservation,
    bytes: usize,
}

impl Unsent {
    fn charge(&self) -> MutexGuard<'_, Charge> {
        self.charge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events that the client has not read. They count as request memory until it does.
pub(super) struct Queue {
    sender: UnboundedSender<Bytes>,
    unsent: Arc<Unsent>,
}

impl Queue {
    /// Adds an event.
    ///
    /// # Errors
    ///
    /// If the memory budget is exhausted.
    pub(super) fn push(&self, event: &Value) -> Result<(), Exhausted> {
        self.push_bytes(write(event))
    }

    /// Adds an event with this JSON, in which line breaks are replaced: JSON has none inside of
    /// strings.
    ///
    /// # Errors
    ///
    /// As [`Queue::push`].
    pub(super) fn push_json(&self, json: &str) -> Result<(), Exhausted> {
        self.push_bytes(format!("data: {}\n\n", json.replace(['\n', '\r'], " ")).into())
    }

    fn push_bytes(&self, event: Bytes) -> Result<(), Exhausted> {
        let mut charge = self.unsent.charge();
        charge.reservation.grow(event.len())?;
        charge.bytes += event.len();
        drop(charge);
        // Sending fails only if the client has disconnected.
        let _ = self.sender.send(event);
        Ok(())
    }

    /// Adds one of the few events that end a stream, even if the memory budget is exhausted.
    pub(super) fn end(&self, event: &Value) {
        let _ = self.sender.send(write(event));
    }

    /// Adds the last event, `[DONE]`.
    pub(super) fn done(&self) {
        let _ = self.sender.send(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    /// Waits until the client has read most of what was added.
    pub(super) async fn room(&self) {
        while self.unsent.charge().bytes > MAX_UNSENT_BYTES {
            self.unsent.read.notified().await;
        }
    }
}

fn write(event: &Value) -> Bytes {
    format!("data: {event}\n\n").into()
}

/// An error after the first event, in the format that OpenAI's clients expect.
fn failure(error: &ApiError) -> Value {
    json!({ "error": { "message": error.to_string(), "type": "server_error", "param": null, "code": error.code() } })
}

/// The end of a [`Queue`] from which the client reads.
pub(super) struct Unread {
    receiver: UnboundedReceiver<Bytes>,
    unsent: Arc<Unsent>,
}

/// The events as they arrive, and a comment after each `silence`. Dropping it cancels the
/// computation.
struct Events {
    unread: Unread,
    task: Computing,
    /// True once the outcome of the task has been checked.
    is_finished: bool,
    silence: Duration,
    silent: Pin<Box<Sleep>>,
}

impl Events {
    fn new(unread: Unread, task: Computing, silence: Duration) -> Self {
        Events { unread, task, is_finished: false, silence, silent: Box::pin(sleep(silence)) }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(event) = ready!(self.unread.receiver.poll_recv(context)) {
            let mut charge = self.unread.unsent.charge();
            charge.reservation.shrink(event.len());
            charge.bytes = charge.bytes.saturating_sub(event.len());
            drop(charge);
            self.unread.unsent.read.notify_one();
            return Poll::Ready(Some(event));
        }
        if self.is_finished {
            return Poll::Ready(None);
        }
        let ended = ready!(Pin::new(&mut self.task.0).poll(context));
        self.is_finished = true;
        let ended = ended.unwrap_or_else(|_| Err(ApiError::internal("internal")));
        Poll::Ready(ended.err().map(|error| write(&failure(&error))))
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = match self.poll_event(context) {
            Poll::Pending => {
                ready!(self.silent.as_mut().poll(context));
                Some(Bytes::from_static(KEEP_ALIVE))
            }
            Poll::Ready(event) => event,
        };
        let until = tokio::time::Instant::now() + self.silence;
        self.silent.as_mut().reset(until);
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    async fn next(events: &mut Events) -> Option<Bytes> {
        events.frame().await.map(|frame| frame.unwrap().into_data().unwrap())
    }

    fn empty_queue() -> (Queue, Unread) {
        queue(infer_sandbox::RequestMemory::default().reservation())
    }

    #[tokio::test]
    async fn silent_stream_sends_keep_alive_comments() {
        let (queue, unread) = empty_queue();
        let task = Abort(tokio::spawn(async { Ok(()) }));
        let mut events = Events::new(unread, task, Duration::from_millis(5));
        for _ in 0..3 {
            assert_eq!(next(&mut events).await.unwrap(), KEEP_ALIVE);
        }
        queue.push(&json!(1)).unwrap();
        queue.push_json("[2,\n3]").unwrap();
        events.silence = LONG;
        events.silent = Box::pin(sleep(LONG));
        assert_eq!(next(&mut events).await.unwrap(), "data: 1\n\n");
        assert_eq!(next(&mut events).await.unwrap(), "data: [2, 3]\n\n");
        drop(queue);
        assert_eq!(next(&mut events).await, None);
    }

    #[tokio::test]
    async fn late_error_is_the_last_event() {
        let (queue, unread) = empty_queue();
        let task = Abort(tokio::spawn(async move {
            drop(queue);
            Err(ApiError::deadline())
        }));
        let mut events = Events::new(unread, task, LONG);
        let event = next(&mut events).await.unwrap();
        assert!(event.starts_with(b"data: {\"error\":"), "{event:?}");
        assert_eq!(next(&mut events).await, None);
    }

    #[tokio::test]
    async fn unread_events_pause_their_source() {
        let memory = infer_sandbox::RequestMemory::default();
        let (queue, unread) = queue(memory.reservation());
        let event = json!("x".repeat(1_000));
        let task = Abort(tokio::spawn(async move {
            for _ in 0..10_000 {
                queue.room().await;
                queue.push(&event).map_err(|_| ApiError::busy())?;
            }
            Ok(())
        }));
        let mut events = Events::new(unread, task, LONG);
        let mut count = 0;
        while next(&mut events).await.is_some() {
            count += 1;
            assert!(memory.used_bytes() < MAX_UNSENT_BYTES + 2_000);
        }
        assert_eq!((count, memory.used_bytes()), (10_000, 0));
    }
}
