//! An answer as server-sent events, while it is being written.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, HttpBody};
use http_body::Frame;
use infer_engine::{Model, Output, Request, Session};
use infer_sandbox::{Exhausted, Reservation};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use super::response::Head;
use crate::abort::Abort;
use crate::error::ApiError;

/// How long a stream is silent before a comment says that it goes on: proxies give up on one that
/// says nothing for a minute.
const SILENCE: Duration = Duration::from_secs(15);

/// A comment, as server-sent events have it, which every reader passes over.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Begin to answer. The computation goes on until its last event, or until the body is dropped,
/// which a client that hangs up does: then it is withdrawn after the pass under way, and what it
/// held is free.
///
/// # Errors
///
/// Those of a request that never began, which still have a status of their own; later ones are the
/// stream's last event, and so is every one that comes after [`SILENCE`].
pub(super) async fn begin(
    model: Arc<Model>,
    mut session: Session,
    request: Request,
    head: Head,
    include_usage: bool,
    deadline: Instant,
    unsent: Reservation,
) -> Result<Body, ApiError> {
    let (pieces, mut written) = unbounded_channel();
    // As many events as tokens at the most, which the request bounds, and what they take is
    // counted.
    let (sender, receiver) = unbounded_channel();
    let unsent = Arc::new(Mutex::new(unsent));
    let events = Queue { sender, unsent: unsent.clone() };
    let (begun, beginning) = oneshot::channel();
    let computing = async move {
        let language = super::form::language(&model)?;
        let answering = language.run(&mut session, request, Some(pieces), deadline);
        let answering = async { Ok::<_, Exhausted>(answering.await) };
        let telling = async {
            let mut begun = Some(begun);
            while let Some(piece) = written.recv().await {
                if let Some(begun) = begun.take() {
                    if let Some(event) = head.first() {
                        events.tell(&event)?;
                    }
                    let _ = begun.send(());
                }
                events.tell(&head.piece(&piece.text, &piece.logprobs))?;
            }
            Ok(begun)
        };
        // A client that takes less than is written for it ends the computation, where memory is
        // short.
        let Ok((answer, begun)) = tokio::try_join!(answering, telling) else {
            return Err(ApiError::busy());
        };
        match (answer, begun) {
            // Before the first event this is the answer, after it the stream's last event.
            (Err(error), _) => return Err(error.into()),
            (Ok(answer), begun) => {
                if begun.is_some()
                    && let Some(event) = head.first()
                {
                    events.end(&event);
                }
                if let Output::Text { finish, .. } = answer.output {
                    events.end(&head.last(finish));
                }
                if include_usage {
                    events.end(&head.usage(answer.usage));
                }
                // A receiver that is gone has hung up.
                let _ = events.sender.send(Bytes::from_static(b"data: [DONE]\n\n"));
            }
        }
        Ok(())
    };
    let mut task = Abort(tokio::spawn(computing));
    tokio::select! {
        biased;
        Ok(()) = beginning => {}
        ended = &mut task.0 => ended.map_err(|_| ApiError::internal("internal"))??,
        // A long prompt is still being read.
        () = sleep(SILENCE) => {}
    }
    Ok(Body::new(Events::new(receiver, unsent, task, SILENCE)))
}

/// Events that the client has not taken. They count as memory until it does.
struct Queue {
    sender: UnboundedSender<Bytes>,
    /// Held for a few instructions, by the computation and by the connection.
    unsent: Arc<Mutex<Reservation>>,
}

impl Queue {
    /// Adds an event.
    ///
    /// # Errors
    ///
    /// When there is no memory for it.
    fn tell(&self, event: &Value) -> Result<(), Exhausted> {
        let event = write(event);
        self.unsent.lock().unwrap_or_else(PoisonError::into_inner).grow(event.len())?;
        // A receiver that is gone has hung up.
        let _ = self.sender.send(event);
        Ok(())
    }

    /// Adds one of the few events that end a stream, whether or not there is memory for more.
    fn end(&self, event: &Value) {
        let _ = self.sender.send(write(event));
    }
}

fn write(event: &Value) -> Bytes {
    format!("data: {event}\n\n").into()
}

/// An error after the first event, in the way that OpenAI's clients look for.
fn failure(error: &ApiError) -> Value {
    json!({ "error": { "message": error.to_string(), "type": "server_error", "param": null, "code": error.code() } })
}

/// The events as they come, and a comment after each `silence`. With it goes the computation.
struct Events {
    receiver: UnboundedReceiver<Bytes>,
    unsent: Arc<Mutex<Reservation>>,
    task: Computing,
    /// Whether the task's end was looked at.
    has_ended: bool,
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
        Events { receiver, unsent, task, has_ended: false, silence, silent: Box::pin(sleep(silence)) }
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(event) = ready!(self.receiver.poll_recv(context)) {
            self.unsent.lock().unwrap_or_else(PoisonError::into_inner).shrink(event.len());
            return Poll::Ready(Some(event));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        let ended = ready!(Pin::new(&mut self.task.0).poll(context));
        self.has_ended = true;
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

    fn nothing_held() -> Arc<Mutex<Reservation>> {
        Arc::new(Mutex::new(infer_sandbox::RequestMemory::default().share()))
    }

    #[tokio::test]
    async fn silent_stream_sends_keep_alive_comments() {
        let (sender, receiver) = unbounded_channel();
        let task = Abort(tokio::spawn(async { Ok(()) }));
        let mut events = Events::new(receiver, nothing_held(), task, Duration::from_millis(5));
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
        let mut events = Events::new(receiver, nothing_held(), task, LONG);
        let event = next(&mut events).await.unwrap();
        assert!(event.starts_with(b"data: {\"error\":"), "{event:?}");
        assert_eq!(next(&mut events).await, None);
    }
}
