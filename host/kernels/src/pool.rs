//! placeholder pool
use std::sync::atomic::{AtomicUsize, Ordering};
/// Threads.
pub struct Pool {
    threads: usize,
}
impl Pool {
    /// New.
    /// # Errors
    /// None.
    pub fn new(threads: usize) -> std::io::Result<Pool> {
        Ok(Pool { threads })
    }
    /// Threads.
    pub fn threads(&self) -> usize {
        self.threads
    }
    /// Run.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        if tasks < 8 || self.threads == 1 {
            (0..tasks).for_each(task);
            return;
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= tasks {
                            break;
                        }
                        task(index);
                    }
                });
            }
        });
    }
}
