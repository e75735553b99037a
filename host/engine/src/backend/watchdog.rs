//! Stops computations that run past their deadline.
//!
//! A file may contain a loop without end, and a batch may take longer than expected. Its caller
//! gets an error at the deadline; this releases the thread and the session as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ort::session::RunOptions;

/// Computations by their deadlines, with a number that tells equal deadlines apart.
static WATCHED: Mutex<Watched> = Mutex::new(Watched { runs: BTreeMap::new(), next: 0, has_thread: false });

/// Notified when the earliest deadline has changed.
static CHANGED: Condvar = Condvar::new();

type Key = (Instant, u64);

struct Watched {
    runs: BTreeMap<Key, Arc<RunOptions>>,
    next: u64,
    has_thread: bool,
}

/// A computation that is watched until this is dropped.
pub(super) struct Watch(Key);

/// Stops the computation with `options` at `deadline`.
pub(super) fn watch(options: Arc<RunOptions>, deadline: Instant) -> Watch {
    let mut watched = lock();
    let key = (deadline, watched.next);
    watched.next += 1;
    watched.runs.insert(key, options);
    let is_earliest = watched.runs.keys().next() == Some(&key);
    if !watched.has_thread {
        let started = std::thread::Builder::new().name("deadlines".to_owned()).spawn(serve);
        watched.has_thread = started.is_ok();
        if let Err(error) = started {
            tracing::error!(%error, "computations past their deadline are not stopped");
        }
    } else if is_earliest {
        CHANGED.notify_one();
    }
    Watch(key)
}

impl Drop for Watch {
    fn drop(&mut self) {
        lock().runs.remove(&self.0);
    }
}

fn serve() {
    let mut watched = lock();
    loop {
        let now = Instant::now();
        let next = watched.runs.first_key_value().map(|((deadline, _), _)| *deadline);
        watched = match next {
            Some(deadline) if deadline <= now => {
                if let Some((_, options)) = watched.runs.pop_first()
                    && let Err(error) = options.terminate()
                {
                    tracing::error!(%error, "a computation past its deadline was not stopped");
                }
                watched
            }
            Some(deadline) => {
                let waited = CHANGED.wait_timeout(watched, deadline - now);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => CHANGED.wait(watched).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

/// Ignores poisoning: no code under the lock leaves the map in an inconsistent state.
fn lock() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}
