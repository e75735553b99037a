//! The lifecycle of one connection: handshake, requests, and their time limits.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::response::IntoResponse as _;
use http_body::Body as _;
use hyper::body::Incoming as IncomingBody;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use infer_config::ConnectionLimits;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::debug;

use super::activity::Activity;
use super::body::Remains;
use super::listeners::Incoming;
use super::peer::Peer;
use super::response::ResponseBody;
use super::seats::Seat;
use super::stream::Watched;
use super::streams::Streams;
use crate::error::ApiError;
use crate::limits::{
    CONNECTION_WINDOW_BYTES, MAX_ERROR_RESETS, MAX_PENDING_RESETS, MAX_STREAMS, PING_TIMEOUT,
    SEND_BUFFER_BYTES, STREAM_WINDOW_BYTES,
};
use crate::service::Service;

/// Interval of HTTP/2 keep-alive pings while requests are in flight.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// HTTP/1.1 and HTTP/2, detected by the first bytes of a client.
fn protocol(limits: &ConnectionLimits, activity: &Arc<Activity>) -> auto::Builder<Streams> {
    let mut builder = auto::Builder::new(Streams(activity.clone()));
    // Time limits are enforced here: hyper's limit on a head includes the idle time before it.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(limits.max_header_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_ERROR_RESETS)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// A connection with a seat.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) service: Arc<Service>,
    /// True if it belongs to the operator's listener.
    pub(super) admin: bool,
    pub(super) limits: Arc<ConnectionLimits>,
    /// True once the server stops.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) seat: Seat,
}

impl Connection {
    /// Answers requests until the client disconnects, exceeds a limit, or the server stops.
    pub(super) async fn serve(mut self, incoming: Incoming) {
        let activity = self.seat.activity().clone();
        // Yield once, so that the reactor polls the socket before the connection counts as read.
        yield_now().await;
        let mut handshake = pin!(timeout(self.limits.header_time, incoming.handshake()));
        let handshake = poll_fn(|context| {
            let outcome = handshake.as_mut().poll(context);
            if outcome.is_pending() {
                activity.mark_read();
            }
            outcome
        });
        let handshake = tokio::select! {
            handshake = handshake => handshake,
            () = activity.closing() => return debug!(peer = ?self.peer, "closed: evicted for another connection"),
        };
        let io = match handshake {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return debug!(peer = ?self.peer, "handshake failed: {error}"),
            Err(_) => return debug!(peer = ?self.peer, "handshake timed out"),
        };
        let stream = Watched::new(io, activity.clone(), self.limits.send_time);
        let requests = Requests {
            service: self.service,
            admin: self.admin,
            peer: self.peer,
            activity: activity.clone(),
        };
        let protocol = protocol(&self.limits, &activity);
        let mut http = pin!(protocol.serve_connection(TokioIo::new(stream), requests));
        // Deadlines change during the connection; they are checked several times per shortest
        // limit.
        let limits = &self.limits;
        let interval = limits.header_time.min(limits.idle_time).min(limits.send_time) / 4;
        let mut draining = false;
        loop {
            let now = Instant::now();
            let due = match activity.sweep(limits, now) {
                Ok(due) => due,
                Err(reason) => {
                    debug!(peer = ?self.peer, "closed: {reason}");
                    break;
                }
            };
            let next = due.map_or(now + interval, |due| due.min(now + interval));
            if activity.is_evicted() && !draining {
                draining = true;
                http.as_mut().graceful_shutdown();
            }
            tokio::select! {
                // Read received bytes before the connection is evicted.
                biased;
                served = http.as_mut() => {
                    if let Err(error) = served {
                        debug!(peer = ?self.peer, "the connection ended: {error}");
                    }
                    break;
                }
                _ = self.draining.changed(), if !draining => {
                    draining = true;
                    if activity.is_idle() {
                        break;
                    }
                    http.as_mut().graceful_shutdown();
                }
                () = activity.closing() => {}
                () = sleep_until(next) => {}
            }
        }
        // The streams of HTTP/2 are separate tasks.
        activity.close();
        drop(self.seat);
    }
}

/// The routes, with the client's address, and with activity tracking. Each request uses the router
/// that is live when its head has arrived, to its end.
struct Requests {
    service: Arc<Service>,
    admin: bool,
    peer: Peer,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<IncomingBody>> for Requests {
    type Response = hyper::Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<IncomingBody>) -> Self::Future {
        let http2 = request.version() == Version::HTTP_2;
        let in_flight = self.activity.begin(http2, request.body().is_end_stream());
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(in_flight.lease().clone());
        let expects_continue = request.headers().contains_key(header::EXPECT);
        let remains = Remains::default();
        let router = TowerToHyperService::new(self.service.router(self.admin));
        let activity = self.activity.clone();
        Box::pin(async move {
            activity.turn().await;
            let response = router.call(request.map(|body| remains.lend(body)));
            // A reload waits until the old router is dropped, so do not keep it while the response
            // is written.
            drop(router);
            if !http2 {
                // hyper does not limit the heads of responses without a body: a client that reads
                // nothing could request more and more of them.
                activity.writable().await;
            }
            let mut response = response.await?;
            if !http2 && !remains.discard(expects_continue).await {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let (head, body) = response.into_parts();
            let in_flight = match in_flight.respond(body) {
                Ok(body) => return Ok(hyper::Response::from_parts(head, body)),
                Err(in_flight) => in_flight,
            };
            let (mut busy, body) = ApiError::busy().into_response().into_parts();
            let close = head.headers.get(header::CONNECTION).cloned();
            busy.headers.extend(close.map(|close| (header::CONNECTION, close)));
            let Ok(body) = in_flight.respond(body) else { unreachable!("a short response is always sent") };
            Ok(hyper::Response::from_parts(busy, body))
        })
    }
}
