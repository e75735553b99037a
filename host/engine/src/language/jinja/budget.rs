//! What a rendering may take: steps, which bound its time, and bytes, which bound its memory.

use std::cell::Cell;

use super::error::Cause;

/// What a rendering may take at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Expressions, statements, and items that are looked at.
    pub(crate) steps: u64,
    /// Bytes that are allocated. None are args back, so that there are never more at once.
    pub(crate) bytes: u64,
    /// Bytes of what is written.
    pub(crate) output: usize,
}

/// Bytes of text that are read or written in the time of a step.
const BYTES_OF_STEP: usize = 64;

/// What is left.
pub(super) struct Budget {
    steps: Cell<u64>,
    bytes: Cell<u64>,
}

impl Budget {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Budget { steps: Cell::new(bounds.steps), bytes: Cell::new(bounds.bytes) }
    }

    /// Pay for `count` steps.
    pub(super) fn steps(&self, count: usize) -> Result<(), Cause> {
        take(&self.steps, count)
    }

    /// Pay for reading `bytes` of text.
    pub(super) fn reading(&self, bytes: usize) -> Result<(), Cause> {
        self.steps(1 + bytes / BYTES_OF_STEP)
    }

    /// Pay for `bytes` that are about to be allocated and written.
    pub(super) fn bytes(&self, bytes: usize) -> Result<(), Cause> {
        self.reading(bytes)?;
        take(&self.bytes, bytes)
    }

    /// Pay for a list of `count` values that is about to be allocated.
    pub(super) fn values(&self, count: usize) -> Result<(), Cause> {
        self.steps(count)?;
        take(&self.bytes, count.saturating_mul(VALUE_BYTES))
    }
}

/// A value in a list, which may have grown to twice what it holds; and what a list takes by itself
/// counts as one more.
const VALUE_BYTES: usize = 64;

fn take(left: &Cell<u64>, count: usize) -> Result<(), Cause> {
    match left.get().checked_sub(count as u64) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        // It stays spent, whatever the template makes of the error.
        None => {
            left.set(0);
            Err(Cause::Unbounded(None))
        }
    }
}
