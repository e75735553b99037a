//! An answer as server-sent events, while it is being generated.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body::Frame;
use infer_engine::TokenUsage;
use infer_sandbox::{Exhausted, Reservation};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use super::answer::Turn;
use super::response::{End, Head};
use crate::abort::Abort;
use crate::error::ApiError;
use crate::routes::guard::answer::Sent;
use crate::routes::guard::{Guard, Remark};

/// Interval of keep-alive comments in a silent stream: proxies close a stream that is silent for a
/// minute.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// A comment of server-sent events, which every client ignores.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

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
/// Errors before the first event, which still have their own status. Later errors, and all errors
/// after [`KEEP_ALIVE_INTERVAL`], become the stream's last event.
pub(super) async fn begin(turn: Turn, stream: Stream) -> Result<Body, ApiError> {
    let Stream { head, include_usage, mut remarks, unsent } = stream;
    // Bounded: at most one event per token, which the request limits, and their memory is counted.
    let (sender, receiver) = unbounded_channel();
    let unsent = Arc::new(Mutex::new(unsent));
    let events = Queue { sender, unsent: unsent.clone() };
    let (started, start) = oneshot::channel();
    let computing = async move {
        let guard = turn.guard.clone();
        let text = |of: fn(&Guard) -> &str| guard.as_deref().map_or("", of);
        let mut started = Some(started);
        let mut first = || {
            let Some(started) = started.take() else { return };
            if let Some(event) = head.first() {
                events.end(&event);
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
                events.push(&event).map_err(|_| ApiError::busy())
            })
            // Before the first event this is the response, afterwards the last event of the stream.
            .await?;
        first();
        if matches!(ended.end, End::Filtered { is_refusal: true }) {
            events.end(&head.refusal(text(Guard::refusal)));
        }
        remarks.extend(ended.remark);
        events.finish(&head, ended.end, &remarks, include_usage.then_some(ended.usage));
        Ok(())
    };
    let mut task = Abort(tokio::spawn(computing));
    tokio::select! {
        biased;
        Ok(()) = start => {}
        ended = &mut task.0 => ended.map_err(|_| ApiError::internal("internal"))??,
        // A long prompt is still in prefill.
        () = sleep(KEEP_ALIVE_INTERVAL) => {}
    }
    Ok(Body::new(Events::new(receiver, unsent, task, KEEP_ALIVE_INTERVAL)))
}

/// The stream of a request that a guard refused.
pub(super) fn refused(stream: Stream, refusal: &str) -> Body {
    let Stream { head, include_usage, remarks, unsent } = stream;
    let (sender, receiver) = unbounded_channel();
    let unsent = Arc::new(Mutex::new(unsent));
    let events = Queue { sender, unsent: unsent.clone() };
    if let Some(event) = head.first() {
        events.end(&event);
    }
    events.end(&head.refusal(refusal));
    events.finish(&head, End::REFUSED, &remarks, include_usage.then(TokenUsage::default));
    let done = Abort(tokio::spawn(async { Ok(()) }));
    Body::new(Events::new(receiver, unsent, done, KEEP_ALIVE_INTERVAL))
}

/// Events that the client has not read. They count as request memory until it does.
struct Queue {
    sender: UnboundedSender<Bytes>,
    /// Locked for a few instructions, by the computation and by the connection.
    unsent: Arc<Mutex<Reservation>>,
}

impl Queue {
    /// Adds an event.
    ///
    /// # Errors
    ///
    /// If the memory budget is exhausted.
    fn push(&self, event: &Value) -> Result<(), Exhausted> {
        let event = write(event);
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).grow(event.len())?;
        // Sending fails only if the client has disconnected.
        let _ = self.sender.send(event);
        Ok(())
    }

    /// Adds the events that end a stream.
    fn finish(&self, head: &Head, end: End, remarks: &[Remark], usage: Option<TokenUsage>) {
        self.end(&head.last(end, remarks));
        if let Some(usage) = usage {
            self.end(&head.usage(usage));
        }
        // Sending fails only if the client has disconnected.
        let _ = self.sender.send(Bytes::from_static(b"data: [DONE]\n\n"));
    }

    /// Adds one of the few events that end a stream, even if the memory budget is exhausted.
    fn end(&self, event: &Value) {
        let _ = self.sender.send(write(event));
    }
}

fn write(event: &Value) -> Bytes {
    format!("data: {event}\n\n").into()
}

/// An error after the first event, in the format that OpenAI's clients expect.
fn failure(error: &ApiError) -> Value {
    json!({ "error": { "message": error.to_string(), "type": "server_error", "param": null, "code": error.code() } })
}

/// The events as they arrive, and a comment after each `silence`. Dropping it cancels the
/// computation.
struct Events {
    receiver: UnboundedReceiver<Bytes>,
    unsent: Arc<Mutex<Reservation>>,
    task: Computing,
    /// True once the outcome of the task has been checked.
    is_finished: bool,
    silence: Duration,
    silent: Pin<Box<Sleep>>,
}

type Computing = Abort<Result<(), ApiError>>;

impl Events {
    fn new(
        receiver: UnboundedReceiver<Bytes>,
        unsent: Arc<Mutex<Reservation>>,
        task: Computing,
        silence: Duration,
    ) -> Self {
        Events { receiver, unsent, task, is_finished: false, silence, silent: Box::pin(sleep(silence)) }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(event) = ready!(self.receiver.poll_recv(context)) {
            self.unsent.lock().unwrap_or_else(PoisonError::into_inner).shrink(event.len());
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

    fn empty_reservation() -> Arc<Mutex<Reservation>> {
        Arc::new(Mutex::new(infer_sandbox::RequestMemory::default().reservation()))
    }

    #[tokio::test]
    async fn silent_stream_sends_keep_alive_comments() {
        let (sender, receiver) = unbounded_channel();
        let task = Abort(tokio::spawn(async { Ok(()) }));
        let mut events = Events::new(receiver, empty_reservation(), task, Duration::from_millis(5));
        for _ in 0..3 {
            assert_eq!(next(&mut events).await.unwrap(), KEEP_ALIVE);
        }
        sender.send(write(&json!(1))).unwrap();
        events.silence = LONG;
        events.silent = Box::pin(sleep(LONG));
        assert_eq!(next(&mut events).await.unwrap(), "data: 1\n\n");
        drop(sender);
        assert_eq!(next(&mut events).await, None);
    }

    #[tokio::test]
    async fn late_error_is_the_last_event() {
        let (sender, receiver) = unbounded_channel();
        let task = Abort(tokio::spawn(async move {
            drop(sender);
            Err(ApiError::deadline())
        }));
        let mut events = Events::new(receiver, empty_reservation(), task, LONG);
        let event = next(&mut events).await.unwrap();
        assert!(event.starts_with(b"data: {\"error\":"), "{event:?}");
        assert_eq!(next(&mut events).await, None);
    }
}
