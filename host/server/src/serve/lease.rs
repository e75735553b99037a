//! The resources of a request, as a lease: released at the request's deadline, or when the client
//! does not read its response, even if nothing polls the request.
//!
//! A response body is polled only while the client's window is open, so shared resources must not
//! depend on it alone. The connection checks its leases periodically (`Activity::sweep`) and ends
//! those that are due: it releases permits and memory, cancels the computation, and resets the
//! stream.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use infer_sandbox::Reservation;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use crate::limits::{MIN_PROGRESS_BYTES, MIN_SEND_BYTES, SMALL_RESPONSE_BYTES};

/// Memory of a response beside its body: its head and the state of its stream.
const HEAD_BYTES: usize = 1 << 10;

/// The connection of a request, as seen by its leases.
pub(super) trait Connection: Send + Sync {
    /// Records that a request had a valid API key.
    fn authenticate(&self);

    /// Records that the client sent or read bytes at `now`.
    fn progress(&self, now: Instant);

    /// Removes `lease`, whose request has ended.
    fn end(&self, lease: &Lease, answered: bool, expired: bool);
}

/// The resources of one request. Clones share the lease.
#[derive(Clone)]
pub struct Lease(Arc<Inner>);

struct Inner {
    connection: Arc<dyn Connection>,
    http2: bool,
    /// Locked for a few instructions, by the connection and by the handler.
    state: Mutex<State>,
    /// Wakes the request's stream when the lease has expired.
    expired: Notify,
}

/// The phases of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The body is still arriving.
    Arriving,
    /// The server computes the response.
    Working,
    /// The client reads the response.
    Responding,
}

pub(super) struct State {
    phase: Phase,
    /// Deadline of the response; `None` until a layer has set it.
    deadline: Option<Instant>,
    /// Resources of the computation behind a streamed response.
    pub(super) work: Option<Box<dyn Any + Send>>,
    is_done: bool,
    /// Memory of the bytes that the client has not read.
    unsent: Reservation,
    /// Number of those bytes that hyper has.
    pub(super) unread: usize,
    /// Time since which hyper has bytes of which the client has read less than
    /// [`MIN_PROGRESS_BYTES`].
    pub(super) stalled: Option<Instant>,
    /// Bytes read since then, and in total.
    pub(super) read: usize,
    sent: u64,
    /// Bytes of the request's body since the last progress.
    received: usize,
    /// Set when the response body has ended, successfully or not.
    ended: Option<bool>,
    is_wasted: bool,
    pub(super) is_expired: bool,
    /// Waits for `unread` to become 0.
    pub(super) waker: Option<Waker>,
}

/// State of a lease.
pub(super) enum LeaseState {
    /// Valid until this time, unless something changes.
    Until(Option<Instant>),
    /// Due, with the reason.
    Expired(&'static str),
}

/// The request memory is exhausted.
#[derive(Debug, thiserror::Error)]
#[error("the request memory budget is exhausted")]
pub struct NoMemory;

impl Lease {
    pub(super) fn new(
        connection: Arc<dyn Connection>,
        unsent: Reservation,
        http2: bool,
        is_complete: bool,
    ) -> Self {
        let state = State {
            phase: if is_complete { Phase::Working } else { Phase::Arriving },
            deadline: None,
            work: None,
            is_done: false,
            unsent,
            unread: 0,
            stalled: None,
            read: 0,
            sent: 0,
            received: 0,
            ended: None,
            is_wasted: false,
            is_expired: false,
            waker: None,
        };
        Lease(Arc::new(Inner { connection, http2, state: Mutex::new(state), expired: Notify::new() }))
    }

    /// Sets the request's deadline.
    pub fn until(&self, deadline: std::time::Instant) {
        self.state().deadline = Some(deadline.into());
    }

    /// Records that the request had a valid API key.
    pub fn authenticate(&self) {
        self.0.connection.authenticate();
    }

    /// Records `bytes` of the request's body.
    pub fn receive(&self, bytes: usize) {
        let mut state = self.state();
        state.received += bytes;
        if state.received >= MIN_PROGRESS_BYTES {
            state.received = 0;
            drop(state);
            self.0.connection.progress(Instant::now());
        }
    }

    /// Records that the request's body is complete.
    pub fn arrived(&self) {
        self.state().phase = Phase::Working;
    }

    /// Records that the request's body did not arrive, or broke off: its response does not count as
    /// useful work.
    pub fn mark_wasted(&self) {
        self.state().is_wasted = true;
    }

    /// Keeps the resources of a streamed response until its end or the request's deadline.
    pub fn hold(&self, work: Box<dyn Any + Send>) {
        let mut state = self.state();
        // If the request is over, the resources are dropped after the lock is released.
        if !state.is_done && !state.is_expired && state.ended.is_none() {
            state.work = Some(work);
        }
    }

    /// Releases the resources of the finished computation.
    pub fn release(&self) {
        let mut state = self.state();
        state.is_done = true;
        let work = state.work.take();
        drop(state);
        drop(work);
    }

    /// Begins to answer with a body of `length` bytes, if known.
    ///
    /// # Errors
    ///
    /// If the response is too large for the remaining memory.
    pub(super) fn respond(&self, length: Option<u64>) -> Result<(), NoMemory> {
        let mut state = self.state();
        state.phase = Phase::Responding;
        let length = length.unwrap_or(0);
        let bytes = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(HEAD_BYTES);
        match state.unsent.grow(bytes) {
            Err(_) if length > SMALL_RESPONSE_BYTES => Err(NoMemory),
            _ => Ok(()),
        }
    }

    /// Charges `bytes` more of a response.
    ///
    /// # Errors
    ///
    /// If the memory budget is exhausted.
    pub fn grow(&self, bytes: usize) -> Result<(), NoMemory> {
        self.state().unsent.grow(bytes).map_err(|_| NoMemory)
    }

    /// Records that the client has read `bytes`, or that they were dropped.
    pub(super) fn written(&self, bytes: usize, are_read: bool) {
        let mut state = self.state();
        state.unread = state.unread.saturating_sub(bytes);
        state.unsent.shrink(bytes);
        let all_read = state.unread == 0;
        let mut progress = None;
        if are_read {
            state.read += bytes;
            state.sent += bytes as u64;
            if all_read || state.read >= MIN_PROGRESS_BYTES {
                progress = Some(Instant::now());
                state.read = 0;
            }
        }
        if all_read {
            state.stalled = None;
        } else if progress.is_some() {
            state.stalled = progress;
        }
        let waker = if all_read { state.waker.take() } else { None };
        let ended = state.ended.filter(|_| all_read);
        let is_expired = state.is_expired;
        drop(state);
        if let Some(now) = progress {
            self.0.connection.progress(now);
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(answered) = ended {
            self.0.connection.end(self, answered, is_expired);
        }
    }

    /// Ends the request: the response body has ended, or there will be none.
    fn end(&self, answered: bool) {
        let mut state = self.state();
        let answered = answered && !state.is_wasted;
        state.ended = Some(answered);
        let (work, is_over, is_expired) = (state.work.take(), state.unread == 0, state.is_expired);
        drop(state);
        drop(work);
        if is_over {
            self.0.connection.end(self, answered, is_expired);
        }
    }

    /// Returns the state of the lease; at the deadline it releases the resources of the
    /// computation.
    pub(super) fn check(&self, send_time: Duration, now: Instant) -> LeaseState {
        let mut state = self.state();
        let stalls = state.stalled.map(|since| since + send_time);
        let rounds = u32::try_from(1 + state.sent / MIN_SEND_BYTES).unwrap_or(u32::MAX);
        let ends = state.deadline.map(|deadline| deadline + send_time.saturating_mul(rounds));
        if stalls.is_some_and(|due| due <= now) {
            return LeaseState::Expired("the client does not read its response");
        }
        if ends.is_some_and(|due| due <= now) {
            return LeaseState::Expired("the client has not read its response in time");
        }
        let mut work = None;
        let mut lapses = state.deadline.filter(|_| state.work.is_some());
        if lapses.is_some_and(|due| due <= now) {
            (work, lapses) = (state.work.take(), None);
        }
        drop(state);
        drop(work);
        LeaseState::Until([stalls, ends, lapses].into_iter().flatten().min())
    }

    /// Expires the lease. False if its stream cannot be reset, so that only closing the connection
    /// releases its resources.
    pub(super) fn expire(&self) -> bool {
        let mut state = self.state();
        state.is_expired = true;
        let (work, waker, can_reset) = (state.work.take(), state.waker.take(), state.ended.is_none());
        drop(state);
        drop(work);
        self.0.expired.notify_one();
        if let Some(waker) = waker {
            waker.wake();
        }
        can_reset
    }

    pub(super) fn is_working(&self) -> bool {
        self.state().phase == Phase::Working
    }

    pub(super) fn is_responding(&self) -> bool {
        self.state().phase == Phase::Responding
    }

    pub(super) fn is_http2(&self) -> bool {
        self.0.http2
    }

    /// Resolves when the lease has expired.
    pub(super) async fn expired(&self) {
        self.0.expired.notified().await;
    }

    pub(super) fn is(&self, other: &Lease) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in flight, from its head to the end of its response body.
pub(super) struct InFlight {
    pub(super) lease: Lease,
    pub(super) is_answered: bool,
}

impl InFlight {
    pub(super) fn new(lease: Lease) -> Self {
        InFlight { lease, is_answered: false }
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.lease.end(self.is_answered);
    }
}
