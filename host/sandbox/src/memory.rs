//! The memory that requests hold together, counted in one place: bodies, guests' memory, tensors.
//!
//! Nobody waits for memory that another holds, or two requests could wait for each other: what is not there is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Linear memory of an instance that is not counted here but with the pool, in bytes: what guests of this repository start
/// with. The pool keeps some of it resident between requests, so it is as large with and without a request.
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
pub struct Held {
    of: RequestMemory,
    bytes: usize,
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

    /// From now on at most `most` bytes. What is held beyond that stays, and nothing is added to it.
    pub fn bound(&self, most: Option<usize>) {
        self.0.most.store(most.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// An empty share.
    #[must_use]
    pub fn share(&self) -> Held {
        Held { of: self.clone(), bytes: 0 }
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

impl Held {
    /// Hold `bytes` more.
    ///
    /// # Errors
    ///
    /// When they are not there; the share is then as it was.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
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

    /// Give back `bytes`, or all where fewer are held.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.of.0.held.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink(self.bytes);
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
    fn without_a_bound_nothing_is_refused() {
        let memory = RequestMemory::new(None);
        let mut share = memory.share();
        assert_eq!(share.grow(1 << 40), Ok(()));
        assert_eq!((memory.held(), memory.most()), (1 << 40, None));
    }
}
