//! What one request may use of the box.

use std::time::Duration;

/// The budgets of one guest instance, which lives for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instances of this component at any one time, of those of the pool; none for as many as there
    /// are.
    pub instances: Option<usize>,
    /// Linear memory, in bytes. The default fits the decoded pixels of a 16-megapixel photo twice.
    pub memory_bytes: usize,
    /// Elements of each table. Guests compiled from Rust use some hundreds, fixed at build time.
    pub table_elements: usize,
    /// Live resource handles: tensors, graphs, contexts and errors together.
    pub handles: usize,
    /// Tensors held by the host for the guest at any one time, in bytes; also the most that one
    /// host call may copy.
    pub tensor_bytes: usize,
    /// Time on a processor, instantiation included, waiting for models excluded.
    pub guest_time: Duration,
    /// Time in models, waiting in their queues included.
    pub compute_time: Duration,
    /// Log lines; further ones are dropped.
    pub log_lines: usize,
    /// Requests that an HTTP component sends.
    pub outbound_requests: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            instances: None,
            memory_bytes: 128 << 20,
            table_elements: 10_000,
            handles: 256,
            tensor_bytes: 32 << 20,
            guest_time: Duration::from_millis(1_000),
            compute_time: Duration::from_millis(5_000),
            log_lines: 32,
            outbound_requests: 16,
        }
    }
}

impl Limits {
    /// The longest log line that is kept, in bytes.
    pub const LOG_LINE_BYTES: usize = 1024;
}
