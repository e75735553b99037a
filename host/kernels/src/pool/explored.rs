//! The synchronisation primitives of loom in place of the standard library's. loom runs a test in
//! every order of their operations (`make loom`).

pub(super) use loom::cell::UnsafeCell;
pub(super) use loom::sync::Mutex;
pub(super) use loom::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
pub(super) use loom::thread::{Builder, JoinHandle, park, yield_now};

pub(super) const SPINS_PER_CHECK: usize = 1;

/// Lets another thread run; without this, loom explores a spinning thread forever.
pub(super) fn spin_loop() {
    yield_now();
}

/// No time: each worker parks at once, since spinning only adds orders that are explored anyway.
pub(super) struct Spin;

impl Spin {
    pub(super) fn start() -> Spin {
        Spin
    }

    pub(super) fn is_over(&self) -> bool {
        true
    }
}

/// loom treats `Ordering::SeqCst` at an access as acquire and release, but knows this fence.
pub(super) fn store_load_fence() {
    fence(Ordering::SeqCst);
}
