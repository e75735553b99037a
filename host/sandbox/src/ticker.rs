//! The thread that interrupts running guests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::sync::Semaphore;
use wasmtime::Engine;

/// Interval at which running guests are interrupted, to check their time and to let others run.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks while guests run, and parks while none do. Ends on drop.
#[derive(Debug)]
pub(crate) struct Ticker {
    thread: Thread,
    has_ended: Arc<AtomicBool>,
}

impl Ticker {
    /// Starts the thread for `engine`. Guests run while fewer than `instances` permits of `free`
    /// are available.
    pub(crate) fn start(engine: &Engine, free: Arc<Semaphore>, instances: u32) -> std::io::Result<Self> {
        let has_ended = Arc::new(AtomicBool::new(false));
        let (engine, ends) = (engine.clone(), has_ended.clone());
        let thread = thread::Builder::new().name("epoch".into()).spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                if free.available_permits() == instances as usize {
                    thread::park();
                } else {
                    engine.increment_epoch();
                    thread::sleep(TICK);
                }
            }
        })?;
        Ok(Ticker { thread: thread.thread().clone(), has_ended })
    }

    /// Wakes the thread. Call it after a guest has taken its permit.
    pub(crate) fn wake(&self) {
        self.thread.unpark();
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns true if an endless loop is interrupted.
    fn is_interrupted(engine: &Engine) -> bool {
        let text = "(module (func (export \"spin\") (loop $on (br $on))))";
        let module = wasmtime::Module::new(engine, wat::parse_str(text).unwrap()).unwrap();
        let mut store = wasmtime::Store::new(engine, ());
        store.set_epoch_deadline(3);
        let instance = wasmtime::Instance::new(&mut store, &module, &[]).unwrap();
        let spin = instance.get_typed_func::<(), ()>(&mut store, "spin").unwrap();
        spin.call(&mut store, ()).is_err()
    }

    #[test]
    fn loop_is_interrupted_after_ticker_was_parked() {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).unwrap();
        let free = Arc::new(Semaphore::new(2));
        let ticker = Ticker::start(&engine, free.clone(), 2).unwrap();
        for _ in 0..3 {
            // Time to park. If the ticker has not, the test passes as well.
            thread::sleep(Duration::from_millis(5));
            let _taken = free.try_acquire().unwrap();
            ticker.wake();
            assert!(is_interrupted(&engine));
        }
    }
}
