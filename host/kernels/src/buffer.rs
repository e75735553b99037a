//! Memory for packed weights: aligned for whole vectors, and on huge pages where it is large and the system allows them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;

/// A fixed number of bytes, zeroed.
pub(crate) struct Buffer {
    bytes: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its bytes and gives them out by the usual rules of references.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `None` where the system has no such memory.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { 64 };
        let layout = Layout::from_size_align(len.max(64), align).ok()?;
        // SAFETY: the layout is not empty.
        let bytes = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        #[cfg(target_os = "linux")]
        if len >= HUGE_PAGE {
            // SAFETY: advice on memory that was just allocated; a refusal changes nothing.
            unsafe { libc::madvise(bytes.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
        }
        Some(Self { bytes, layout })
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: allocated and zeroed in `new`.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.layout.size()) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: allocated and zeroed in `new`; borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) };
    }
}
