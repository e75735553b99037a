//! The time that the scheduler and its queue read. A simulation sets its own.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

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

/// The current time of chat templates, in seconds after 1970 in UTC.
pub(super) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs().cast_signed()
}
