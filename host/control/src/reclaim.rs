//! Returns memory to the system once a model has been unloaded; allocators keep freed pages for
//! reuse.

/// Limits the C library to one heap for all threads. Only ONNX Runtime allocates there, and its
/// tensors have their own arenas. With a heap per thread, the memory that remains after a model
/// would depend on the threads it ran on. Must be called before other threads start.
pub fn use_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes no pointer; no other thread allocates yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns free pages to the system. Takes milliseconds: call it on a thread that serves no
/// requests.
pub fn reclaim() {
    // SAFETY: the function takes no pointer; it frees only pages without live allocations.
    unsafe { libmimalloc_sys::mi_collect(true) };
    // ONNX Runtime allocates from the C library.
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::malloc_trim(0);
    }
}
