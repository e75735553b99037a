//! Work that would hold a thread of the runtime for long, such as tokenizing a long text.

use std::sync::Arc;
use std::thread::available_parallelism;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

/// Threads that may block, one per processor. Further work waits.
pub(crate) struct Offload(Arc<Semaphore>);

impl Offload {
    pub(crate) fn new() -> Self {
        Offload(Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))))
    }

    /// Runs `work` on one of the threads, which it holds until it ends, even if the caller leaves
    /// earlier.
    ///
    /// # Errors
    ///
    /// If `work` panics, or the runtime shuts down.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let permit = self.0.clone().acquire_owned().await;
        let work = move || {
            let _permit = permit;
            work()
        };
        spawn_blocking(work).await
    }
}
