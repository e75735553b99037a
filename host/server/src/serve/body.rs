//! A request's body, returned to the connection if it was not read to its end.
//!
//! A client that got an early response, usually a rejection, may reuse the connection only if no
//! bytes of the last body are left on it. Bytes that have arrived are read and discarded. If more
//! are to come, the connection closes and the response says so; otherwise the client's next request
//! would fail on a closed connection.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::limits::{DISCARD_TIMEOUT, MAX_DISCARDED_BYTES};

/// Slot that receives an unread body.
#[derive(Clone, Default)]
pub(super) struct Remains(Arc<Mutex<Option<Incoming>>>);

/// A body on its way through the routes.
pub(super) struct Lent {
    body: Option<Incoming>,
    remains: Remains,
}

impl Remains {
    /// Lends `body`; its unread rest is returned to this slot on drop.
    pub(super) fn lend(&self, body: Incoming) -> Lent {
        Lent { body: Some(body), remains: self.clone() }
    }

    /// Discards the unread rest; true if all of it was discarded. A client that
    /// `expects_continue` (status 100) does not get it, so it need not send a body that will not be
    /// used.
    pub(super) async fn discard(self, expects_continue: bool) -> bool {
        let Some(mut body) = self.slot().take() else { return true };
        if expects_continue || body.size_hint().lower() > MAX_DISCARDED_BYTES {
            return false;
        }
        let mut length = 0;
        let all = async {
            loop {
                match body.frame().await {
                    None => return true,
                    Some(Ok(frame)) => length += frame.data_ref().map_or(0, |data| data.len() as u64),
                    Some(Err(_)) => return false,
                }
                if length > MAX_DISCARDED_BYTES {
                    return false;
                }
            }
        };
        timeout(DISCARD_TIMEOUT, all).await.unwrap_or(false)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take()
            && !body.is_end_stream()
        {
            *self.remains.slot() = Some(body);
        }
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if frame.is_none() {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }
}
