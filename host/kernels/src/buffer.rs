//! Memory for packed weights: aligned for whole vectors, and on huge pages where it is large and
//! the system allows them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

const HUGE_PAGE: usize = 2 << 20;

/// A fixed number of bytes, zeroed.
pub(crate) struct Buffer {
    bytes: NonNull<u8>,
    layout: Layout,
    mapped: bool,
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
            // SAFETY: `map` made exactly this mapping.
            unsafe {
                libc::munmap(self.bytes.as_ptr().cast(), mapped_len(self.layout.size()));
            }
            return;
        }
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), self.layout) };
    }
}

/// Map `len` bytes at a multiple of a huge page, huge but for what is left over at the end: an
/// allocator would keep up to a huge page more of each matrix, which is a tenth of a model's
/// weights.
#[cfg(target_os = "linux")]
fn map(len: usize) -> Option<NonNull<u8>> {
    let total = len.checked_add(HUGE_PAGE)?;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping of the system's choice; it touches no memory that there is.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), total, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let before = start.addr().next_multiple_of(HUGE_PAGE) - start.addr();
    let bytes = start.wrapping_byte_add(before);
    let end = mapped_len(len);
    // SAFETY: both are parts of the mapping above that nothing uses: before the buffer, and behind
    // its last page. The advice is on its whole huge pages, before any is touched; a refusal
    // changes nothing.
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

/// Bytes of the mapping for `len`: it ends at the end of a page, which are 4 to 64 KiB.
#[cfg(target_os = "linux")]
fn mapped_len(len: usize) -> usize {
    len.next_multiple_of(64 << 10)
}
