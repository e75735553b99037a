//! Accounting of the memory that all requests hold together: bodies, guests' memory, tensors.
//!
//! A request never waits for memory, since two requests could then wait for each other: without
//! room it is rejected.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Linear memory of an instance that counts with the pool instead of here, in bytes: the initial
/// memory of this repository's guests. The pool keeps part of it resident between requests, so it
/// takes the same memory with and without a request.
pub const INSTANCE_BYTES: usize = 4 << 20;

/// A count of the bytes that requests hold, and a limit on them. Clones share the count.
#[derive(Clone, Debug)]
pub struct RequestMemory(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    max: AtomicUsize,
    used: AtomicUsize,
    peak: AtomicUsize,
}

/// A request's share of the memory, released on drop.
#[derive(Debug)]
pub struct Reservation {
    memory: RequestMemory,
    /// Bytes that this share takes of the count: the larger of `used` and `reserved`.
    bytes: usize,
    reserved: usize,
    used: usize,
    peak: usize,
}

/// The request memory has less room than requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl Default for RequestMemory {
    fn default() -> Self {
        RequestMemory::new(None)
    }
}

impl RequestMemory {
    /// A count with a limit of `max` bytes, or without a limit.
    #[must_use]
    pub fn new(max: Option<usize>) -> Self {
        let (used, peak) = Default::default();
        RequestMemory(Arc::new(Counts { max: AtomicUsize::new(max.unwrap_or(usize::MAX)), used, peak }))
    }

    /// Changes the limit to `max` bytes. Memory held beyond it stays, but cannot grow.
    pub fn set_max_bytes(&self, max: Option<usize>) {
        self.0.max.store(max.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// An empty share.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        Reservation { memory: self.clone(), bytes: 0, reserved: 0, used: 0, peak: 0 }
    }

    /// The limit in bytes, if there is one.
    #[must_use]
    pub fn max_bytes(&self) -> Option<usize> {
        Some(self.0.max.load(Ordering::Relaxed)).filter(|&max| max != usize::MAX)
    }

    /// Bytes held now.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.0.used.load(Ordering::Relaxed)
    }

    /// Peak of the bytes held.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }
}

impl Reservation {
    /// Reserves `bytes` in all before they are used.
    ///
    /// # Errors
    ///
    /// When there is no room for them. The share then stays unchanged.
    pub fn reserve(&mut self, bytes: usize) -> Result<(), Exhausted> {
        self.take(bytes.saturating_sub(self.bytes))?;
        self.reserved = self.reserved.max(bytes);
        Ok(())
    }

    /// Uses `bytes` more.
    ///
    /// # Errors
    ///
    /// When they exceed the reservation and there is no room. The share then stays unchanged.
    pub fn grow(&mut self, bytes: usize) -> Result<(), Exhausted> {
        let used = self.used.checked_add(bytes).ok_or(Exhausted)?;
        self.peak = self.peak.max(used);
        self.take(used.saturating_sub(self.bytes))?;
        self.used = used;
        Ok(())
    }

    /// Peak of the bytes used or refused.
    #[must_use]
    pub fn peak_bytes(&self) -> usize {
        self.peak
    }

    fn take(&mut self, bytes: usize) -> Result<(), Exhausted> {
        if bytes == 0 {
            return Ok(());
        }
        let counts = &self.memory.0;
        let max = counts.max.load(Ordering::Relaxed);
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= max);
        let before =
            counts.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| Exhausted)?;
        counts.peak.fetch_max(before + bytes, Ordering::Relaxed);
        self.bytes += bytes;
        Ok(())
    }

    /// Limit on all shares together, in bytes.
    #[must_use]
    pub fn max_bytes(&self) -> usize {
        self.memory.0.max.load(Ordering::Relaxed)
    }

    /// Uses `bytes` less, down to zero. The reservation stays.
    pub fn shrink(&mut self, bytes: usize) {
        self.used = self.used.saturating_sub(bytes);
        self.release_down_to(self.used.max(self.reserved));
    }

    fn release_down_to(&mut self, keep: usize) {
        let bytes = self.bytes.saturating_sub(keep);
        if bytes > 0 {
            self.memory.0.used.fetch_sub(bytes, Ordering::Relaxed);
            self.bytes -= bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.release_down_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_count_together_and_are_released() {
        let memory = RequestMemory::new(Some(100));
        let (mut one, mut other) = (memory.reservation(), memory.reservation());
        assert_eq!(one.grow(60), Ok(()));
        assert_eq!(other.grow(41), Err(Exhausted));
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!(one.grow(usize::MAX), Err(Exhausted), "no overflow");
        assert_eq!(other.peak_bytes(), 41, "a refusal counts in the peak");
        one.shrink(10);
        assert_eq!((memory.used_bytes(), memory.peak_bytes()), (90, 100));
        one.shrink(1_000);
        drop(other);
        assert_eq!((memory.used_bytes(), memory.peak_bytes(), memory.max_bytes()), (0, 100, Some(100)));
        let mut share = memory.reservation();
        assert_eq!(share.grow(50), Ok(()));
        memory.set_max_bytes(Some(40));
        assert_eq!(share.grow(1), Err(Exhausted), "held memory stays, but cannot grow");
        memory.set_max_bytes(None);
        assert_eq!(share.grow(1), Ok(()));
    }

    #[test]
    fn reserved_memory_is_available_later() {
        let memory = RequestMemory::new(Some(100));
        let (mut one, mut other) = (memory.reservation(), memory.reservation());
        assert_eq!(one.reserve(60), Ok(()));
        assert_eq!(other.reserve(41), Err(Exhausted));
        assert_eq!(other.grow(40), Ok(()));
        assert_eq!((one.grow(60), memory.used_bytes()), (Ok(()), 100));
        assert_eq!(one.grow(1), Err(Exhausted));
        other.shrink(40);
        assert_eq!((one.grow(1), one.peak_bytes(), memory.used_bytes()), (Ok(()), 61, 61));
        one.shrink(50);
        assert_eq!(memory.used_bytes(), 60, "the reservation stays");
        drop(one);
        assert_eq!(memory.used_bytes(), 0);
    }

    #[test]
    fn unlimited_memory_rejects_nothing() {
        let memory = RequestMemory::new(None);
        let mut share = memory.reservation();
        assert_eq!(share.grow(1 << 40), Ok(()));
        assert_eq!((memory.used_bytes(), memory.max_bytes()), (1 << 40, None));
    }
}
