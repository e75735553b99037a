//! The global allocator of guests.

/// A guest starts with 4 MiB (.cargo/config.toml). To use these before any that it asks for keeps
/// the host from changing the bounds of an instance's memory twice a request, which interrupts
/// every processor.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
