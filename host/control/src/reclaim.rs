//! Giving memory back to the system once a model has been unloaded: allocators keep what is freed
//! for what comes next.

/// Have the C library keep one heap for all threads. Only ONNX Runtime allocates there, whose
/// tensors have arenas of their own; with a heap for each thread, what a model leaves behind
/// depends on which thread it ran on. Called before there are threads.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Return what is free. It takes milliseconds, and belongs on a thread that nobody waits for.
pub fn reclaim() {
    // SAFETY: the function takes no pointer; it frees pages that no allocation of this program is
    // in.
    unsafe { libmimalloc_sys::mi_collect(true) };
    // ONNX Runtime allocates from the C library.
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::malloc_trim(0);
    }
}
