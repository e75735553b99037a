//! The time that the scheduler and its queue read. A simulation sets its own.

use std::time::Instant;

#[cfg(test)]
thread_local! {
    /// Time of this thread's simulation.
    pub(super) static SIMULATED: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
}

/// The current time, or that of the simulation on this thread.
pub(super) fn now() -> Instant {
    #[cfg(test)]
    if let Some(now) = SIMULATED.get() {
        return now;
    }
    Instant::now()
}
