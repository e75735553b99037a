//! Fixed limits of guests and their answers. The limits that a component configures are in
//! [`guest_limits`](crate::guest_limits).

use infer_engine::limits::Limit;

// Answers.

/// Maximum number of entries in each list of a verdict; OpenAI's API has 13 categories. Bounds the
/// size of a response.
pub(crate) const MAX_CATEGORIES: Limit = Limit::new(64, "entries");

/// Maximum length of a category's name, in bytes. Bounds labels and response headers.
pub(crate) const MAX_CATEGORY_BYTES: usize = 64;

/// Maximum length of a label's name or of a sentence to the caller, in bytes. Bounds the size of a
/// response.
pub(crate) const MAX_TEXT: Limit = Limit::new(512, "bytes");

/// Maximum number of notes of one call; further ones are dropped. Bounds the size of a response.
pub(crate) const MAX_NOTES: usize = 4;

/// Maximum length of a note, in bytes; a longer one is cut. Bounds the size of a response.
pub(crate) const MAX_NOTE_BYTES: usize = 256;

/// Maximum number of spans of one call; further ones are dropped. Bounds the size of a response.
pub(crate) const MAX_SPANS: usize = 256;

/// Maximum length of a span's label, in bytes; a longer one is cut. Bounds the size of a response.
pub(crate) const MAX_SPAN_LABEL_BYTES: usize = 64;

/// Maximum number of regions of one call; further ones are dropped. Bounds the size of a response.
pub(crate) const MAX_REGIONS: usize = 128;

/// Maximum length of a region's text, in bytes; a longer one is cut. Bounds the size of a response.
pub(crate) const MAX_REGION_TEXT_BYTES: usize = 256;

/// Maximum number of contributions of one call; further ones are dropped. Bounds the size of a
/// response.
pub(crate) const MAX_CONTRIBUTIONS: usize = 64;

/// Maximum length of a contribution's words, in bytes; longer ones are cut. Bounds the size of a
/// response.
pub(crate) const MAX_CONTRIBUTION_TEXT_BYTES: usize = 256;

/// Maximum number of scores of sentences of one call; further ones are dropped. Bounds the memory
/// of a request.
pub(crate) const MAX_SENTENCES: usize = 4096;
/// Maximum number of different events of one call; further ones are dropped. Bounds the memory of a
/// call.
pub(crate) const MAX_EVENTS: usize = 16;

/// Maximum length of an event's name, in bytes; longer ones are dropped. Bounds the labels of
/// metrics.
pub(crate) const MAX_EVENT_BYTES: usize = 48;

/// Maximum length of a guest's log line, in bytes; longer lines are cut. Protects the log from
/// floods.
pub(crate) const MAX_LOG_LINE_BYTES: usize = 1024;

// HTTP components.

/// Maximum size of one write to a body, in bytes. Bounds the memory outside of the guest.
pub(crate) const MAX_BODY_WRITE_BYTES: usize = 64 << 10;

/// Maximum number of buffered writes of an answer, beyond the one in flight: an answer of a few
/// pieces does not occupy its instance until a slow client has received it.
pub(crate) const MAX_BUFFERED_WRITES: usize = 4;

/// Maximum number of random bytes of one call. Bounds the time of a host call.
pub(crate) const MAX_RANDOM_BYTES: u64 = 64 << 10;

/// Maximum size of one list of header fields, in bytes. Bounds the memory of the host.
pub(crate) const MAX_FIELDS_BYTES: usize = 32 << 10;

/// Maximum size of one write to standard output or error, in bytes. Bounds the memory of the host.
pub(crate) const MAX_STDIO_WRITE_BYTES: usize = 4096;

// Compilation.

/// Maximum nesting of components and modules in a file. Bounds recursion.
pub(crate) const MAX_MODULE_DEPTH: usize = 64;

/// Maximum size of a cache entry that is read, in bytes; machine code is a few times the size of
/// its component. Protects memory from a wrong file.
pub(crate) const MAX_MACHINE_CODE_BYTES: u64 = 512 << 20;

/// Maximum number of cache entries; the newest stay. Bounds the size of the cache folder.
pub(crate) const MAX_CACHE_ENTRIES: usize = 64;
