//! The streams of HTTP/2 connections.

use std::sync::Arc;

use hyper::rt::Executor;

use super::activity::Activity;

/// Runs the streams of one HTTP/2 connection, each until its lease expires.
#[derive(Clone)]
pub(super) struct Streams(pub(super) Arc<Activity>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    /// hyper has just called the service for this stream, so its lease is the newest.
    fn execute(&self, stream: F) {
        let lease = self.0.newest();
        tokio::spawn(async move {
            let Some(lease) = lease else { return stream.await };
            tokio::select! {
                biased;
                () = lease.expired() => {}
                () = stream => {}
            }
        });
    }
}
