//! Budgets of one guest instance.

use std::time::Duration;

use crate::limits::MAX_LOG_LINE_BYTES;

/// Budgets of one guest instance, which lives for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of instances of this component at a time; `None` for all of the pool.
    pub instances: Option<usize>,
    /// Linear memory, in bytes. The default fits the decoded pixels of a 16-megapixel photo twice.
    pub memory_bytes: usize,
    /// Elements of each table. Guests compiled from Rust use some hundreds, fixed at build time.
    pub table_elements: usize,
    /// Live resource handles: tensors, graphs, contexts and errors together.
    pub handles: usize,
    /// Tensors that the host holds for the guest at a time, in bytes; also the maximum that one
    /// host call may copy.
    pub tensor_bytes: usize,
    /// Processor time, with instantiation, without waiting for models.
    pub guest_time: Duration,
    /// Time in models, with waiting in their queues.
    pub compute_time: Duration,
    /// Maximum number of log lines; further lines are dropped.
    pub log_lines: usize,
    /// Maximum number of requests that an HTTP component may send.
    pub outbound_requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits::DEFAULT
    }
}

impl Limits {
    /// Limits of a component that configures none.
    pub const DEFAULT: Limits = Limits {
        instances: None,
        memory_bytes: 128 << 20,
        table_elements: 10_000,
        handles: 256,
        tensor_bytes: 32 << 20,
        guest_time: Duration::from_millis(1_000),
        compute_time: Duration::from_millis(5_000),
        log_lines: 32,
        outbound_requests: 16,
    };

    /// Maximum length of a log line, in bytes; longer lines are cut.
    pub const LOG_LINE_BYTES: usize = MAX_LOG_LINE_BYTES;
}
