//! Lifecycle of the listeners: bind, serve, drain, stop.
//!
//! Connections have their own thread: it accepts, reads heads and bodies, authenticates,
//! and rejects excess load. Admitted requests run on the threads of the caller's runtime. Guests
//! occupy those for milliseconds at a time, so a rejection that had to queue behind guests would be
//! slow exactly under overload.
//!
//! # Layout
//!
//! - `listeners`: sources of connections; `tls`: the certificate and its reload
//! - `seats`: connection limits and eviction; `connection`: the lifecycle of a connection
//! - `activity`: the state and time limits of a connection; `lease`: the resources of a request
//! - `body`: unread request bodies; `response`: response bodies
//! - `stream`: the byte stream of a connection, watched for progress

mod activity;
mod body;
mod connection;
mod lease;
mod listeners;
mod peer;
mod response;
mod seats;
mod socket;
mod stream;
mod streams;
pub mod tls;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use connection::Connection;
pub use lease::Lease;
use listeners::Bound;
pub use listeners::Listeners;
pub use peer::Peer;
use seats::Seats;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::abort::Abort;
use crate::limits::MAX_ADMIN_CONNECTIONS;
use crate::service::Service;

/// Pause of accepting when the system is out of resources, as a rule until a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `service` on `listeners` until `stop` is ready, then drains: requests in flight may
/// finish within the drain time.
///
/// # Errors
///
/// If the listeners fail.
pub async fn run(
    service: Arc<Service>,
    listeners: Listeners,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let refresh = listeners.tls.clone().map(|tls| Abort(tokio::spawn(tls::watch(tls))));
    let acceptor = Acceptor { service: service.clone() };
    let bound = listeners.detach()?;

    let (drain, draining) = watch::channel(false);
    let (ended, mut end) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("front".into()).spawn(move || {
        let served = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .and_then(|runtime| runtime.block_on(acceptor.serve(bound, draining)));
        let _ = ended.send(served);
    })?;

    let thread_ended = |_| io::Error::other("the connection thread has ended");
    let result = tokio::select! {
        served = &mut end => served.map_err(thread_ended).flatten(),
        () = stop => {
            service.stop();
            let _ = drain.send(true);
            end.await.map_err(thread_ended).flatten()
        }
    };
    drop(refresh);
    // The thread has signalled its end, so this does not block.
    if thread.join().is_err() {
        error!("the connection thread has panicked");
    }
    result
}

/// State of the connection thread.
struct Acceptor {
    service: Arc<Service>,
}

impl Acceptor {
    async fn serve(self, bound: Bound, mut draining: watch::Receiver<bool>) -> io::Result<()> {
        let limits = Arc::new(self.service.live().registry().config.server.connections.clone());
        let listeners = bound.attach()?;
        let memory = self.service.live().registry().sandbox.memory().clone();
        let seats = Seats::new(limits.max_connections, limits.max_per_ip, memory.clone());
        let admin_seats = Seats::new(MAX_ADMIN_CONNECTIONS, MAX_ADMIN_CONNECTIONS, memory);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listeners.accept() => accepted,
                Some(ended) = connections.join_next() => {
                    log_panic(ended);
                    continue;
                }
                _ = draining.changed() => break,
            };
            let incoming = match accepted {
                Ok(incoming) => incoming,
                // The client disconnected before the connection was accepted.
                Err(error) if is_client_error(&error) => continue,
                Err(error) => {
                    warn!("cannot accept connections now: {error}");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let seats = if incoming.admin { &admin_seats } else { &seats };
            let seat = match seats.take(incoming.peer) {
                Ok(seat) => seat,
                Err(limit) => {
                    incoming.reject(limit);
                    continue;
                }
            };
            let connection = Connection {
                peer: incoming.peer,
                service: self.service.clone(),
                admin: incoming.admin,
                limits: limits.clone(),
                draining: draining.clone(),
                seat,
            };
            connections.spawn(connection.serve(incoming));
        }
        drop(listeners);
        let drain = self.service.live().registry().config.server.drain;
        info!(drain_ms = drain.as_millis() as u64, "stopping: requests in flight may finish");
        let all = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended);
            }
        };
        if timeout(drain, all).await.is_err() {
            warn!("requests are dropped: still in flight at the end of the drain time");
        }
        Ok(())
    }
}

fn is_client_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(failure) = ended
        && failure.is_panic()
    {
        error!("a connection ended with a panic: {failure}");
    }
}
