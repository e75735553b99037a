//! The state of one connection: its requests, its progress, and its time limits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infer_config::ConnectionLimits;
use infer_sandbox::RequestMemory;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::lease::{Connection, InFlight, Lease, LeaseState};
use crate::limits::{MAX_UNPRODUCTIVE_BYTES, MAX_WASTED_REQUESTS, MIN_QUIET};

/// The state of one connection.
pub(super) struct Activity {
    /// Locked for a few instructions, on the connection thread and, when a handler streams its
    /// response, on the handler's thread. Lock order: the lock of a lease may be taken inside this
    /// one, never the reverse.
    state: Mutex<State>,
    /// Budget for responses that the client has not read.
    memory: RequestMemory,
    /// Wakes the connection when there is a reason to close it.
    closing: Notify,
    /// Wakes a request that waits for earlier responses to be written.
    writable: Notify,
    /// Makes the requests of a connection start one after another.
    turn: Semaphore,
}

struct State {
    leases: Vec<Lease>,
    /// Time at which the last request ended.
    idle: Instant,
    /// Time at which the client last read or sent a noticeable part of a body.
    progress: Instant,
    /// Time of the first byte of the next head.
    head: Option<Instant>,
    /// True once a whole head has arrived.
    had_request: bool,
    /// Between two requests an HTTP/2 client sends more than heads: window updates, settings,
    /// pings.
    http2: bool,
    /// True if everything that the client has sent was read; otherwise its silence may be the
    /// server's own delay.
    is_read: bool,
    /// `None` once a request had a valid API key.
    anonymous: Option<CrowdMember>,
    answered: u32,
    wasted: u32,
    unproductive: usize,
    /// True while the socket accepts no more bytes.
    blocked: bool,
    /// Time at which the connection was evicted.
    evicted: Option<Instant>,
}

/// Rank of a connection for eviction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    /// True if a request had a valid API key.
    pub(super) is_authenticated: bool,
    /// Number of anonymous connections of its address, if it is anonymous.
    pub(super) crowd: usize,
    /// Time since which it has been quiet.
    pub(super) since: Instant,
}

/// Counts the anonymous connections of one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<AtomicUsize>);

/// One of them, counted until it is dropped.
#[derive(Debug)]
struct CrowdMember(Crowd);

impl Crowd {
    fn join(&self) -> CrowdMember {
        self.0.fetch_add(1, Ordering::Relaxed);
        CrowdMember(self.clone())
    }
}

impl CrowdMember {
    fn size(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }
}

impl Drop for CrowdMember {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Creates the state of a connection, counted as an anonymous one of its address.
    pub(super) fn new(memory: RequestMemory, crowd: &Crowd) -> Self {
        let now = Instant::now();
        let state = State {
            leases: Vec::new(),
            idle: now,
            progress: now,
            head: None,
            had_request: false,
            http2: false,
            is_read: false,
            anonymous: Some(crowd.join()),
            answered: 0,
            wasted: 0,
            unproductive: 0,
            blocked: false,
            evicted: None,
        };
        Activity {
            state: Mutex::new(state),
            memory,
            closing: Notify::new(),
            writable: Notify::new(),
            turn: Semaphore::new(1),
        }
    }

    pub(super) fn memory(&self) -> &RequestMemory {
        &self.memory
    }

    /// Records that all bytes received so far were read.
    pub(super) fn mark_read(&self) {
        self.state().is_read = true;
    }

    /// Counts `bytes` received.
    ///
    /// # Errors
    ///
    /// If a client sends too many control frames, before its first request or between requests.
    pub(super) fn read(&self, bytes: usize) -> Result<(), &'static str> {
        let mut state = self.state();
        if state.leases.is_empty() {
            state.head.get_or_insert_with(Instant::now);
        }
        state.unproductive = state.unproductive.saturating_add(bytes);
        if (state.http2 || !state.had_request) && state.unproductive > MAX_UNPRODUCTIVE_BYTES {
            return Err("too many control frames");
        }
        Ok(())
    }

    /// Records whether the socket blocks writes.
    pub(super) fn set_blocked(&self, blocked: bool) {
        let mut state = self.state();
        if state.blocked != blocked {
            state.blocked = blocked;
            drop(state);
            self.writable.notify_waiters();
        }
    }

    /// Waits until the socket accepts bytes.
    pub(super) async fn writable(&self) {
        loop {
            let writable = self.writable.notified();
            if !self.state().blocked {
                return;
            }
            writable.await;
        }
    }

    /// Waits until the request may start: of several concurrent requests of a connection, each
    /// yields to the other connections before the next.
    pub(super) async fn turn(&self) {
        let _turn = self.turn.acquire().await;
        tokio::task::yield_now().await;
    }

    /// Begins a request; `is_complete` if its head is the whole request.
    pub(super) fn begin(self: &Arc<Self>, http2: bool, is_complete: bool) -> InFlight {
        let lease = Lease::new(self.clone(), self.memory().reservation(), http2, is_complete);
        let mut state = self.state();
        state.head = None;
        state.had_request = true;
        state.http2 = http2;
        state.unproductive = 0;
        state.leases.push(lease.clone());
        InFlight::new(lease)
    }

    /// The lease of the newest request.
    pub(super) fn newest(&self) -> Option<Lease> {
        self.state().leases.last().cloned()
    }

    /// Stops counting the connection as anonymous.
    pub(super) fn leave(&self) {
        self.state().anonymous = None;
    }

    /// Ends leases that are due, and returns the time of the next sweep.
    ///
    /// # Errors
    ///
    /// The reason to close the connection now.
    pub(super) fn sweep(
        &self,
        limits: &ConnectionLimits,
        now: Instant,
    ) -> Result<Option<Instant>, &'static str> {
        let (leases, closes) = {
            let state = self.state();
            // A request in progress may finish. A request that had arrived unread before the
            // eviction has a short time to become one.
            let may_finish = |evicted| {
                let is_late = now.saturating_duration_since(evicted) >= MIN_QUIET;
                state.leases.iter().any(|lease| lease.is_working() || !is_late && !lease.is_responding())
            };
            if state.evicted.is_some_and(|evicted| !may_finish(evicted)) {
                return Err("evicted for another connection");
            }
            if state.is_wasteful() {
                return Err("most requests were cancelled, or had incomplete bodies");
            }
            (state.leases.clone(), state.due(limits))
        };
        if leases.is_empty() {
            return match closes {
                Some(due) if due <= now => Err("timeout before a request"),
                due => Ok(due),
            };
        }
        let mut next: Option<Instant> = None;
        let mut expired = None;
        for lease in &leases {
            match lease.check(limits.send_time, now) {
                LeaseState::Until(due) => next = [next, due].into_iter().flatten().min(),
                LeaseState::Expired(reason) => {
                    expired = Some(reason);
                    if !lease.expire() {
                        return Err("the client has not read a response whose stream cannot be reset");
                    }
                }
            }
        }
        if let Some(reason) = expired {
            let state = self.state();
            let is_stalled = now.saturating_duration_since(state.progress) >= limits.send_time;
            if !state.http2 || is_stalled && !state.leases.iter().any(Lease::is_working) {
                return Err(reason);
            }
        }
        Ok(next)
    }

    /// Ends all requests when the connection has ended.
    pub(super) fn close(&self) {
        let leases = std::mem::take(&mut self.state().leases);
        for lease in leases {
            lease.expire();
        }
    }

    /// Evicts the connection: asks it to close, because its seat was given to another.
    pub(super) fn evict(&self) {
        self.state().evicted = Some(Instant::now());
        self.closing.notify_one();
    }

    /// Waits for a reason to close the connection, which [`Activity::sweep`] returns.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Rank for eviction. `None` if the connection must stay: it was not read yet, it has a request
    /// in progress, or it is in use and was recently active.
    pub(super) fn rank(&self, now: Instant) -> Option<Rank> {
        let state = self.state();
        if !state.is_read || state.leases.iter().any(Lease::is_working) {
            return None;
        }
        let is_authenticated = state.anonymous.is_none();
        let crowd = state.anonymous.as_ref().map_or(0, CrowdMember::size);
        let since = state.idle.max(state.progress);
        let in_use = is_authenticated || state.leases.iter().any(Lease::is_responding);
        let is_quiet = now.saturating_duration_since(since) >= MIN_QUIET;
        (!in_use || is_quiet).then_some(Rank { is_authenticated, crowd, since })
    }

    pub(super) fn is_evicted(&self) -> bool {
        self.state().evicted.is_some()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state().leases.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection for Activity {
    fn authenticate(&self) {
        self.leave();
    }

    fn progress(&self, now: Instant) {
        let mut state = self.state();
        state.progress = now;
        state.unproductive = 0;
    }

    fn end(&self, lease: &Lease, answered: bool, expired: bool) {
        let mut state = self.state();
        let before = state.leases.len();
        state.leases.retain(|other| !other.is(lease));
        if state.leases.len() == before {
            return;
        }
        let count = if answered && !expired { &mut state.answered } else { &mut state.wasted };
        *count = count.saturating_add(1);
        if state.is_wasteful() {
            self.closing.notify_one();
        }
        // A response that the client did not read is no sign of life.
        state.idle = if expired { state.idle.max(state.progress) } else { Instant::now() };
    }
}

impl State {
    /// True if the server's work was wasted more often than not.
    fn is_wasteful(&self) -> bool {
        self.http2 && self.wasted > MAX_WASTED_REQUESTS.saturating_add(self.answered)
    }

    /// The time at which the connection exceeds its idle or head limit, unless the client sends
    /// more.
    fn due(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let head = self.head.filter(|_| !self.http2).map(|began| began + limits.header_time);
        match (self.leases.is_empty(), self.had_request) {
            (true, false) => Some(self.idle + limits.header_time),
            (true, true) => {
                let idle = self.idle + limits.idle_time;
                Some(head.map_or(idle, |head| head.min(idle)))
            }
            _ => None,
        }
    }
}
