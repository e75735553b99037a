//! An answer as server-sent events, while it is being written.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use http_body::Frame;
use infer_engine::{Model, Output, Request, Session};
use infer_sandbox::{Exhausted, Held};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::response::Head;
use crate::error::ApiError;
use crate::serve::Abort;

/// Begin to answer. The computation goes on until its last event, or until the body is dropped, which a client that hangs up does:
/// then it is withdrawn after the pass under way, and what it held is free.
///
/// # Errors
///
/// Those of a request that never began, which still have a status of their own; later ones are the stream's last event.
pub(super) async fn begin(
    model: Arc<Model>,
    mut session: Session,
    request: Request,
    head: Head,
    include_usage: bool,
    deadline: Instant,
    unsent: Held,
) -> Result<Body, ApiError> {
    let (pieces, mut written) = unbounded_channel();
    // As many events as tokens at the most, which the request bounds, and what they take is counted.
    let (sender, receiver) = unbounded_channel();
    let unsent = Arc::new(Mutex::new(unsent));
    let events = Queue { sender, unsent: unsent.clone() };
    let (begun, beginning) = oneshot::channel();
    let computing = async move {
        let language = super::language(&model)?;
        let answering = language.run(&mut session, request, Some(pieces), deadline);
        let answering = async { Ok::<_, Exhausted>(answering.await) };
        let telling = async {
            let mut begun = Some(begun);
            let mut before = 0;
            while let Some(piece) = written.recv().await {
                if let Some(begun) = begun.take() {
                    if let Some(event) = head.first() {
                        events.tell(&event)?;
                    }
                    let _ = begun.send(());
                }
                events.tell(&head.piece(&piece.text, &piece.logprobs, before))?;
                before += piece.text.len();
            }
            Ok(begun)
        };
        // A client that takes less than is written for it ends the computation, where memory is short.
        let Ok((answer, begun)) = tokio::try_join!(answering, telling) else {
            // Before the first event this is the answer, after it nobody waits for it.
            events.end(&failure(&ApiError::busy()));
            return Err(ApiError::busy());
        };
        match (answer, begun) {
            (Err(error), Some(_)) => return Err(error.into()),
            (Err(error), None) => {
                events.end(&failure(&ApiError::from(error)));
                return Ok(());
            }
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
    }
    Ok(Body::new(Events { receiver, unsent, _task: task }))
}

/// Events that the client has not taken. They count as memory until it does.
struct Queue {
    sender: UnboundedSender<Bytes>,
    /// Held for a few instructions, by the computation and by the connection.
    unsent: Arc<Mutex<Held>>,
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

/// The events as they come. With it goes the computation.
struct Events {
    receiver: UnboundedReceiver<Bytes>,
    unsent: Arc<Mutex<Held>>,
    _task: Abort<Result<(), ApiError>>,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let event = ready!(self.receiver.poll_recv(context));
        if let Some(event) = &event {
            self.unsent.lock().unwrap_or_else(PoisonError::into_inner).shrink(event.len());
        }
        Poll::Ready(event.map(|event| Ok(Frame::data(event))))
    }
}
