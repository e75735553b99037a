//! Guest time: processor time of a guest, measured where the executor polls it.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::turns::Turn;

/// A stopwatch that runs only while its future is polled.
///
/// Waiting for models is not counted: the guest waits outside `poll`, or the model computes inside
/// it under [`Clock::outside`]. Clones share the same reading: one clone goes into the epoch
/// callback, which interrupts the guest in the middle of a poll, and one to the host's calls.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    origin: Instant,
    /// Nanoseconds of finished polls.
    spent: AtomicU64,
    /// Start of the running poll in nanoseconds after `origin`, moved later by time spent outside.
    began: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let shared = Shared { origin: Instant::now(), spent: AtomicU64::new(0), began: AtomicU64::new(0) };
        Clock { shared: Arc::new(shared) }
    }

    /// Total time of finished polls.
    pub(crate) fn spent(&self) -> Duration {
        Duration::from_nanos(self.shared.spent.load(Ordering::Relaxed))
    }

    /// Time in the running poll; call it inside that poll only.
    pub(crate) fn running(&self) -> Duration {
        Duration::from_nanos(self.now() - self.shared.began.load(Ordering::Relaxed))
    }

    /// Total time so far; call it inside a poll only.
    pub(crate) fn spent_inside(&self) -> Duration {
        self.spent() + self.running()
    }

    /// Measures `future`, which runs when `turn` permits.
    pub(crate) fn measure<F: Future>(&self, turn: Turn, future: F) -> Measured<F> {
        Measured { clock: self.clone(), turn, future: Box::pin(future) }
    }

    /// Runs a part of the measured future that does not count as guest time.
    pub(crate) async fn outside<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            let left = self.now();
            let answer = future.as_mut().poll(context);
            self.shared.began.fetch_add(self.now() - left, Ordering::Relaxed);
            answer
        })
        .await
    }

    fn now(&self) -> u64 {
        self.shared.origin.elapsed().as_nanos() as u64
    }
}

/// A future measured by a clock.
pub(crate) struct Measured<F> {
    clock: Clock,
    turn: Turn,
    future: Pin<Box<F>>,
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let spent = self.clock.spent();
        let _turn = ready!(self.turn.poll(spent, context));
        // Relaxed is enough: the executor orders polls, and the callback runs inside a poll.
        self.clock.shared.began.store(self.clock.now(), Ordering::Relaxed);
        let answer = self.future.as_mut().poll(context);
        let spent = self.clock.now() - self.clock.shared.began.load(Ordering::Relaxed);
        self.clock.shared.spent.fetch_add(spent, Ordering::Relaxed);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::turns::Turns;

    #[tokio::test]
    async fn guest_time_excludes_waiting() {
        let clock = Clock::new();
        let inside = clock
            .measure(Turns::new().begin(), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let work = Instant::now();
                while work.elapsed() < Duration::from_millis(5) {}
                clock.outside(async { std::thread::sleep(Duration::from_millis(300)) }).await;
                clock.spent_inside()
            })
            .await;
        assert!(inside >= Duration::from_millis(5), "{inside:?}");
        assert!(clock.spent() >= inside);
        assert!(clock.spent() < Duration::from_millis(300), "{:?}", clock.spent());
    }
}
