//! An answer as server-sent events, while it is being written.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes, HttpBody};
use http_body::Frame;
use infer_engine::{Model, Output, Request, RunError, Session};
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
) -> Result<Body, ApiError> {
    let (pieces, mut written) = unbounded_channel();
    // As many events as tokens at the most, which the request bounds.
    let (events, receiver) = unbounded_channel();
    let (begun, beginning) = oneshot::channel();
    let computing = async move {
        let language = super::language(&model)?;
        let answering = language.run(&mut session, request, Some(pieces), deadline);
        let telling = async {
            let mut begun = Some(begun);
            let mut before = 0;
            while let Some(piece) = written.recv().await {
                if let Some(begun) = begun.take() {
                    if let Some(event) = head.first() {
                        tell(&events, &event);
                    }
                    let _ = begun.send(());
                }
                tell(&events, &head.piece(&piece.text, &piece.logprobs, before));
                before += piece.text.len();
            }
            begun
        };
        let (answer, begun) = tokio::join!(answering, telling);
        match (answer, begun) {
            (Err(error), Some(_)) => return Err(error.into()),
            (Err(error), None) => {
                tell(&events, &broken(error));
                return Ok(());
            }
            (Ok(answer), begun) => {
                if begun.is_some()
                    && let Some(event) = head.first()
                {
                    tell(&events, &event);
                }
                if let Output::Text { finish, .. } = answer.output {
                    tell(&events, &head.last(finish));
                }
                if include_usage {
                    tell(&events, &head.usage(answer.usage));
                }
                // A receiver that is gone has hung up.
                let _ = events.send(Bytes::from_static(b"data: [DONE]\n\n"));
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
    Ok(Body::new(Events { receiver, _task: task }))
}

fn tell(events: &UnboundedSender<Bytes>, event: &Value) {
    // A receiver that is gone has hung up.
    let _ = events.send(format!("data: {event}\n\n").into());
}

/// An error after the first event, in the way that OpenAI's clients look for.
fn broken(error: RunError) -> Value {
    let error = ApiError::from(error);
    json!({ "error": { "message": error.to_string(), "type": "server_error", "param": null, "code": error.code() } })
}

/// The events as they come. With it goes the computation.
struct Events {
    receiver: UnboundedReceiver<Bytes>,
    _task: Abort<Result<(), ApiError>>,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.receiver.poll_recv(context).map(|event| event.map(|event| Ok(Frame::data(event))))
    }
}
