//! A task that is aborted with its owner.

/// A task handle that aborts the task on drop.
pub struct Abort<T>(pub tokio::task::JoinHandle<T>);

impl<T> Drop for Abort<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
