//! Fixed limits of this crate. Keys of infer.toml have their ranges in `table`.

/// Maximum size of infer.toml, in bytes. Protects the program's memory from a wrong file.
pub const MAX_CONFIG_BYTES: u64 = 64 << 20;

/// Maximum size of infer.lock, in bytes. Protects the program's memory from a wrong file.
pub const MAX_LOCK_BYTES: u64 = 4 << 20;

/// Maximum size of a file of thresholds, in bytes. Protects the program's memory from a wrong file.
pub(crate) const MAX_THRESHOLDS_BYTES: u64 = 4 << 20;

/// Maximum number of API keys. Every request's key is compared with all of them, in constant time.
pub(crate) const MAX_KEYS: usize = 1_000;

/// Maximum number of self-tests of a component. All of them run before a reload takes effect.
pub(crate) const MAX_TESTS: usize = 64;

/// Maximum size of an infer.toml that `watch` reads, in bytes. It is read once a second.
pub(crate) const MAX_WATCHED_CONFIG_BYTES: u64 = 16 << 20;

/// Maximum size of a file that `watch` compares by content, in bytes. Larger files are compared by
/// metadata, so that weights are not read once a second.
pub(crate) const MAX_HASHED_BYTES: u64 = 1 << 20;

/// Maximum number of files that `watch` compares. Bounds the system calls of a second.
pub(crate) const MAX_WATCHED_FILES: usize = 4_096;

/// Maximum characters of a value in a list of changes. Keeps a change on one line of the log.
pub(crate) const MAX_VALUE_CHARACTERS: usize = 60;

/// Maximum length of a `data:` URL's media type, in bytes. Bounds the buffer for a URL without a
/// comma.
pub(crate) const MAX_MEDIA_TYPE_BYTES: usize = 4 << 10;

/// Maximum size of a file with an upstream's API key, in bytes. Protects memory from a wrong file.
pub(crate) const MAX_UPSTREAM_KEY_BYTES: u64 = 8 << 10;

/// Maximum size of a file of root certificates, in bytes: that of a Linux distribution has 220 KB.
/// Protects memory from a wrong file.
pub const MAX_CA_BYTES: u64 = 4 << 20;

/// Maximum length of a DNS name in the URL of an upstream, in bytes (RFC 1035).
pub(crate) const MAX_HOST_NAME_BYTES: usize = 253;
