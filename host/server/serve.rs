//! The listener's life: bound, serving, draining, stopped.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::app::App;
use crate::routes;

/// Serve `app` on `listener` until `stop` is ready, then let the requests under way finish within the drain time.
///
/// # Errors
///
/// When the listener fails.
pub async fn run(
    app: Arc<App>,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let stopping = Arc::new(AtomicBool::new(false));
    let router = routes::router(&app, stopping.clone());
    let drain = Arc::new(Notify::new());
    let draining = drain.clone();
    let server =
        axum::serve(listener, router).with_graceful_shutdown(async move { draining.notified().await });
    let mut server = tokio::spawn(async move { server.await });

    tokio::select! {
        ended = &mut server => return ended.unwrap_or_else(|panic| Err(std::io::Error::other(panic))),
        () = stop => {}
    }
    stopping.store(true, Ordering::Relaxed);
    drain.notify_one();
    info!(drain_ms = app.config.server.drain.as_millis() as u64, "stopping: requests under way may finish");
    match tokio::time::timeout(app.config.server.drain, &mut server).await {
        Ok(ended) => ended.unwrap_or_else(|panic| Err(std::io::Error::other(panic))),
        Err(_) => {
            warn!("requests were still under way at the end of the drain time; they are dropped");
            server.abort();
            Ok(())
        }
    }
}
