//! The circuit breaker of an upstream: after several failures in a row requests fail at once, until
//! a single one, the probe, has found that the upstream answers again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use infer_config::upstream::Resilience;

/// Time after which a request that came during a probe may be sent again.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// A circuit breaker.
pub(super) struct Breaker {
    max_failures: u32,
    open_time: Duration,
    /// Locked for a few instructions.
    state: Mutex<State>,
    /// Called with each new state.
    report: Box<dyn Fn(State) + Send + Sync>,
}

/// State of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Requests are sent; the last ones failed.
    Closed { failures: u32 },
    /// Requests fail until then.
    Open { until: Instant },
    /// One request is sent, and the others fail.
    Probing,
}

/// A request that the breaker let pass. Dropped without an outcome, it counts as neither.
pub(super) struct Ticket {
    breaker: Arc<Breaker>,
    is_probe: bool,
}

impl Breaker {
    /// A closed breaker. `report` is called with each new state.
    pub(super) fn new(resilience: &Resilience, report: Box<dyn Fn(State) + Send + Sync>) -> Arc<Self> {
        let state = Mutex::new(State::Closed { failures: 0 });
        report(State::Closed { failures: 0 });
        let (max_failures, open_time) = (resilience.breaker_failures, resilience.breaker_time);
        Arc::new(Breaker { max_failures, open_time, state, report })
    }

    /// Lets a request pass at `now`.
    ///
    /// # Errors
    ///
    /// The time after which a request may pass, if the breaker is open.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Result<Ticket, Duration> {
        let mut state = self.state();
        let is_probe = match *state {
            State::Closed { .. } => false,
            State::Open { until } if now < until => return Err(until - now),
            State::Open { .. } => true,
            State::Probing => return Err(PROBE_TIME.min(self.open_time)),
        };
        if is_probe {
            self.set(&mut state, State::Probing);
        }
        Ok(Ticket { breaker: self.clone(), is_probe })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: &mut State, new: State) {
        *state = new;
        (self.report)(new);
    }
}

impl Ticket {
    /// The upstream has begun to answer. A probe that got so far ends the probing, so that others
    /// need not wait for the end of a long answer; one more failure opens the breaker again.
    pub(super) fn answered(&mut self) {
        if std::mem::take(&mut self.is_probe) {
            let mut state = self.breaker.state();
            if *state == State::Probing {
                let failures = self.breaker.max_failures.saturating_sub(1);
                self.breaker.set(&mut state, State::Closed { failures });
            }
        }
    }

    /// The upstream has answered completely.
    pub(super) fn succeed(mut self) {
        self.answered();
        let mut state = self.breaker.state();
        if let State::Closed { failures: 1.. } = *state {
            self.breaker.set(&mut state, State::Closed { failures: 0 });
        }
    }

    /// The upstream has failed at `now`.
    pub(super) fn fail(mut self, now: Instant) {
        let is_probe = std::mem::take(&mut self.is_probe);
        let mut state = self.breaker.state();
        let until = now + self.breaker.open_time;
        match *state {
            State::Closed { failures } if failures + 1 < self.breaker.max_failures => {
                self.breaker.set(&mut state, State::Closed { failures: failures + 1 });
            }
            State::Closed { .. } => self.breaker.set(&mut state, State::Open { until }),
            State::Probing if is_probe => self.breaker.set(&mut state, State::Open { until }),
            // A request from before the breaker opened.
            State::Probing | State::Open { .. } => {}
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_probe {
            return;
        }
        // The probe's client has gone: the next request probes.
        let mut state = self.breaker.state();
        if *state == State::Probing {
            self.breaker.set(&mut state, State::Open { until: Instant::now() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Arc<Breaker> {
        let resilience =
            Resilience { retries: 0, retry_percent: 0.0, breaker_failures: 3, breaker_time: 10 * SECOND };
        Breaker::new(&resilience, Box::new(|_| {}))
    }

    #[test]
    fn consecutive_failures_open_it() {
        let (breaker, now) = (breaker(), Instant::now());
        let enter = || breaker.enter(now).ok().unwrap();
        enter().fail(now);
        enter().fail(now);
        // A success in between starts the count again.
        enter().succeed();
        enter().fail(now);
        enter().fail(now);
        drop(enter());
        let late = enter();
        enter().fail(now);
        assert_eq!(breaker.enter(now).err(), Some(10 * SECOND));
        assert_eq!(breaker.enter(now + 4 * SECOND).err(), Some(6 * SECOND));
        // An earlier request that fails now does not prolong it.
        late.fail(now + 5 * SECOND);
        assert_eq!(breaker.enter(now + 6 * SECOND).err(), Some(4 * SECOND));
    }

    /// An open breaker, and a time at which it lets a probe pass.
    fn opened() -> (Arc<Breaker>, Instant) {
        let (breaker, now) = (breaker(), Instant::now());
        (0..3).for_each(|_| breaker.enter(now).ok().unwrap().fail(now));
        (breaker, now + 10 * SECOND)
    }

    #[test]
    fn one_probe_passes_at_a_time() {
        let (breaker, later) = opened();
        let probe = breaker.enter(later).ok().unwrap();
        assert_eq!(breaker.enter(later).err(), Some(SECOND));
        probe.fail(later);
        assert_eq!(breaker.enter(later + SECOND).err(), Some(9 * SECOND));
        let later = later + 10 * SECOND;
        breaker.enter(later).ok().unwrap().succeed();
        breaker.enter(later).ok().unwrap().fail(later);
        assert!(breaker.enter(later).is_ok(), "closed, with one failure of three");
    }

    #[test]
    fn cancelled_probe_leaves_the_next() {
        let (breaker, later) = opened();
        drop(breaker.enter(later).ok().unwrap());
        assert!(breaker.enter(later.max(Instant::now())).is_ok());
    }

    #[test]
    fn answering_probe_admits_others() {
        let (breaker, later) = opened();
        let mut probe = breaker.enter(later).ok().unwrap();
        probe.answered();
        let other = breaker.enter(later).ok().unwrap();
        // Its answer is cut.
        probe.fail(later);
        assert!(breaker.enter(later).is_err());
        drop(other);
    }
}
