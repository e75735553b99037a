//! Stops computations that run past their deadline.
//!
//! A file may contain a loop without end, and a batch may take longer than expected. Its caller
//! gets an error at the deadline; this releases the thread and the session as well.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ort::session::RunOptions;

static WATCHDOG: Watchdog<RunOptions> = Watchdog::new(terminate);

/// A deadline, with a number that tells equal deadlines apart.
type Key = (Instant, u64);

/// Computations in flight, and the thread that stops them.
struct Watchdog<R> {
    watched: Mutex<Watched<R>>,
    /// Notified when a deadline is earlier than the time at which the thread wakes.
    changed: Condvar,
    stop: fn(&R),
}

struct Watched<R> {
    runs: BTreeMap<Key, Arc<R>>,
    next: u64,
    has_thread: bool,
    /// Time at which the thread wakes on its own; `None` if it waits for a computation. It sleeps
    /// on after its computation has ended: most later ones have later deadlines, and to wake a
    /// thread for each would take as long as a tenth of a short computation.
    wakes: Option<Instant>,
}

/// A computation that is watched until this is dropped.
pub(super) struct Watch(Key);

/// Stops the computation with `options` at `deadline`.
pub(super) fn watch(options: Arc<RunOptions>, deadline: Instant) -> Watch {
    let (key, starts) = WATCHDOG.add(options, deadline);
    if starts {
        let thread = std::thread::Builder::new().name("deadlines".to_owned());
        if let Err(error) = thread.spawn(|| WATCHDOG.serve()) {
            WATCHDOG.lock().has_thread = false;
            tracing::error!(%error, "computations past their deadline are not stopped");
        }
    }
    Watch(key)
}

impl Drop for Watch {
    fn drop(&mut self) {
        WATCHDOG.remove(&self.0);
    }
}

fn terminate(options: &RunOptions) {
    if let Err(error) = options.terminate() {
        tracing::error!(%error, "a computation past its deadline was not stopped");
    }
}

impl<R> Watchdog<R> {
    const fn new(stop: fn(&R)) -> Self {
        let watched = Watched { runs: BTreeMap::new(), next: 0, has_thread: false, wakes: None };
        Watchdog { watched: Mutex::new(watched), changed: Condvar::new(), stop }
    }

    /// Adds a computation. Returns true if the caller must start the thread.
    fn add(&self, run: Arc<R>, deadline: Instant) -> (Key, bool) {
        let mut watched = self.lock();
        let key = (deadline, watched.next);
        watched.next += 1;
        watched.runs.insert(key, run);
        if watched.wakes.is_none_or(|wakes| deadline < wakes) {
            // Set here, so that only one computation notifies before the thread runs.
            watched.wakes = Some(deadline);
            self.changed.notify_one();
        }
        let starts = !std::mem::replace(&mut watched.has_thread, true);
        (key, starts)
    }

    fn remove(&self, key: &Key) {
        self.lock().runs.remove(key);
    }

    /// Stops computations at their deadlines, without end.
    fn serve(&self) {
        let mut watched = self.lock();
        loop {
            let now = Instant::now();
            let next = watched.runs.first_key_value().map(|((deadline, _), _)| *deadline);
            watched.wakes = next;
            watched = match next {
                Some(deadline) if deadline <= now => {
                    if let Some((_, run)) = watched.runs.pop_first() {
                        (self.stop)(&run);
                    }
                    watched
                }
                Some(deadline) => {
                    let waited = self.changed.wait_timeout(watched, deadline - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(watched).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Ignores poisoning: no code under the lock leaves the map in an inconsistent state.
    fn lock(&self) -> MutexGuard<'_, Watched<R>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    use super::*;

    /// A number, and the place where it is sent when its computation is stopped.
    type Reporting = (u32, Sender<u32>);

    const SOON: Duration = Duration::from_millis(5);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn watchdog() -> (&'static Watchdog<Reporting>, Sender<u32>, Receiver<u32>) {
        let stop = |(number, stopped): &Reporting| stopped.send(*number).unwrap();
        let (sender, stopped) = channel();
        (Box::leak(Box::new(Watchdog::new(stop))), sender, stopped)
    }

    #[test]
    fn late_computations_are_stopped_in_order() {
        let (watchdog, sender, stopped) = watchdog();
        let now = Instant::now();
        for (number, deadline) in [(1, HOUR), (2, 3 * SOON), (3, SOON), (4, 2 * SOON), (5, SOON)] {
            let (key, starts) = watchdog.add(Arc::new((number, sender.clone())), now + deadline);
            assert_eq!(starts, number == 1);
            if number == 4 {
                watchdog.remove(&key);
            }
        }
        std::thread::spawn(|| watchdog.serve());
        let order: Vec<_> = (0..3).map(|_| stopped.recv().unwrap()).collect();
        assert_eq!(order, [3, 5, 2]);
        assert!(now.elapsed() >= 3 * SOON);
        assert!(stopped.try_recv().is_err(), "one has ended, one has time left");
    }

    #[test]
    fn sleeping_thread_learns_of_earlier_deadlines() {
        let (watchdog, sender, stopped) = watchdog();
        std::thread::spawn(|| watchdog.serve());
        for number in 1..=3 {
            // It ends at once, unless this machine is so busy that it is stopped before.
            for ended in [HOUR, SOON] {
                let (key, _) = watchdog.add(Arc::new((0, sender.clone())), Instant::now() + ended);
                watchdog.remove(&key);
            }
            watchdog.add(Arc::new((number, sender.clone())), Instant::now() + 2 * SOON);
            assert_eq!(stopped.iter().find(|&number| number != 0), Some(number));
        }
    }
}
