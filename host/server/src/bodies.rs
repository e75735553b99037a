//! Memory budget for request bodies, and eviction when it is exhausted.
//!
//! A body is charged as it arrives: a declared length alone costs nothing. An incomplete body keeps
//! its memory only while it makes progress. When another body needs memory and the budget is
//! exhausted, the stalled body with the largest product of length and stall time is evicted. A
//! client that sends several bodies concurrently leaves a part of the budget to others.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use axum::body::Bytes;
use bytes::BytesMut;
use infer_config::keys::KeyHash;
use infer_sandbox::{RequestMemory, Reservation};
use tokio::sync::Notify;

use crate::admission::Full;
use crate::limits::{MIN_BODY_STALL, MIN_PROGRESS_BYTES};

/// Copies of a body that a request holds: the bytes received, and the decoded form, such as an
/// image in base64.
const COPIES: usize = 2;

/// Divisor: a body must also gain 1/64 of the memory that it holds to make progress, so that more
/// memory requires more throughput.
const PROGRESS_SHARE: usize = 64;

/// Divisor: 1/8 of the memory that other senders leave is not available for a second concurrent
/// body of the same sender. Small bodies of other senders fit there.
const RESERVED_SHARE: usize = 8;

/// Memory budget for bodies, shared by all requests.
#[derive(Clone)]
pub struct BodyMemory {
    max_bytes: usize,
    /// Locked for a few instructions at a time, by the connection thread and at the end of a
    /// request.
    used: Arc<Mutex<Used>>,
    /// Budget of all request memory, bodies included.
    requests: RequestMemory,
    /// Incomplete bodies. Locked in the same way as `used`.
    arriving: Arc<Mutex<Vec<Arc<Body>>>>,
}

/// The sender that a body is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The owner of an API key.
    Key(KeyHash),
    /// A client without a key, by its address; `None` on the Unix socket.
    Address(Option<IpAddr>),
}

/// Bytes in use, in total and by sender.
#[derive(Default)]
struct Used {
    bytes: usize,
    by_sender: HashMap<Sender, usize>,
}

/// Memory charged for a body, released on drop.
pub struct Share {
    memory: BodyMemory,
    sender: Sender,
    bytes: usize,
    reservation: Reservation,
}

/// A body that is still arriving.
pub struct Arriving {
    memory: BodyMemory,
    body: Arc<Body>,
    is_listed: bool,
}

struct Body {
    state: Mutex<State>,
    eviction: Notify,
}

struct State {
    first: Bytes,
    whole: BytesMut,
    length: usize,
    /// `None` once the body is evicted or complete.
    share: Option<Share>,
    /// Time of the last sufficient progress, and the bytes received since.
    progressed_at: Instant,
    since: usize,
}

impl BodyMemory {
    /// Creates a budget of `bytes`, which also count against `requests`.
    #[must_use]
    pub fn new(bytes: usize, requests: RequestMemory) -> Self {
        BodyMemory { max_bytes: bytes, used: Arc::default(), requests, arriving: Arc::default() }
    }

    /// Registers a body of `sender`, of which nothing has arrived yet.
    #[must_use]
    pub fn arriving(&self, sender: Sender) -> Arriving {
        let state = State {
            first: Bytes::new(),
            whole: BytesMut::new(),
            length: 0,
            share: Some(self.share(sender)),
            progressed_at: Instant::now(),
            since: 0,
        };
        let body = Arc::new(Body { state: Mutex::new(state), eviction: Notify::new() });
        Arriving { memory: self.clone(), body, is_listed: false }
    }

    fn share(&self, sender: Sender) -> Share {
        Share { memory: self.clone(), sender, bytes: 0, reservation: self.requests.reservation() }
    }

    /// Evicts the stalled body with the largest product of length and stall time. False if there is
    /// none.
    fn evict_one(&self, exempt: &Arc<Body>, now: Instant) -> bool {
        let stall = |body: &Arc<Body>| {
            let state = body.state();
            let time = now.saturating_duration_since(state.progressed_at);
            let is_stalled = state.share.is_some() && state.length > 0 && time >= MIN_BODY_STALL;
            is_stalled.then(|| time.as_millis().saturating_mul(state.length as u128))
        };
        let victim = {
            let arriving = self.listed();
            let others = arriving.iter().filter(|body| !Arc::ptr_eq(body, exempt));
            let ranked = others.filter_map(|body| Some((stall(body)?, body)));
            ranked.max_by_key(|(rank, _)| *rank).map(|(_, body)| body.clone())
        };
        victim.is_some_and(|body| {
            let mut state = body.state();
            let share = state.share.take();
            (state.first, state.whole) = Default::default();
            drop(state);
            drop(share);
            body.eviction.notify_one();
            true
        })
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listed(&self) -> MutexGuard<'_, Vec<Arc<Body>>> {
        self.arriving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Charges `bytes` more. Never waits for memory that another incomplete body holds, or two
    /// bodies could deadlock.
    fn take(&mut self, bytes: usize) -> Result<(), Full> {
        let mut used = self.memory.used();
        let used_by_sender = used.by_sender.get(&self.sender).copied().unwrap_or(0);
        let room = self.memory.max_bytes - (used.bytes - used_by_sender);
        let max = if used_by_sender == self.bytes { room } else { room - room / RESERVED_SHARE };
        if used_by_sender.saturating_add(bytes) > max {
            return Err(Full);
        }
        self.reservation.grow(bytes.saturating_mul(COPIES)).map_err(|_| Full)?;
        used.bytes += bytes;
        used.by_sender.insert(self.sender, used_by_sender + bytes);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.memory.used();
        used.bytes -= self.bytes;
        if let Some(bytes) = used.by_sender.get_mut(&self.sender) {
            *bytes -= self.bytes;
            if *bytes == 0 {
                used.by_sender.remove(&self.sender);
            }
        }
    }
}

impl Arriving {
    /// Adds received bytes.
    ///
    /// # Errors
    ///
    /// If the budget is exhausted, or the body was evicted.
    pub fn add(&mut self, data: Bytes) -> Result<(), Full> {
        let now = Instant::now();
        loop {
            let taken = self.body.state().share.as_mut().ok_or(Full)?.take(data.len());
            if taken.is_ok() {
                break;
            }
            if !self.memory.evict_one(&self.body, now) {
                return Err(Full);
            }
        }
        let mut state = self.body.state();
        state.length += data.len();
        state.since += data.len();
        if state.since >= MIN_PROGRESS_BYTES.max(state.length / PROGRESS_SHARE) {
            (state.progressed_at, state.since) = (now, 0);
        }
        // Most bodies arrive in one piece, which is not copied.
        if state.first.is_empty() && state.whole.is_empty() {
            state.first = data;
            return Ok(());
        }
        if state.whole.is_empty() {
            let first = std::mem::take(&mut state.first);
            state.whole.extend_from_slice(&first);
        }
        state.whole.extend_from_slice(&data);
        Ok(())
    }

    /// Makes the body a candidate for eviction. A body that arrives in one piece need not be one.
    pub fn list(&mut self) {
        if !self.is_listed {
            self.is_listed = true;
            self.memory.listed().push(self.body.clone());
        }
    }

    /// Time of the last sufficient progress.
    #[must_use]
    pub fn progressed_at(&self) -> Instant {
        self.body.state().progressed_at
    }

    /// Bytes received.
    #[must_use]
    pub fn length(&self) -> usize {
        self.body.state().length
    }

    /// Waits until the body is evicted.
    pub async fn evicted(&self) {
        self.body.eviction.notified().await;
    }

    /// Returns the whole body and its memory charge.
    ///
    /// # Errors
    ///
    /// If the body was evicted.
    pub fn whole(self) -> Result<(Bytes, Share), Full> {
        let mut state = self.body.state();
        let share = state.share.take().ok_or(Full)?;
        let whole = std::mem::take(&mut state.whole);
        let bytes = if whole.is_empty() { std::mem::take(&mut state.first) } else { whole.freeze() };
        drop(state);
        Ok((bytes, share))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.is_listed {
            self.memory.listed().retain(|body| !Arc::ptr_eq(body, &self.body));
        }
    }
}

impl Body {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize) -> Bytes {
        vec![b'x'; length].into()
    }

    fn sender(last: u8) -> Sender {
        Sender::Address(Some([10, 0, 0, last].into()))
    }

    #[test]
    fn bodies_share_and_release_memory() {
        let requests = RequestMemory::new(Some(2 * COPIES * 100));
        let memory = BodyMemory::new(100, requests.clone());
        let (mut one, mut other) = (memory.arriving(sender(1)), memory.arriving(sender(2)));
        assert_eq!(one.add(bytes(60)), Ok(()));
        assert_eq!(other.add(bytes(40)), Ok(()));
        assert_eq!(one.add(bytes(1)), Err(Full));
        drop(other);
        assert_eq!(one.add(bytes(40)), Ok(()));
        assert_eq!(requests.used_bytes(), COPIES * 100);
        let (whole, share) = one.whole().unwrap();
        assert_eq!((whole.len(), requests.used_bytes()), (100, COPIES * 100));
        drop(share);
        assert_eq!(requests.used_bytes(), 0);
        assert!(memory.used().by_sender.is_empty());
        let memory = BodyMemory::new(1_000, requests);
        assert_eq!(memory.arriving(sender(1)).add(bytes(201)), Err(Full), "the request memory is exhausted");
    }

    #[test]
    fn sender_of_many_bodies_leaves_a_reserve() {
        let memory = BodyMemory::new(800, RequestMemory::new(None));
        let [mut first, mut second] = [sender(1); 2].map(|sender| memory.arriving(sender));
        assert_eq!(first.add(bytes(400)), Ok(()));
        assert_eq!(second.add(bytes(301)), Err(Full), "an eighth is reserved for others");
        assert_eq!(second.add(bytes(300)), Ok(()));
        let [mut other, mut small] = [sender(2); 2].map(|sender| memory.arriving(sender));
        assert_eq!(other.add(bytes(50)), Ok(()));
        assert_eq!(small.add(bytes(39)), Err(Full));
        assert_eq!(small.add(bytes(38)), Ok(()));
        assert_eq!(
            memory.arriving(sender(3)).add(bytes(12)),
            Ok(()),
            "a sender's only body may use the whole rest"
        );
    }

    #[test]
    fn stalled_body_is_evicted_for_another() {
        let requests = RequestMemory::new(None);
        let memory = BodyMemory::new(100, requests.clone());
        let mut stalled = memory.arriving(sender(1));
        stalled.list();
        assert_eq!(stalled.add(bytes(90)), Ok(()));
        let mut newcomer = memory.arriving(sender(2));
        assert_eq!(newcomer.add(bytes(50)), Err(Full), "it has not stalled yet");
        stalled.body.state().progressed_at = Instant::now().checked_sub(MIN_BODY_STALL).unwrap();
        assert_eq!(newcomer.add(bytes(50)), Ok(()));
        assert_eq!(requests.used_bytes(), COPIES * 50);
        assert_eq!(stalled.add(bytes(1)), Err(Full));
        assert!(stalled.whole().is_err());
        assert!(memory.listed().is_empty());
        assert_eq!(newcomer.whole().unwrap().0.len(), 50);
    }
}
