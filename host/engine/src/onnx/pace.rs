//! Whether a computation is short enough for the thread that asks for it.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

/// The longest computation, as far as earlier ones tell, that holds up a caller's thread: what else
/// that thread has to do waits so long at most.
const LONGEST: Duration = Duration::from_millis(5);

/// Callers that compute now, of all models together.
static COMPUTING: AtomicUsize = AtomicUsize::new(0);

/// How many may at once. Asked once, for the answer is read from files.
static PROCESSORS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));

/// How long a model takes for a row, or a position of another axis that varies, from what it took.
#[derive(Default)]
pub(super) struct Pace {
    /// In nanoseconds, the newest an eighth of it; 0 before the first.
    row: AtomicU64,
}

/// Leave to compute on the caller's thread, for as long as it is kept.
pub(super) struct Place;

impl Pace {
    /// Count a computation. Two at once may lose one of them, which does no harm.
    pub(super) fn record(&self, compute: Duration, rows: usize) {
        let newest = compute.as_nanos() as u64 / rows.max(1) as u64;
        let average = match self.row.load(Ordering::Relaxed) {
            0 => newest,
            average => average - average / 8 + newest / 8,
        };
        self.row.store(average.max(1), Ordering::Relaxed);
    }

    /// Leave to compute `rows` here: when it is going to be short, and other callers do not already
    /// keep every processor busy, so that a runtime with one thread more than there are processors
    /// always has one that listens.
    pub(super) fn here(&self, rows: usize) -> Option<Place> {
        let row = self.row.load(Ordering::Relaxed);
        if row == 0 || u128::from(row) * rows as u128 > LONGEST.as_nanos() {
            return None;
        }
        let more = |computing: usize| (computing < *PROCESSORS).then_some(computing + 1);
        COMPUTING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        COMPUTING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_computations_are_done_here_and_long_ones_are_not() {
        let pace = Pace::default();
        assert!(pace.here(1).is_none(), "nothing is known of the first");
        pace.record(Duration::from_millis(8), 4);
        assert!(pace.here(1).is_some(), "2 ms");
        assert!(pace.here(3).is_none(), "6 ms");
        for _ in 0..64 {
            pace.record(Duration::from_micros(100), 1);
        }
        assert!(pace.here(3).is_some(), "it has become faster");
    }
}
