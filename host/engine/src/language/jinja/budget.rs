//! The budget of a rendering: steps, which bound its time, and bytes, which bound its memory.

use std::cell::Cell;

use super::error::Cause;

/// Limits of a rendering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Expressions, statements and visited items.
    pub(crate) steps: u64,
    /// Allocated bytes. Freed bytes are not given back, so this also bounds the peak.
    pub(crate) bytes: u64,
    /// Bytes of the output.
    pub(crate) output: usize,
}

/// Bytes of text that are read or written in the time of one step.
const BYTES_OF_STEP: usize = 64;

/// The remaining budget.
pub(super) struct Budget {
    steps: Cell<u64>,
    bytes: Cell<u64>,
}

impl Budget {
    pub(super) fn new(bounds: &Bounds) -> Self {
        Budget { steps: Cell::new(bounds.steps), bytes: Cell::new(bounds.bytes) }
    }

    /// Charges `count` steps.
    pub(super) fn steps(&self, count: usize) -> Result<(), Cause> {
        take(&self.steps, count)
    }

    /// Charges for reading `bytes` of text.
    pub(super) fn reading(&self, bytes: usize) -> Result<(), Cause> {
        self.steps(1 + bytes / BYTES_OF_STEP)
    }

    /// Charges for `bytes` that are about to be allocated and written.
    pub(super) fn bytes(&self, bytes: usize) -> Result<(), Cause> {
        self.reading(bytes)?;
        take(&self.bytes, bytes)
    }

    /// Charges for a list of `count` values that is about to be allocated.
    pub(super) fn values(&self, count: usize) -> Result<(), Cause> {
        self.steps(count)?;
        take(&self.bytes, count.saturating_mul(VALUE_BYTES))
    }
}

/// Bytes of a value in a list, whose capacity may be twice its length. The list itself counts as
/// one more value.
const VALUE_BYTES: usize = 64;

fn take(left: &Cell<u64>, count: usize) -> Result<(), Cause> {
    match left.get().checked_sub(count as u64) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        // The budget stays exhausted, even if the template ignores the error.
        None => {
            left.set(0);
            Err(Cause::Unbounded(None))
        }
    }
}
