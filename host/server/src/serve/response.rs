//! A response body whose unsent bytes are charged to its lease.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use bytes::Buf;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;

use super::lease::{InFlight, Lease, NoMemory};

/// A response body. Its request is in flight until the body is dropped and the client has read all
/// of it.
pub(super) struct ResponseBody {
    body: Body,
    /// Bytes polled but not yet handed to hyper.
    rest: Bytes,
    /// True if its bytes were charged in advance.
    is_counted: bool,
    /// True to signal the end only after the client has read everything: an HTTP/2 stream that has
    /// ended can no longer be reset, so a client could keep its last bytes in memory indefinitely.
    waits_for_end: bool,
    in_flight: InFlight,
}

impl http_body::Body for ResponseBody {
    type Data = Outgoing;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Outgoing>, axum::Error>>> {
        while self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return self.poll_end(context).map(|()| None),
            };
            match frame.into_data() {
                Ok(data) => {
                    if !self.is_counted && self.in_flight.lease.grow(data.len()).is_err() {
                        return Poll::Ready(Some(Err(axum::Error::new(NoMemory))));
                    }
                    self.rest = data;
                }
                Err(other) => {
                    let Ok(trailers) = other.into_trailers() else { continue };
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
            }
        }
        let length = self.rest.len().min(CHUNK_BYTES);
        let chunk = self.rest.split_to(length);
        Poll::Ready(Some(Ok(Frame::data(send(&self.in_flight.lease, chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        let has_more = self.waits_for_end && self.in_flight.lease.state().unread > 0;
        self.rest.is_empty() && self.body.is_end_stream() && !has_more
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(body.lower().saturating_add(rest));
        hint
    }
}

impl ResponseBody {
    /// Ready when the end may be signalled.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.in_flight.lease.state();
        let work = state.work.take();
        let is_over = !self.waits_for_end || state.unread == 0 || state.is_expired;
        if !is_over {
            state.waker = Some(context.waker().clone());
        }
        drop(state);
        drop(work);
        if is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Bytes of a response that hyper has. They are charged until they are written or dropped.
pub(super) struct Outgoing {
    bytes: Bytes,
    lease: Lease,
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.lease.written(count, true);
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.lease.written(self.bytes.len(), false);
        }
    }
}

/// Chunk size handed to hyper. The rest of a response stays here, where it is charged and can be
/// dropped.
const CHUNK_BYTES: usize = 64 << 10;

impl InFlight {
    /// Begins the response with `body`.
    ///
    /// # Errors
    ///
    /// If the response is too large for the remaining memory; the request still needs a response.
    pub(super) fn respond(mut self, body: Body) -> Result<ResponseBody, Self> {
        let length = body.size_hint().exact();
        if self.lease.respond(length).is_err() {
            return Err(self);
        }
        self.is_answered = true;
        let is_short = length.is_some_and(|length| length <= CHUNK_BYTES as u64);
        let waits_for_end = self.lease.is_http2() && !is_short;
        Ok(ResponseBody {
            body,
            rest: Bytes::new(),
            is_counted: length.is_some(),
            waits_for_end,
            in_flight: self,
        })
    }
}

/// Wraps bytes for hyper, and starts the stall time of the lease unless it is running.
fn send(lease: &Lease, bytes: Bytes) -> Outgoing {
    let mut state = lease.state();
    state.unread += bytes.len();
    if state.stalled.is_none() {
        state.stalled = Some(Instant::now());
        state.read = 0;
    }
    drop(state);
    Outgoing { bytes, lease: lease.clone() }
}
