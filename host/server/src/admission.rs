//! Who is let in: a bound on the work that waits and on how long it will.
//!
//! Past either a request is refused at once, before its body is read. A queue that is bounded by
//! its length alone would make every request of an overload wait for as long as the whole queue
//! takes; here it is bounded by that time too, which is the work that waits times what the last
//! pieces of work have taken between them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long the queue may be more than half full before the server is not ready: longer than a
/// burst takes.
const STANDING: Duration = Duration::from_secs(1);

/// What an end that was seen counts after the next one: the mean is of some thirty requests.
const FADING: f64 = 31.0 / 32.0;

/// How long it takes for the expected wait to halve while nobody waits: what one episode has taken
/// says little of the next.
const HALVING: Duration = Duration::from_secs(1);

/// The work that runs and waits, in inputs: a text, an image, or one piece of content of several
/// parts.
pub struct Gate {
    /// Inputs that run side by side.
    running: usize,
    /// Inputs that run or wait.
    most: usize,
    /// The longest that an input is expected to wait.
    queue_time: Duration,
    state: Mutex<State>,
}

/// Changed by a few instructions at a time, on the one thread that answers connections and at the
/// end of a request.
struct State {
    inputs: usize,
    /// Inputs that ended while some waited, and the seconds that this took; older ones count less.
    ended: f64,
    seconds: f64,
    /// When an input last ended, or when the first began to wait, whichever is later.
    counted_from: Option<Instant>,
    /// Since when nobody waits.
    rested: Option<Instant>,
    /// When the queue was last less than half full.
    slack: Instant,
}

/// A place for a number of inputs, given back on drop.
pub struct Admission {
    gate: Arc<Gate>,
    /// Changed by the one handler that this was given to.
    inputs: AtomicUsize,
}

/// There is no place.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Gate {
    /// A gate in front of `running` instances, for up to `waiting` inputs more.
    #[must_use]
    pub fn new(running: usize, waiting: usize, queue_time: Duration) -> Arc<Self> {
        let state = State {
            inputs: 0,
            ended: 0.0,
            seconds: 0.0,
            counted_from: None,
            rested: None,
            slack: Instant::now(),
        };
        Arc::new(Gate { running, most: running + waiting, queue_time, state: Mutex::new(state) })
    }

    /// A place for a request's first input.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn enter(self: &Arc<Self>) -> Result<Admission, Full> {
        self.add(0, 1, Instant::now())?;
        Ok(Admission { gate: self.clone(), inputs: AtomicUsize::new(1) })
    }

    /// Whether a request's first input would have a place now. A request is asked so before its
    /// body is read, and takes its place when the body has come.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn look(&self) -> Result<(), Full> {
        let state = self.state();
        let after = state.inputs + 1;
        let is_full = after > self.most || self.wait(&state, after, Instant::now()) > self.queue_time;
        if is_full && state.inputs > 0 { Err(Full) } else { Ok(()) }
    }

    /// Whether the queue has been more than half full for longer than a burst takes.
    #[must_use]
    pub fn is_standing(&self) -> bool {
        let state = self.state();
        !self.has_slack(&state, Instant::now()) && state.slack.elapsed() > STANDING
    }

    fn add(&self, own: usize, more: usize, now: Instant) -> Result<(), Full> {
        let mut state = self.state();
        let after = state.inputs + more;
        // A request of more inputs than there are places has all of them when nobody else has any.
        let alone = state.inputs == own;
        if !alone && (after > self.most || self.wait(&state, after, now) > self.queue_time) {
            return Err(Full);
        }
        if state.inputs <= self.running && after > self.running {
            state.counted_from = Some(now);
            state.seconds *= state.fading(now);
            state.rested = None;
        }
        if self.has_slack(&state, now) {
            state.slack = now;
        }
        state.inputs = after;
        Ok(())
    }

    fn remove(&self, inputs: usize, now: Instant) {
        let mut state = self.state();
        // Between ends of which some were not waited for, time passes that no input took.
        if let Some(from) = state.counted_from {
            state.ended = state.ended * FADING + inputs as f64;
            state.seconds = state.seconds * FADING + now.saturating_duration_since(from).as_secs_f64();
        }
        state.inputs -= inputs;
        state.counted_from = (state.inputs > self.running).then_some(now);
        if state.counted_from.is_none() {
            state.rested.get_or_insert(now);
        }
        if self.has_slack(&state, now) {
            state.slack = now;
        }
    }

    /// How long the last of `inputs` is expected to wait.
    fn wait(&self, state: &State, inputs: usize, now: Instant) -> Duration {
        let waiting = inputs.saturating_sub(self.running) as f64;
        // Before an end was seen nothing is known, and nobody refused for it.
        let interval = state.seconds * state.fading(now) / state.ended.max(1.0);
        Duration::try_from_secs_f64(waiting * interval).unwrap_or(Duration::MAX)
    }

    fn has_slack(&self, state: &State, now: Instant) -> bool {
        let waiting = state.inputs.saturating_sub(self.running);
        state.inputs < self.running
            || waiting * 2 < self.most - self.running
                && self.wait(state, state.inputs, now) < self.queue_time / 2
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is left of the measured time now that nobody has waited for a while.
    fn fading(&self, now: Instant) -> f64 {
        let rest = self.rested.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        (-rest.as_secs_f64() / HALVING.as_secs_f64()).exp2()
    }
}

impl Admission {
    /// Grow to `inputs` in all, once it is known how many a request holds.
    ///
    /// # Errors
    ///
    /// When there is no place for all of them.
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

    /// How long the one input that waits is expected to, in milliseconds.
    fn interval(gate: &Gate, now: Instant) -> f64 {
        (gate.wait(&gate.state(), gate.running + 1, now).as_secs_f64() * 1e3).round()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn places_are_counted_in_inputs_and_come_back() {
        let gate = Gate::new(2, 4, LONG);
        let array = gate.enter().unwrap();
        assert_eq!(array.grow(4), Ok(()));
        assert_eq!(array.grow(3), Ok(()), "it has as many already");
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
    fn an_array_larger_than_the_queue_is_judged_when_it_is_alone() {
        let gate = Gate::new(1, 1, LONG);
        let array = gate.enter().unwrap();
        assert_eq!(array.grow(100), Ok(()));
        assert!(gate.enter().is_err());
    }

    #[test]
    fn the_queue_is_as_long_as_its_time_allows() {
        // Two run; an input ends every 100 ms; 250 ms are two more and a half.
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
    fn time_in_which_nobody_waited_is_not_counted() {
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
    fn an_array_counts_as_what_it_holds() {
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
    fn expected_wait_fades_when_nobody_waits() {
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
    fn looking_takes_no_place() {
        let gate = Gate::new(1, 1, LONG);
        for _ in 0..3 {
            assert_eq!(gate.look(), Ok(()));
        }
        let _places = [gate.enter().unwrap(), gate.enter().unwrap()];
        assert_eq!(gate.look(), Err(Full));
    }

    #[test]
    fn a_queue_that_stays_full_is_told_and_a_burst_is_not() {
        let gate = Gate::new(1, 10, LONG);
        let places: Vec<_> = (0..11).map(|_| gate.enter().unwrap()).collect();
        assert!(!gate.is_standing());
        gate.state().slack = Instant::now().checked_sub(STANDING * 2).unwrap();
        assert!(gate.is_standing());
        drop(places);
        assert!(!gate.is_standing());
    }
}
