//! The life of one connection: handshake, requests, and the time limits on each.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Version, header};
use axum::response::Response;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming as IncomingBody;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tracing::debug;

use super::body::Remains;
use super::listeners::Incoming;
use super::seats::Seat;
use super::stream::Watched;
use crate::config::ConnectionLimits;
use crate::live::Live;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A machine.
    Ip(IpAddr),
    /// A program of this machine, over the Unix socket.
    Socket,
}

impl Peer {
    /// Its address, where it has one.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Ip(ip) => Some(ip),
            Peer::Socket => None,
        }
    }
}

/// Streams of one HTTP/2 connection at any one time.
const STREAMS: u32 = 32;

/// What an HTTP/2 client may send of one body, and of all, before it is read.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;

/// What is held of one answer that an HTTP/2 client has not taken.
const SEND_BUFFER: usize = 64 << 10;

/// How often an HTTP/2 connection with requests under way is asked whether anybody is there, and how long that may take.
const PING: Duration = Duration::from_secs(20);
const PONG: Duration = Duration::from_secs(10);

/// HTTP/1.1 and HTTP/2, told apart by what a client sends first.
pub(super) struct Protocol(auto::Builder<TokioExecutor>);

impl Protocol {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Times are limited here, not by hyper, whose limit on a head begins with the wait for it.
        builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(limits.header_bytes);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG);
        Protocol(builder)
    }
}

/// A connection that has its seat.
pub(super) struct Connection {
    pub(super) peer: Peer,
    pub(super) live: Arc<Live>,
    /// Whether it came to the operator's own listener.
    pub(super) admin: bool,
    pub(super) protocol: Arc<Protocol>,
    pub(super) limits: Arc<ConnectionLimits>,
    /// True once the server stops.
    pub(super) draining: watch::Receiver<bool>,
    pub(super) seat: Seat,
}

impl Connection {
    /// Answer requests until the client goes, takes too long, or the server stops.
    pub(super) async fn serve(mut self, incoming: Incoming) {
        let io = match timeout(self.limits.header_time, incoming.handshake()).await {
            Ok(Ok(io)) => io,
            Ok(Err(error)) => return debug!(peer = ?self.peer, "no handshake: {error}"),
            Err(_) => return debug!(peer = ?self.peer, "no handshake in time"),
        };
        let activity = Arc::new(Activity::new());
        let stream = Watched::new(io, activity.clone(), self.limits.send_time);
        let answering =
            Answering { live: self.live, admin: self.admin, peer: self.peer, activity: activity.clone() };
        let mut http = pin!(self.protocol.0.serve_connection(TokioIo::new(stream), answering));
        // What is due changes as the connection goes on; it is looked at several times in the shortest limit.
        let look = self.limits.header_time.min(self.limits.idle_time) / 4;
        let mut draining = false;
        loop {
            let now = Instant::now();
            let due = activity.due(&self.limits);
            let next = due.map_or(now + look, |due| due.min(now + look));
            tokio::select! {
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
                () = sleep_until(next) => {
                    if activity.due(&self.limits).is_some_and(|due| due <= Instant::now()) {
                        debug!(peer = ?self.peer, "closed: no request in time");
                        break;
                    }
                }
            }
        }
        drop(self.seat);
    }
}

/// What is going on on a connection.
pub(super) struct Activity(Mutex<State>);

struct State {
    under_way: usize,
    /// Since when nothing is.
    idle: Instant,
    /// When the first byte of the next head came.
    head: Option<Instant>,
    /// Whether a whole head has come yet.
    asked: bool,
    /// Between two requests an HTTP/2 client sends more than heads: window updates, settings, pings.
    http2: bool,
}

impl Activity {
    fn new() -> Self {
        let state = State { under_way: 0, idle: Instant::now(), head: None, asked: false, http2: false };
        Activity(Mutex::new(state))
    }

    /// Bytes came.
    pub(super) fn read(&self) {
        let mut state = self.state();
        if state.under_way == 0 {
            state.head.get_or_insert_with(Instant::now);
        }
    }

    fn begin(self: &Arc<Self>, http2: bool) -> UnderWay {
        let mut state = self.state();
        state.under_way += 1;
        state.head = None;
        state.asked = true;
        state.http2 = http2;
        UnderWay(self.clone())
    }

    /// When the client will have taken too long, as things stand.
    fn due(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let state = self.state();
        let head = state.head.filter(|_| !state.http2).map(|began| began + limits.header_time);
        match (state.under_way, state.asked) {
            (0, false) => Some(state.idle + limits.header_time),
            (0, true) => {
                let idle = state.idle + limits.idle_time;
                Some(head.map_or(idle, |head| head.min(idle)))
            }
            _ => None,
        }
    }

    fn is_idle(&self) -> bool {
        self.state().under_way == 0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, from its head to the end of its answer's body.
struct UnderWay(Arc<Activity>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.under_way -= 1;
        state.idle = Instant::now();
    }
}

/// The routes, told who asks, and watched. Each request has those that are live when its head has come, to its end.
struct Answering {
    live: Arc<Live>,
    admin: bool,
    peer: Peer,
    activity: Arc<Activity>,
}

impl hyper::service::Service<Request<IncomingBody>> for Answering {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<IncomingBody>) -> Self::Future {
        let http2 = request.version() == Version::HTTP_2;
        let under_way = self.activity.begin(http2);
        request.extensions_mut().insert(self.peer);
        let waits = request.headers().contains_key(header::EXPECT);
        let remains = Remains::default();
        let router = TowerToHyperService::new(self.live.router(self.admin));
        let answer = router.call(request.map(|body| remains.lend(body)));
        Box::pin(async move {
            let mut answer = answer.await?;
            if !http2 && !remains.discard(waits).await {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|body| Body::new(Answer { body, _under_way: under_way })))
        })
    }
}

/// An answer's body; the request is under way until it is dropped.
struct Answer {
    body: Body,
    _under_way: UnderWay,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
