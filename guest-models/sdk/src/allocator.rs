//! The global allocator of guests.

/// Guests start with 4 MiB of memory (.cargo/config.toml). This allocator uses them before it
/// requests more. Otherwise the host would change the bounds of an instance's memory twice per
/// request, which interrupts every processor.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
