//! Admission control: limits the length of the queue and the expected wait.
//!
//! Beyond either limit a request is rejected at once, before its body is read. With a limit on the
//! length alone, every request of an overload would wait for the whole queue. The expected wait is
//! the number of queued inputs times the recent mean time between completions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::MAX_QUEUE_STANDING;

/// Decay of the mean per completed input: the mean covers about 30 requests.
const DECAY: f64 = 31.0 / 32.0;

/// Half-life of the expected wait while the queue is empty: one overload predicts little about the
/// next.
const HALF_LIFE: Duration = Duration::from_secs(1);

/// Admission gate over running and queued inputs: a text, an image, or one piece of content of
/// several parts.
pub struct Gate {
    /// Maximum number of inputs that run concurrently.
    running: usize,
    /// Maximum number of inputs that run or wait.
    max_inputs: usize,
    /// Maximum expected wait of an input.
    queue_time: Duration,
    state: Mutex<State>,
}

/// Locked for a few instructions at a time, on the connection thread and at the end of a request.
struct State {
    inputs: usize,
    /// Inputs that completed while others were queued, and the seconds that this took. Older ones
    /// weigh less.
    completed: f64,
    seconds: f64,
    /// Last completion, or the time at which the queue became non-empty, whichever is later.
    counted_from: Option<Instant>,
    /// Time since which the queue is empty.
    empty_since: Option<Instant>,
    /// Last time at which the queue was less than half full.
    last_slack: Instant,
}

/// A permit for a number of inputs, released on drop.
pub struct Admission {
    gate: Arc<Gate>,
    /// Changed only by the handler that owns the permit.
    inputs: AtomicUsize,
}

/// The admission limit is reached.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Gate {
    /// Creates a gate in front of `running` instances, with a queue of up to `waiting` inputs.
    #[must_use]
    pub fn new(running: usize, waiting: usize, queue_time: Duration) -> Arc<Self> {
        let state = State {
            inputs: 0,
            completed: 0.0,
            seconds: 0.0,
            counted_from: None,
            empty_since: None,
            last_slack: Instant::now(),
        };
        Arc::new(Gate { running, max_inputs: running + waiting, queue_time, state: Mutex::new(state) })
    }

    /// Admits the first input of a request.
    ///
    /// # Errors
    ///
    /// If the queue is full or the expected wait is too long.
    pub fn enter(self: &Arc<Self>) -> Result<Admission, Full> {
        self.add(0, 1, Instant::now())?;
        Ok(Admission { gate: self.clone(), inputs: AtomicUsize::new(1) })
    }

    /// Checks whether the first input of a request would be admitted now. Called before the body is
    /// read; the permit is taken once the body is complete.
    ///
    /// # Errors
    ///
    /// If the queue is full or the expected wait is too long.
    pub fn check(&self) -> Result<(), Full> {
        let state = self.state();
        let after = state.inputs + 1;
        let is_full = after > self.max_inputs || self.wait(&state, after, Instant::now()) > self.queue_time;
        if is_full && state.inputs > 0 { Err(Full) } else { Ok(()) }
    }

    /// True if the queue has been more than half full for longer than a burst takes.
    #[must_use]
    pub fn is_standing(&self) -> bool {
        let state = self.state();
        !self.has_slack(&state, Instant::now()) && state.last_slack.elapsed() > MAX_QUEUE_STANDING
    }

    fn add(&self, own: usize, more: usize, now: Instant) -> Result<(), Full> {
        let mut state = self.state();
        let after = state.inputs + more;
        // A request with more inputs than the limit is admitted when no other request holds a
        // permit.
        let is_alone = state.inputs == own;
        if !is_alone && (after > self.max_inputs || self.wait(&state, after, now) > self.queue_time) {
            return Err(Full);
        }
        if state.inputs <= self.running && after > self.running {
            state.counted_from = Some(now);
            state.seconds *= state.decay(now);
            state.empty_since = None;
        }
        if self.has_slack(&state, now) {
            state.last_slack = now;
        }
        state.inputs = after;
        Ok(())
    }

    fn remove(&self, inputs: usize, now: Instant) {
        let mut state = self.state();
        // Between completions without a queue, the elapsed time includes idle time, so it is not
        // counted.
        if let Some(from) = state.counted_from {
            state.completed = state.completed * DECAY + inputs as f64;
            state.seconds = state.seconds * DECAY + now.saturating_duration_since(from).as_secs_f64();
        }
        state.inputs -= inputs;
        state.counted_from = (state.inputs > self.running).then_some(now);
        if state.counted_from.is_none() {
            state.empty_since.get_or_insert(now);
        }
        if self.has_slack(&state, now) {
            state.last_slack = now;
        }
    }

    /// Expected wait of the last of `inputs`.
    fn wait(&self, state: &State, inputs: usize, now: Instant) -> Duration {
        let waiting = inputs.saturating_sub(self.running) as f64;
        // Before the first completion there is no estimate, and no request is rejected for its
        // wait.
        let interval = state.seconds * state.decay(now) / state.completed.max(1.0);
        Duration::try_from_secs_f64(waiting * interval).unwrap_or(Duration::MAX)
    }

    fn has_slack(&self, state: &State, now: Instant) -> bool {
        let waiting = state.inputs.saturating_sub(self.running);
        state.inputs < self.running
            || waiting * 2 < self.max_inputs - self.running
                && self.wait(state, state.inputs, now) < self.queue_time / 2
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Factor that decays the estimate while the queue is empty.
    fn decay(&self, now: Instant) -> f64 {
        let rest = self.empty_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (-rest.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

impl Admission {
    /// Grows the permit to `inputs` in all, once the number of inputs of the request is known.
    ///
    /// # Errors
    ///
    /// If not all of them can be admitted.
    pub fn grow(&self, inputs: usize) -> Result<(), Full> {
        let own = self.inputs.load(Ordering::Relaxed);
        if inputs > own {
            self.gate.add(own, inputs - own, Instant::now())?;
            self.inputs.store(inputs, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.gate.remove(*self.inputs.get_mut(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected wait of a single queued input, in milliseconds.
    fn interval(gate: &Gate, now: Instant) -> f64 {
        (gate.wait(&gate.state(), gate.running + 1, now).as_secs_f64() * 1e3).round()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn permits_count_inputs_and_are_released() {
        let gate = Gate::new(2, 4, LONG);
        let array = gate.enter().unwrap();
        assert_eq!(array.grow(4), Ok(()));
        assert_eq!(array.grow(3), Ok(()), "a permit does not shrink");
        let other = gate.enter().unwrap();
        assert_eq!(other.grow(3), Err(Full));
        assert_eq!(other.grow(2), Ok(()));
        assert!(gate.enter().is_err());
        drop(array);
        assert_eq!(other.grow(6), Ok(()));
        drop(other);
        assert_eq!(gate.state().inputs, 0);
    }

    #[test]
    fn oversized_array_is_admitted_when_alone() {
        let gate = Gate::new(1, 1, LONG);
        let array = gate.enter().unwrap();
        assert_eq!(array.grow(100), Ok(()));
        assert!(gate.enter().is_err());
    }

    #[test]
    fn queue_length_follows_queue_time() {
        // Two run; an input completes every 100 ms; a queue time of 250 ms admits two more.
        let gate = Gate::new(2, 1_000, Duration::from_millis(250));
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        gate.add(0, 10, at(0)).unwrap();
        for end in 1..=8 {
            gate.remove(1, at(end * 100));
        }
        assert_eq!(interval(&gate, at(800)), 100.0);
        assert_eq!(gate.state().inputs, 2);
        assert_eq!(gate.add(0, 1, at(800)), Ok(()));
        assert_eq!(gate.add(0, 1, at(800)), Ok(()));
        assert_eq!(gate.add(0, 1, at(800)), Err(Full));
        gate.remove(1, at(900));
        assert_eq!(gate.add(0, 1, at(900)), Ok(()));
    }

    #[test]
    fn idle_time_is_not_counted() {
        let gate = Gate::new(1, 1_000, Duration::from_millis(250));
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        gate.add(0, 1, at(0)).unwrap();
        gate.remove(1, at(5_000));
        assert_eq!(interval(&gate, at(5_000)), 0.0);
        gate.add(0, 1, at(60_000)).unwrap();
        gate.add(0, 1, at(60_000)).unwrap();
        gate.remove(1, at(60_010));
        assert_eq!(interval(&gate, at(60_010)), 10.0);
    }

    #[test]
    fn array_counts_as_its_inputs() {
        let gate = Gate::new(1, 1_000, LONG);
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        gate.add(0, 101, at(0)).unwrap();
        gate.remove(1, at(10));
        gate.remove(90, at(910));
        gate.remove(9, at(1_000));
        assert_eq!(interval(&gate, at(1_000)), 10.0);
    }

    #[test]
    fn expected_wait_decays_while_queue_is_empty() {
        let gate = Gate::new(1, 1_000, Duration::from_millis(250));
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        gate.add(0, 3, at(0)).unwrap();
        gate.remove(1, at(800));
        gate.remove(1, at(1_600));
        assert_eq!(interval(&gate, at(1_600)), 800.0);
        assert_eq!(gate.add(0, 3, at(1_600)), Err(Full));
        assert_eq!(interval(&gate, at(4_600)), 100.0);
        assert_eq!(interval(&gate, at(31_600)), 0.0);
        assert_eq!(gate.add(0, 30, at(31_600)), Ok(()));
    }

    #[test]
    fn check_takes_no_permit() {
        let gate = Gate::new(1, 1, LONG);
        for _ in 0..3 {
            assert_eq!(gate.check(), Ok(()));
        }
        let _permits = [gate.enter().unwrap(), gate.enter().unwrap()];
        assert_eq!(gate.check(), Err(Full));
    }

    #[test]
    fn standing_queue_is_reported_and_burst_is_not() {
        let gate = Gate::new(1, 10, LONG);
        let permits: Vec<_> = (0..11).map(|_| gate.enter().unwrap()).collect();
        assert!(!gate.is_standing());
        gate.state().last_slack = Instant::now().checked_sub(MAX_QUEUE_STANDING * 2).unwrap();
        assert!(gate.is_standing());
        drop(permits);
        assert!(!gate.is_standing());
    }
}
