//! The state of one connection: its requests, its progress, and the time by which it must move on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use infer_config::ConnectionLimits;
use infer_sandbox::RequestMemory;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Duration, Instant};

use super::lease::{Connection, Lease, Standing, UnderWay};

/// Requests that an HTTP/2 client may cancel, or leave without their body, beyond those that it
/// lets the server answer. A client that resets streams as fast as it opens them is past it at
/// once.
const WASTED: u32 = 64;

/// Bytes that an HTTP/2 client may send between two signs of progress: pings, settings and window
/// updates cost the server time and bring it nothing.
const UNPRODUCTIVE: usize = 1 << 20;

/// How long a connection must have been quiet before a newcomer may have its seat, where it is in
/// use: by a key's bearer, or by an answer on its way.
const QUIET: Duration = Duration::from_secs(1);

/// The state of one connection.
pub(super) struct Activity {
    /// Held for a few instructions, on the front's one thread and, when a handler streams its
    /// answer, on the thread that it runs on. A lease's own lock may be taken inside, never the
    /// other way around.
    state: Mutex<State>,
    /// Counts the answers that the client has not taken.
    memory: RequestMemory,
    /// Wakes the connection when there is a reason to close it.
    closing: Notify,
    /// Wakes a request that waits for earlier answers to leave.
    writable: Notify,
    /// Whose turn it is to begin.
    turn: Semaphore,
}

struct State {
    leases: Vec<Lease>,
    /// When the last request ended.
    idle: Instant,
    /// When the client last took, or sent, a noticeable part of a body.
    progress: Instant,
    /// When the first byte of the next head came.
    head: Option<Instant>,
    /// Whether a whole head has come yet.
    asked: bool,
    /// Between two requests an HTTP/2 client sends more than heads: window updates, settings,
    /// pings.
    http2: bool,
    /// Whether all that the client has sent was read: until then its silence is the server's own
    /// slowness.
    is_heard: bool,
    /// None once a request has carried a valid API key.
    anonymous: Option<OfCrowd>,
    answered: u32,
    wasted: u32,
    unproductive: usize,
    /// Whether the socket takes no more bytes for now.
    blocked: bool,
    /// When the connection's seat went to another.
    evicted: Option<Instant>,
}

/// What a connection is worth to whoever gives out places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worth {
    /// Whether a request came with a valid API key.
    pub(super) is_authenticated: bool,
    /// The anonymous connections of its address, where it is one.
    pub(super) crowd: usize,
    /// Since when it has been quiet.
    pub(super) since: Instant,
}

/// The connections of one address without a valid API key.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd(Arc<AtomicUsize>);

/// One of them.
#[derive(Debug)]
struct OfCrowd(Crowd);

impl Crowd {
    fn join(&self) -> OfCrowd {
        self.0.fetch_add(1, Ordering::Relaxed);
        OfCrowd(self.clone())
    }
}

impl OfCrowd {
    fn size(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }
}

impl Drop for OfCrowd {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Activity {
    /// Of a connection that joins the anonymous ones of its address.
    pub(super) fn new(memory: RequestMemory, crowd: &Crowd) -> Self {
        let now = Instant::now();
        let state = State {
            leases: Vec::new(),
            idle: now,
            progress: now,
            head: None,
            asked: false,
            http2: false,
            is_heard: false,
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

    /// Notes that all that came so far was read.
    pub(super) fn heard(&self) {
        self.state().is_heard = true;
    }

    /// Counts `bytes` that came.
    ///
    /// # Errors
    ///
    /// When a client sends control frames without end, before its first request or between others.
    pub(super) fn read(&self, bytes: usize) -> Result<(), &'static str> {
        let mut state = self.state();
        if state.leases.is_empty() {
            state.head.get_or_insert_with(Instant::now);
        }
        state.unproductive = state.unproductive.saturating_add(bytes);
        if (state.http2 || !state.asked) && state.unproductive > UNPRODUCTIVE {
            return Err("the client sends control frames without end");
        }
        Ok(())
    }

    /// Notes whether the socket takes more bytes.
    pub(super) fn set_blocked(&self, blocked: bool) {
        let mut state = self.state();
        if state.blocked != blocked {
            state.blocked = blocked;
            drop(state);
            self.writable.notify_waiters();
        }
    }

    /// Waits until the socket takes bytes.
    pub(super) async fn writable(&self) {
        loop {
            let writable = self.writable.notified();
            if !self.state().blocked {
                return;
            }
            writable.await;
        }
    }

    /// Waits until it is a request's turn: of those that a connection brings at once, each lets the
    /// other connections go on before the next.
    pub(super) async fn turn(&self) {
        let _turn = self.turn.acquire().await;
        tokio::task::yield_now().await;
    }

    /// Begins a request; `has_come` where its head is all there is of it.
    pub(super) fn begin(self: &Arc<Self>, http2: bool, has_come: bool) -> UnderWay {
        let lease = Lease::new(self.clone(), self.memory().share(), http2, has_come);
        let mut state = self.state();
        state.head = None;
        state.asked = true;
        state.http2 = http2;
        state.unproductive = 0;
        state.leases.push(lease.clone());
        UnderWay::new(lease)
    }

    /// The lease of the request that began last.
    pub(super) fn newest(&self) -> Option<Lease> {
        self.state().leases.last().cloned()
    }

    /// Counts no more among the anonymous connections of its address.
    pub(super) fn leave(&self) {
        self.state().anonymous = None;
    }

    /// Ends leases that are due. The time of the next look.
    ///
    /// # Errors
    ///
    /// Why the connection is to be closed now.
    pub(super) fn sweep(
        &self,
        limits: &ConnectionLimits,
        now: Instant,
    ) -> Result<Option<Instant>, &'static str> {
        let (leases, closes) = {
            let state = self.state();
            // A request that had come by then, unread, is answered where all of it is there soon.
            let may_finish = |evicted| {
                let is_late = now.saturating_duration_since(evicted) >= QUIET;
                state.leases.iter().any(|lease| lease.is_working() || !is_late && !lease.is_answering())
            };
            if state.evicted.is_some_and(|evicted| !may_finish(evicted)) {
                return Err("its place went to another");
            }
            if state.is_wasteful() {
                return Err("most requests were cancelled, or came without their bodies");
            }
            (state.leases.clone(), state.due(limits))
        };
        if leases.is_empty() {
            return match closes {
                Some(due) if due <= now => Err("no request in time"),
                due => Ok(due),
            };
        }
        let mut next: Option<Instant> = None;
        let mut expired = None;
        for lease in &leases {
            match lease.check(limits.send_time, now) {
                Standing::Until(due) => next = [next, due].into_iter().flatten().min(),
                Standing::Expired(why) => {
                    expired = Some(why);
                    if !lease.expire() {
                        return Err("an answer was not taken, and nothing else can end it");
                    }
                }
            }
        }
        if let Some(why) = expired {
            let state = self.state();
            let stands = now.saturating_duration_since(state.progress) >= limits.send_time;
            if !state.http2 || stands && !state.leases.iter().any(Lease::is_working) {
                return Err(why);
            }
        }
        Ok(next)
    }

    /// Ends all requests, for the connection has.
    pub(super) fn close(&self) {
        let leases = std::mem::take(&mut self.state().leases);
        for lease in leases {
            lease.expire();
        }
    }

    /// Asks the connection to close, for its seat has gone to another.
    pub(super) fn evict(&self) {
        self.state().evicted = Some(Instant::now());
        self.closing.notify_one();
    }

    /// Waits until there is a reason to close the connection, which [`Activity::sweep`] tells.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// What the connection is worth. None where it may not be closed for another: it was not heard
    /// yet, a request of it is being worked on, or it is in use and was active a moment ago.
    pub(super) fn worth(&self, now: Instant) -> Option<Worth> {
        let state = self.state();
        if !state.is_heard || state.leases.iter().any(Lease::is_working) {
            return None;
        }
        let is_authenticated = state.anonymous.is_none();
        let crowd = state.anonymous.as_ref().map_or(0, OfCrowd::size);
        let since = state.idle.max(state.progress);
        let in_use = is_authenticated || state.leases.iter().any(Lease::is_answering);
        let is_quiet = now.saturating_duration_since(since) >= QUIET;
        (!in_use || is_quiet).then_some(Worth { is_authenticated, crowd, since })
    }

    /// Whether its seat has gone to another.
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
        // An answer that the client did not take is no sign of life.
        state.idle = if expired { state.idle.max(state.progress) } else { Instant::now() };
    }
}

impl State {
    /// Whether the server has worked for nothing more often than not.
    fn is_wasteful(&self) -> bool {
        self.http2 && self.wasted > WASTED.saturating_add(self.answered)
    }

    /// When the client will have left the connection unused for too long, as things stand.
    fn due(&self, limits: &ConnectionLimits) -> Option<Instant> {
        let head = self.head.filter(|_| !self.http2).map(|began| began + limits.header_time);
        match (self.leases.is_empty(), self.asked) {
            (true, false) => Some(self.idle + limits.header_time),
            (true, true) => {
                let idle = self.idle + limits.idle_time;
                Some(head.map_or(idle, |head| head.min(idle)))
            }
            _ => None,
        }
    }
}
