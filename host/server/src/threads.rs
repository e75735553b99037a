//! The threads of the asynchronous runtime.

use anyhow::Context as _;

/// Runs `future` to its end on a runtime with the server's threads.
///
/// # Errors
///
/// When the threads cannot be started.
pub fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    // Each processor may have a thread that computes a short model inline; one more keeps
    // listening.
    let threads = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        // External events go first: interrupted guests are in the threads' own queues.
        .global_queue_interval(1)
        .enable_all()
        .build()
        .context("cannot start the threads of the asynchronous runtime")?;
    let answer = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(answer)
}
