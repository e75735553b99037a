//! The synchronisation primitives of the pool: those of the standard library.

pub(super) use std::hint::spin_loop;
pub(super) use std::sync::Mutex;
pub(super) use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
pub(super) use std::thread::{Builder, JoinHandle, park, yield_now};
use std::time::{Duration, Instant};

/// Looks at the state between two looks at the clock.
pub(super) const SPINS_PER_CHECK: usize = 64;

/// Time for which an idle worker spins before it parks: longer than the gap between two products of
/// a layer, and short compared with a scheduler's time slice.
const SPIN: Duration = Duration::from_micros(100);

/// The standard library's cell, with the interface of loom's.
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    pub(super) fn new(value: T) -> Self {
        UnsafeCell(std::cell::UnsafeCell::new(value))
    }

    pub(super) fn with<R>(&self, read: impl FnOnce(*const T) -> R) -> R {
        read(self.0.get())
    }

    pub(super) fn with_mut<R>(&self, write: impl FnOnce(*mut T) -> R) -> R {
        write(self.0.get())
    }
}

/// End of a worker's spinning.
pub(super) struct Spin(Instant);

impl Spin {
    pub(super) fn start() -> Spin {
        Spin(Instant::now() + SPIN)
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() > self.0
    }
}

/// Orders a store before the loads that follow. `Ordering::SeqCst` at the accesses themselves is
/// enough.
pub(super) fn store_load_fence() {}
