//! Decision whether a job is short enough to run on the caller's thread.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use crate::limits::MAX_INLINE_TIME;

/// Number of callers that compute now, for all models together.
static COMPUTING: AtomicUsize = AtomicUsize::new(0);

/// Maximum number of such callers. Cached, because the system reads it from files.
static PROCESSORS: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));

/// Average time per row, or per position of another varying axis, from earlier computations.
#[derive(Default)]
pub(super) struct Pace {
    /// Nanoseconds; the latest value has a weight of 1/8. 0 before the first computation.
    row: AtomicU64,
}

/// Permit to run inline, on the caller's thread, until it is dropped.
pub(super) struct InlinePermit;

impl Pace {
    /// Records a computation. Of two concurrent calls one may be lost, which is harmless.
    pub(super) fn record(&self, compute: Duration, rows: usize) {
        let newest = compute.as_nanos() as u64 / rows.max(1) as u64;
        let average = match self.row.load(Ordering::Relaxed) {
            0 => newest,
            average => average - average / 8 + newest / 8,
        };
        self.row.store(average.max(1), Ordering::Relaxed);
    }

    /// Expected time of `rows`.
    pub(super) fn expect(&self, rows: usize) -> Duration {
        Duration::from_nanos(self.row.load(Ordering::Relaxed).saturating_mul(rows as u64))
    }

    /// Returns a permit to compute `rows` inline if the expected time is short and fewer callers
    /// than processors compute. A runtime with one more thread than processors then always has a
    /// thread for I/O.
    pub(super) fn permit(&self, rows: usize) -> Option<InlinePermit> {
        let row = self.row.load(Ordering::Relaxed);
        if row == 0 || u128::from(row) * rows as u128 > MAX_INLINE_TIME.as_nanos() {
            return None;
        }
        let more = |computing: usize| (computing < *PROCESSORS).then_some(computing + 1);
        COMPUTING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| InlinePermit)
    }
}

impl Drop for InlinePermit {
    fn drop(&mut self) {
        COMPUTING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_short_computations_run_inline() {
        let pace = Pace::default();
        assert!(pace.permit(1).is_none(), "no earlier computation");
        pace.record(Duration::from_millis(8), 4);
        assert!(pace.permit(1).is_some(), "2 ms");
        assert!(pace.permit(3).is_none(), "6 ms");
        for _ in 0..64 {
            pace.record(Duration::from_micros(100), 1);
        }
        assert!(pace.permit(3).is_some(), "the average has fallen");
    }
}
