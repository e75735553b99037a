//! The memory that requests hold together, counted in one place: bodies, guests' memory, tensors.
//!
//! Nobody waits for memory that another holds, or two requests could wait for each other: what is
//! not there is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Linear memory of an instance that is not counted here but with the pool, in bytes: what guests
/// of this repository start with. The pool keeps some of it resident between requests, so it is as
/// large with and without a request.
pub const INSTANCE_BYTES: usize = 4 << 20;

/// A count of the bytes that requests hold, and a bound on them. Clones are the same count.
#[derive(Clone, Debug)]
pub struct RequestMemory(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    most: AtomicUsize,
    held: AtomicUsize,
    peak: AtomicUsize,
}

/// A request's share, given back on drop.
#[derive(Debug)]
pub struct Reservation {
    of: RequestMemory,
    /// What it takes of the count: what is used, or what was reserved where that is more.
    bytes: usize,
    reserved: usize,
    used: usize,
    peak: usize,
}

/// So many bytes are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Default for RequestMemory {
    fn default() -> Self {
        RequestMemory::new(None)
    }
}

impl RequestMemory {
    /// At most `most` bytes; without a bound where there is none.
    #[must_use]
    pub fn new(most: Option<usize>) -> Self {
        let (held, peak) = Default::default();
        RequestMemory(Arc::new(Counts { most: AtomicUsize::new(most.unwrap_or(usize::MAX)), held, peak }))
    }

    /// From now on at most `most` bytes. What is held beyond that stays, and nothing is added to
    /// it.
    pub fn bound(&self, most: Option<usize>) {
        self.0.most.store(most.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// An empty share.
    #[must_use]
    pub fn share(&self) -> Reservation {
        Reservation { of: self.clone(), bytes: 0, reserved: 0, used: 0, peak: 0 }
    }

    /// The bound; none where there is none.
    #[must_use]
    pub fn most(&self) -> Option<usize> {
        Some(self.0.most.load(Ordering::Relaxed)).filter(|&most| most != usize::MAX)
    }

    /// Bytes that are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// The most that were held at any one time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Take `bytes` of the count before they are used.
    ///
    /// # Errors
    ///
    /// When they are not there; the share is then as it was.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.take(bytes.saturating_sub(self.bytes))?;
        self.reserved = self.reserved.max(bytes);
        Ok(())
    }

    /// Use `bytes` more.
    ///
    /// # Errors
    ///
    /// When they are neither reserved nor there; the share is then as it was.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let used = self.used.checked_add(bytes).ok_or(Exhausted)?;
        self.peak = self.peak.max(used);
        self.take(used.saturating_sub(self.bytes))?;
        self.used = used;
        Ok(())
    }

    /// The most that was used or refused at any one time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak
    }

    fn take(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes == 0 {
            return Ok(());
        }
        let counts = &self.of.0;
        let most = counts.most.load(Ordering::Relaxed);
        let more = |held: usize| held.checked_add(bytes).filter(|&sum| sum <= most);
        let before =
            counts.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Exhausted)?;
        counts.peak.fetch_max(before + bytes, Ordering::Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// What all shares together may hold, in bytes.
    #[must_use]
    pub fn most(&self) -> usize {
        self.of.0.most.load(Ordering::Relaxed)
    }

    /// Use `bytes` less, or nothing where fewer are used. What was reserved stays.
    pub fn shrink(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        self.give_back(self.used.max(self.reserved));
    }

    fn give_back(&mut self, all_but: usize) {
        let bytes = self.bytes.saturating_sub(all_but);
        if bytes > 0 {
            self.of.0.held.fetch_sub(bytes, Ordering::Relaxed);
            self.bytes -= bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.give_back(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_together_and_are_given_back() {
        let memory = RequestMemory::new(Some(100));
        let (mut one, mut other) = (memory.share(), memory.share());
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(other.grow(41), Err(Exhausted));
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!(one.grow(usize::MAX), Err(Exhausted), "no overflow");
        assert_eq!(other.peak(), 41, "what was refused is known");
        one.shrink(10);
        assert_eq!((memory.held(), memory.peak()), (90, 100));
        one.shrink(1_000);
        drop(other);
        assert_eq!((memory.held(), memory.peak(), memory.most()), (0, 100, Some(100)));
        let mut share = memory.share();
        assert_eq!(share.grow(50), Ok(()));
        memory.bound(Some(40));
        assert_eq!(share.grow(1), Err(Exhausted), "what is held stays, and nothing is added");
        memory.bound(None);
        assert_eq!(share.grow(1), Ok(()));
    }

    #[test]
    fn what_is_reserved_is_there_when_it_is_used() {
        let memory = RequestMemory::new(Some(100));
        let (mut one, mut other) = (memory.share(), memory.share());
        assert_eq!(one.reserve(60), Ok(()));
        assert_eq!(other.reserve(41), Err(Exhausted));
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!((one.grow(60), memory.held()), (Ok(()), 100));
        assert_eq!(one.grow(1), Err(Exhausted));
        other.shrink(40);
        assert_eq!((one.grow(1), one.peak(), memory.held()), (Ok(()), 61, 61));
        one.shrink(50);
        assert_eq!(memory.held(), 60, "what was reserved stays");
        drop(one);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn without_a_bound_nothing_is_refused() {
        let memory = RequestMemory::new(None);
        let mut share = memory.share();
        assert_eq!(share.grow(1 << 40), Ok(()));
        assert_eq!((memory.held(), memory.most()), (1 << 40, None));
    }
}
