//! Memory for packed weights: aligned to whole vectors, and backed by huge pages where it is large
//! enough and the system supports them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;

/// A fixed number of zeroed bytes.
pub(crate) struct Buffer {
    bytes: NonNull<u8>,
    layout: Layout,
    mapped: bool,
}

// SAFETY: the buffer owns its bytes and lends them by the usual rules of references.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Allocates `len` bytes; `None` if the system has no memory for them.
    pub(crate) fn new(len: usize) -> Option<Self> {
        let align = if len >= HUGE_PAGE { HUGE_PAGE } else { 64 };
        let layout = Layout::from_size_align(len.max(64), align).ok()?;
        #[cfg(target_os = "linux")]
        if len >= HUGE_PAGE {
            return Some(Self { bytes: map(len)?, layout, mapped: true });
        }
        // SAFETY: the layout is not empty.
        let bytes = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self { bytes, layout, mapped: false })
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: allocated and zeroed in `new`; borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), self.layout.size()) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: allocated and zeroed in `new`.
        unsafe { std::slice::from_raw_parts(self.bytes.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.mapped {
            #[cfg(target_os = "linux")]
            // SAFETY: `map` created exactly this mapping.
            unsafe {
                libc::munmap(self.bytes.as_ptr().cast(), mapped_len(self.layout.size()));
            }
            return;
        }
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) };
    }
}

/// Maps `len` bytes at a multiple of the huge page size, on huge pages except for the remainder. An
/// allocator would waste up to one huge page per matrix, a tenth of a model's weights.
#[cfg(target_os = "linux")]
fn map(len: usize) -> Option<NonNull<u8>> {
    let total = len.checked_add(HUGE_PAGE)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: this creates a new mapping at an address that the system chooses; no existing memory
    // is touched.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), total, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let before = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
    let bytes = start.wrapping_byte_add(before);
    let end = mapped_len(len);
    // SAFETY: both ranges are unused parts of the mapping above, before the buffer and after its
    // last page. The advice covers whole huge pages of the buffer before they are touched; a
    // failure has no effect.
    unsafe {
        if before > 0 {
            libc::munmap(start, before);
        }
        if before + end < total {
            libc::munmap(bytes.wrapping_byte_add(end), total - before - end);
        }
        libc::madvise(bytes, len / HUGE_PAGE * HUGE_PAGE, libc::MADV_HUGEPAGE);
    }
    NonNull::new(bytes.cast())
}

/// Length of the mapping for `len` bytes, rounded up to the largest page size (4 to 64 KiB).
#[cfg(target_os = "linux")]
fn mapped_len(len: usize) -> usize {
    len.next_multiple_of(64 << 10)
}
