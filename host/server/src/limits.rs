//! Fixed limits of the server. Limits that the operator sets are in `infer_config`.

use std::time::Duration;

use infer_engine::limits::Limit;

// Connections.

/// Connections of the operator's listener, beside the public limit.
pub(crate) const MAX_ADMIN_CONNECTIONS: usize = 64;

/// Concurrent streams of one HTTP/2 connection.
pub(crate) const MAX_STREAMS: u32 = 32;

/// Receive window of an HTTP/2 stream, in bytes: bounds the memory of bodies that are not yet read.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Receive window of an HTTP/2 connection, in bytes.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;

/// Send buffer of an HTTP/2 stream, in bytes.
pub(crate) const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Time to answer an HTTP/2 ping before the connection is closed.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// HTTP/2 streams that a client resets before they are accepted. Beyond it the connection is
/// closed.
pub(crate) const MAX_PENDING_RESETS: usize = 20;

/// HTTP/2 streams that are reset for protocol errors of the client. Beyond it the connection is
/// closed.
pub(crate) const MAX_ERROR_RESETS: usize = 128;

/// Requests that an HTTP/2 client may cancel, or leave without a body, beyond the number that were
/// answered. A client that resets streams as fast as it opens them exceeds this at once.
pub(crate) const MAX_WASTED_REQUESTS: u32 = 64;

/// Bytes that an HTTP/2 client may send between two signs of progress: pings, settings and window
/// updates cost the server time without being requests.
pub(crate) const MAX_UNPRODUCTIVE_BYTES: usize = 1 << 20;

/// Time for which a connection must have been quiet before its seat can be given to a new one, if
/// it has shown an API key or is sending a response.
pub(crate) const MIN_QUIET: Duration = Duration::from_secs(1);

/// Unread bytes of a request's body that are discarded to keep the connection.
pub(crate) const MAX_DISCARDED_BYTES: u64 = 64 << 10;

/// Time by which discarding them delays the response.
pub(crate) const DISCARD_TIMEOUT: Duration = Duration::from_millis(2);

/// Time for which the server still reads after an early response: if the client's bytes stayed
/// unread, the system would reset the connection, and the response could be lost.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that the server still reads after an early response.
pub(crate) const MAX_LINGER_BYTES: usize = 1 << 20;

/// Size of a certificate or key file, in bytes: a chain of ten certificates has about 20 KB.
pub(crate) const MAX_PEM_BYTES: u64 = 1 << 20;

// Requests and responses.

/// Bytes that a client must send or read to make progress.
pub(crate) const MIN_PROGRESS_BYTES: usize = 4_096;

/// Bytes of a response that the client must read in each `send_ms` once the deadline has passed.
pub(crate) const MIN_BYTES_PER_SEND_TIME: u64 = 1 << 20;

/// Size of a response that is sent even if the request memory is exhausted, in bytes: the error
/// response would not be smaller.
pub(crate) const SMALL_RESPONSE_BYTES: u64 = 4 << 10;

/// Time after its deadline in which a handler may still respond itself, before the layer responds
/// for it.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

/// Length of a client's request id, in bytes: the id is logged and returned.
pub(crate) const MAX_REQUEST_ID_BYTES: usize = 128;

/// Length of a text that is hashed and looked up as an API key, in bytes. Keys of other services
/// that a client may send are shorter.
pub(crate) const MAX_KEY_BYTES: usize = 512;

/// Addresses with a token bucket that is not full: about 4 MB.
pub(crate) const MAX_ADDRESSES: usize = 65_536;

/// Time for which the queue may be more than half full before the server reports not ready. Longer
/// than a burst.
pub(crate) const MAX_QUEUE_STANDING: Duration = Duration::from_secs(1);

/// Time for which a body must have stalled before it can be evicted.
pub(crate) const MIN_BODY_STALL: Duration = Duration::from_millis(500);

/// Length of a DNS name, in bytes.
pub(crate) const MAX_HOST_NAME_BYTES: usize = 253;

/// Length of a `Host` header, in bytes: a name, and a port with leading zeros.
pub(crate) const MAX_HOST_BYTES: usize = MAX_HOST_NAME_BYTES + ":0065535".len();

/// Length of a list of headers that is repeated to a CORS preflight, in bytes.
pub(crate) const MAX_PREFLIGHT_HEADERS_BYTES: usize = 1024;

/// Length of a method that is repeated to a CORS preflight, in bytes.
pub(crate) const MAX_PREFLIGHT_METHOD_BYTES: usize = 32;

/// Members of a JSON object: many times that of any valid request.
pub(crate) const MAX_MEMBERS: Limit = Limit::new(256, "members");

// Chat and completions.

/// Messages of a chat, which is the engine's limit as well.
pub(crate) const MAX_MESSAGES: Limit = Limit::new(1 << 10, "items");

/// Length of a word such as `auto`, in bytes of JSON; bounds the comparison with accepted words.
pub(crate) const MAX_WORD_BYTES: usize = 64;

/// Length of a number that is compared with its neutral value, in bytes of JSON.
pub(crate) const MAX_NUMBER_BYTES: usize = 32;

/// Length of `logit_bias`, in bytes of JSON: bounds the memory of a map without effect.
pub(crate) const MAX_BIAS_BYTES: usize = 4096;

// Open Inference Protocol.

/// Nested arrays of a tensor's elements, and axes of a tensor: more than any tensor has.
pub(crate) const MAX_DEPTH: Limit = Limit::new(16, "nested arrays");

/// Axes of a tensor. A longer list is rejected while it is parsed, because an element of two bytes
/// of JSON takes eight in memory.
pub(crate) const MAX_AXES: Limit = Limit::new(MAX_DEPTH.max(), "axes");

/// Input tensors of a request: more than any model has.
pub(crate) const MAX_INPUTS: Limit = Limit::new(256, "tensors");

/// Requested outputs of a request: more than any model has.
pub(crate) const MAX_OUTPUTS: Limit = Limit::new(256, "outputs");

// Moderation, analysis and classification.

/// Inputs of one request that are judged concurrently: enough to fill batches, and too few to
/// starve other requests.
pub(crate) const MAX_CONCURRENT_INPUTS: usize = 8;

/// Thresholds in one request: several times the number of categories.
pub(crate) const MAX_THRESHOLDS: Limit = Limit::new(64, "categories");

/// Length of an `Idempotency-Key`, in bytes.
pub(crate) const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Time for which a response is stored for its `Idempotency-Key`.
pub(crate) const MAX_STORED_TIME: Duration = Duration::from_secs(600);

/// Stored responses, over all tenants.
pub(crate) const MAX_STORED_RESPONSES: usize = 1_024;

/// Size of all stored responses, in bytes.
pub(crate) const MAX_STORED_BYTES: usize = 8 << 20;

/// Size of one stored response, in bytes; a larger one is not stored.
pub(crate) const MAX_STORED_RESPONSE_BYTES: usize = 64 << 10;

/// Length of a comment, in bytes, as in Perspective.
pub(crate) const MAX_COMMENT: Limit = Limit::new(20_480, "bytes");

/// Length of an analysis request, in bytes: a comment in escapes of six bytes per byte, and its
/// envelope.
pub(crate) const MAX_ANALYSIS_BODY: Limit = Limit::new(8 * MAX_COMMENT.max(), "bytes");

/// Labels of one answer: common models have no more classes.
pub(crate) const MAX_LABELS: u32 = 1_000;
