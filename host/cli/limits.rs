//! Fixed limits of the subcommands and of the log.

use std::time::Duration;

/// Maximum time of a reload: a large model is hashed, loaded and self-tested before the answer.
/// Ends the wait for a server that hangs.
pub(crate) const MAX_RELOAD_TIME: Duration = Duration::from_secs(3_600);

/// Maximum time of a query for the server's state. Ends the wait for a server that hangs.
pub(crate) const MAX_QUERY_TIME: Duration = Duration::from_secs(10);

/// Maximum size of the server's response, in bytes: every key of a large configuration. Protects
/// memory from an endless response.
pub(crate) const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// Maximum size of an image file on the command line, in bytes. Protects memory from a wrong file.
pub(crate) const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// Maximum size of a policy file, in bytes. A language model reads it before each text.
pub(crate) const MAX_POLICY_BYTES: u64 = 64 << 10;

/// Maximum time of a language model to label one text. Ends the command if the model hangs.
pub(crate) const MAX_LABEL_TIME: Duration = Duration::from_secs(600);

/// Maximum number of printed disagreements; `-o json` prints all that the server stores.
pub(crate) const MAX_PRINTED_EXAMPLES: usize = 8;

/// Maximum number of log lines that wait to be written; further ones are dropped. Bounds memory if
/// standard error is not read.
pub(crate) const MAX_QUEUED_LINES: usize = 16_384;

/// Maximum size of the log lines that wait to be written, in bytes; further ones are dropped.
/// Bounds memory if standard error is not read.
pub(crate) const MAX_QUEUED_BYTES: usize = 4 << 20;

/// Maximum time for which the end of the program waits until the log is written.
pub(crate) const MAX_FLUSH_TIME: Duration = Duration::from_secs(2);
