//! Fixed limits of a benchmark's inputs and results.

use std::time::Duration;

/// Maximum size of a baseline report, in bytes. Protects memory from a wrong file.
pub(crate) const MAX_REPORT_BYTES: u64 = 16 << 20;

/// Maximum size of a response body, in bytes: a report of some thousand labels. Protects memory
/// from an endless response.
pub(crate) const MAX_RESPONSE_BYTES: usize = 8 << 20;

/// Maximum number of a dataset's lines. Bounds memory.
pub(crate) const MAX_DATASET_LINES: usize = 1_000_000;

/// Maximum size of a dataset's inputs in memory, in bytes, images included. Bounds memory.
pub(crate) const MAX_DATASET_BYTES: usize = 1 << 30;

/// Maximum number of distinct errors of a row; further ones are counted under the last. Bounds the
/// report.
pub(crate) const MAX_ERROR_KINDS: usize = 16;

/// Maximum length of a stored error, in bytes. Bounds the report.
pub(crate) const MAX_ERROR_BYTES: usize = 200;

/// Maximum recorded time, in nanoseconds: longer times count as an hour. Bounds the histogram.
pub(crate) const MAX_LATENCY_NS: u64 = 3_600_000_000_000;

/// Maximum time of one request. A later answer counts as an error.
pub(crate) const MAX_REQUEST_TIME: Duration = Duration::from_secs(120);

/// Maximum time of one prefill or decode of a language model. Ends a benchmark of a model that
/// hangs.
pub(crate) const MAX_LANGUAGE_REQUEST_TIME: Duration = Duration::from_secs(300);
