//! Giving memory back to the system once a model has been unloaded: allocators keep what is freed for what comes next.

/// Return what is free. It takes milliseconds, and belongs on a thread that nobody waits for.
pub fn reclaim() {
    // SAFETY: the function takes no pointer; it frees pages that no allocation of this program is in.
    unsafe { libmimalloc_sys::mi_collect(true) };
    // ONNX Runtime allocates from the C library.
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::malloc_trim(0);
    }
}
