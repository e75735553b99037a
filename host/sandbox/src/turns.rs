//! Scheduling of guests where there are more than processors: short calls go first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::thread::available_parallelism;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Guest time of a short call. Longer calls leave a processor to short ones.
const SHORT: Duration = Duration::from_millis(1);

/// Permits for long calls, and the number of short calls in flight.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    short: Arc<AtomicUsize>,
    /// Number of long calls that run at once while there are short ones.
    long: Arc<Semaphore>,
}

type Waiting = Pin<Box<dyn Future<Output = Result<OwnedSemaphorePermit, AcquireError>> + Send>>;

/// Scheduling state of one call.
pub(crate) struct Turn {
    turns: Turns,
    is_short: bool,
    waiting: Option<Waiting>,
}

impl Turns {
    pub(crate) fn new() -> Self {
        let processors = available_parallelism().map_or(1, usize::from);
        Turns { short: Arc::default(), long: Arc::new(Semaphore::new(processors.saturating_sub(1).max(1))) }
    }

    /// Registers a call that begins.
    pub(crate) fn begin(&self) -> Turn {
        self.short.fetch_add(1, Ordering::Relaxed);
        Turn { turns: self.clone(), is_short: true, waiting: None }
    }
}

impl Turn {
    /// Ready when the call, whose guest has run for `spent`, may run for a tick. The permit, if
    /// any, must be held until the tick ends.
    pub(crate) fn poll(
        &mut self,
        spent: Duration,
        context: &mut Context<'_>,
    ) -> Poll<Option<OwnedSemaphorePermit>> {
        if spent < SHORT {
            return Poll::Ready(None);
        }
        self.end_short();
        if self.waiting.is_none() && self.turns.short.load(Ordering::Relaxed) == 0 {
            return Poll::Ready(None);
        }
        let long = &self.turns.long;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(long.clone().acquire_owned()));
        let turn = ready!(waiting.as_mut().poll(context));
        self.waiting = None;
        Poll::Ready(turn.ok())
    }

    fn end_short(&mut self) {
        if std::mem::take(&mut self.is_short) {
            self.turns.short.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.end_short();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(turn: &mut Turn, millis: u64) -> Poll<Option<OwnedSemaphorePermit>> {
        turn.poll(Duration::from_millis(millis), &mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn long_calls_take_turns_beside_short_ones() {
        let turns = Turns { short: Arc::default(), long: Arc::new(Semaphore::new(1)) };
        let [mut one, mut other, mut third] = [turns.begin(), turns.begin(), turns.begin()];
        assert!(matches!(poll(&mut one, 0), Poll::Ready(None)));
        let Poll::Ready(Some(turn)) = poll(&mut one, 1) else { panic!("the only long one runs") };
        assert!(poll(&mut other, 1).is_pending());
        assert!(matches!(poll(&mut third, 0), Poll::Ready(None)), "the short one runs");
        drop(turn);
        assert!(matches!(poll(&mut other, 1), Poll::Ready(Some(_))));
        drop(third);
        assert!(matches!(poll(&mut one, 2), Poll::Ready(None)));
        assert!(matches!(poll(&mut other, 2), Poll::Ready(None)), "with no short ones all run");
        drop((one, other));
        assert_eq!(turns.short.load(Ordering::Relaxed), 0);
    }
}
