//! Fixed limits of the server. Limits that the operator sets are in `infer_config`.

use std::time::Duration;

use infer_engine::limits::Limit;

// Connections.

/// Maximum number of connections of the operator's listener, beside the public limit. Bounds memory
/// and descriptors.
pub(crate) const MAX_ADMIN_CONNECTIONS: usize = 64;

/// Maximum number of concurrent streams of one HTTP/2 connection. Bounds the requests that one
/// client has in flight.
pub(crate) const MAX_STREAMS: u32 = 32;

/// Receive window of an HTTP/2 stream, in bytes. Bounds the memory of bodies that are not yet read.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 << 10;

/// Receive window of an HTTP/2 connection, in bytes. Bounds the memory of bodies that are not yet
/// read.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 512 << 10;

/// Send buffer of an HTTP/2 stream, in bytes. Bounds the memory of responses that are not yet read.
pub(crate) const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Maximum time to answer an HTTP/2 ping. Protects seats from clients that are gone.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of HTTP/2 streams that a client resets before they are accepted; beyond it the
/// connection is closed. Protects the processor.
pub(crate) const MAX_PENDING_RESETS: usize = 20;

/// Maximum number of HTTP/2 streams that are reset for protocol errors of the client; beyond it the
/// connection is closed. Protects the processor.
pub(crate) const MAX_ERROR_RESETS: usize = 128;

/// Maximum number of requests that an HTTP/2 client may cancel, or leave without a body, beyond the
/// number that were answered. A client that resets streams as fast as it opens them exceeds this at
/// once.
pub(crate) const MAX_WASTED_REQUESTS: u32 = 64;

/// Maximum number of bytes that an HTTP/2 client may send between two signs of progress, in bytes:
/// pings, settings and window updates cost the server time without being requests.
pub(crate) const MAX_UNPRODUCTIVE_BYTES: usize = 1 << 20;

/// Minimum time for which a connection was quiet before its seat is given to a new one, if it has
/// shown an API key or is sending a response. Protects clients in use from eviction.
pub(crate) const MIN_QUIET: Duration = Duration::from_secs(1);

/// Maximum number of unread bytes of a request's body that are discarded to keep the connection, in
/// bytes. Bounds the work for a rejected request.
pub(crate) const MAX_DISCARDED_BYTES: u64 = 64 << 10;

/// Maximum time to discard them. Bounds the delay of the response.
pub(crate) const DISCARD_TIMEOUT: Duration = Duration::from_millis(2);

/// Maximum time for which the server still reads after an early response: if the client's bytes
/// stayed unread, the system would reset the connection, and the response could be lost.
pub(crate) const LINGER_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum number of bytes that the server still reads after an early response, in bytes.
pub(crate) const MAX_LINGER_BYTES: usize = 1 << 20;

/// Maximum size of a certificate or key file, in bytes: a chain of ten certificates has about 20
/// KB. Protects memory from a wrong file.
pub(crate) const MAX_PEM_BYTES: u64 = 1 << 20;

// Requests and responses.

/// Minimum number of bytes that a client must send or read to make progress, in bytes. Protects
/// seats and memory from clients that send or read byte by byte.
pub(crate) const MIN_PROGRESS_BYTES: usize = 4_096;

/// Minimum number of bytes of a response that the client must read in each `send_ms` once the
/// deadline has passed, in bytes. Bounds the time of a download.
pub(crate) const MIN_SEND_BYTES: u64 = 1 << 20;

/// Size of a response that is sent even if the request memory is exhausted, in bytes: the error
/// response would not be smaller.
pub(crate) const SMALL_RESPONSE_BYTES: u64 = 4 << 10;

/// Maximum time after its deadline in which a handler may still respond itself, before the layer
/// responds for it. Bounds the wait of a client.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

/// Maximum length of a client's request id, in bytes. Bounds the log and the response, which
/// contain it.
pub(crate) const MAX_REQUEST_ID_BYTES: usize = 128;

/// Maximum length of a text that is hashed and looked up as an API key, in bytes; keys of other
/// services that a client may send are shorter. Bounds the time of a lookup.
pub(crate) const MAX_KEY_BYTES: usize = 512;

/// Maximum number of addresses with a token bucket that is not full. Bounds memory to about 4 MB.
pub(crate) const MAX_ADDRESSES: usize = 65_536;

/// Maximum time for which the queue may be more than half full before the server reports not ready:
/// longer than a burst.
pub(crate) const MAX_QUEUE_STANDING: Duration = Duration::from_secs(1);

/// Minimum time for which a body has stalled before it is evicted. Protects bodies on slow
/// networks.
pub(crate) const MIN_BODY_STALL: Duration = Duration::from_millis(500);

/// Maximum length of a DNS name, in bytes (RFC 1035).
pub(crate) const MAX_HOST_NAME_BYTES: usize = 253;

/// Maximum length of a `Host` header, in bytes: a name, and a port with leading zeros. Bounds its
/// parsing.
pub(crate) const MAX_HOST_BYTES: usize = MAX_HOST_NAME_BYTES + ":0065535".len();

/// Maximum length of a list of headers that is repeated to a CORS preflight, in bytes. Bounds the
/// response.
pub(crate) const MAX_PREFLIGHT_HEADERS_BYTES: usize = 1024;

/// Maximum length of a method that is repeated to a CORS preflight, in bytes. Bounds the response.
pub(crate) const MAX_PREFLIGHT_METHOD_BYTES: usize = 32;

/// Maximum number of members of a JSON object: many times that of any valid request. Bounds memory.
pub(crate) const MAX_MEMBERS: Limit = Limit::new(256, "members");

// Chat and completions.

/// Maximum number of turns of a chat, which is the engine's limit as well, and of parts of a turn.
/// Bounds memory.
pub(crate) const MAX_MESSAGES: Limit = Limit::new(infer_engine::limits::MAX_MESSAGES, "items");

/// Minimum number of the last judged turns of an API key that are known and not judged again; at
/// most twice as many. Bounds memory.
pub(crate) const MAX_SEEN_TURNS: usize = 1_024;

/// Maximum length of a word such as `auto`, in bytes of JSON. Bounds the comparison with accepted
/// words.
pub(crate) const MAX_WORD_BYTES: usize = 64;

/// Maximum length of a number that is compared with its neutral value, in bytes of JSON. Bounds its
/// parsing.
pub(crate) const MAX_NUMBER_BYTES: usize = 32;

/// Maximum length of `logit_bias`, in bytes of JSON. Bounds the memory of a map without effect.
pub(crate) const MAX_BIAS_BYTES: usize = 4096;

// Upstreams.

/// Maximum time for which an idle connection to an upstream is kept. Bounds descriptors of no use.
pub(crate) const MAX_IDLE_TIME: Duration = Duration::from_secs(60);

/// Maximum number of threads that resolve the name of one upstream. Bounds the threads that a name
/// server which does not answer takes.
pub(crate) const MAX_RESOLUTIONS: usize = 4;

/// Maximum number of addresses of an upstream's name that are tried. Bounds the attempts.
pub(crate) const MAX_UPSTREAM_ADDRESSES: usize = 8;

/// Maximum size of the head of an upstream's response, and of hyper's read buffer, in bytes. Bounds
/// the memory of a connection.
pub(crate) const MAX_UPSTREAM_HEAD_BYTES: usize = 64 << 10;

/// Maximum number of bytes of an upstream's error that are read for its message, in bytes. Bounds
/// memory.
pub(crate) const MAX_UPSTREAM_ERROR_BYTES: usize = 16 << 10;

/// Maximum number of choices of an upstream's stream. Bounds the memory that records which have
/// ended.
pub(crate) const MAX_STREAM_CHOICES: usize = 128;

/// Maximum number of retries in a burst, before the share of `retry_percent` applies.
pub(crate) const MAX_RETRY_TOKENS: u32 = 10;

/// Maximum pause before a retry, unless the upstream asks for a longer one. Bounds the wait of a
/// client.
pub(crate) const MAX_RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Size of a stream's unsent events beyond which no more are read from the upstream, in bytes.
/// Bounds the memory of a client that reads slowly.
pub(crate) const MAX_UNSENT_BYTES: usize = 256 << 10;

// Open Inference Protocol.

/// Maximum nesting of arrays of a tensor's elements: more axes than any tensor has. Bounds
/// recursion.
pub(crate) const MAX_DEPTH: Limit = Limit::new(16, "nested arrays");

/// Maximum number of axes of a tensor. A longer list is rejected while it is parsed, because an
/// element of two bytes of JSON takes eight in memory.
pub(crate) const MAX_AXES: Limit = Limit::new(16, "axes");

/// Maximum number of input tensors of a request: more than any model has. Bounds memory.
pub(crate) const MAX_INPUTS: Limit = Limit::new(256, "tensors");

/// Maximum number of requested outputs: more than any model has. Bounds memory.
pub(crate) const MAX_OUTPUTS: Limit = Limit::new(256, "outputs");

/// Maximum number of texts in a tensor of a request; the engine takes 128 in one call.
pub(crate) const MAX_PROTOCOL_TEXTS: Limit = Limit::new(256, "texts");

/// Number of texts that a route passes to a text model in one call.
pub(crate) const MAX_TEXTS_AT_ONCE: usize = 64;

/// Maximum number of texts of one request for embeddings, as in OpenAI's API.
pub(crate) const MAX_EMBEDDING_INPUTS: Limit = Limit::new(2_048, "texts");

/// Maximum length of the query of a request to order texts. It is read beside each of them.
pub(crate) const MAX_RERANK_QUERY_BYTES: Limit = Limit::new(16 << 10, "bytes");

/// Maximum number of texts of one request to order them.
pub(crate) const MAX_RERANKED_TEXTS: Limit = Limit::new(1_024, "texts");

// Moderation, analysis and classification.

/// Maximum number of inputs of one request that are judged concurrently: enough to fill batches,
/// and too few to starve other requests.
pub(crate) const MAX_CONCURRENT_INPUTS: usize = 8;

/// Maximum number of thresholds in one request: several times the number of categories. Bounds
/// memory.
pub(crate) const MAX_THRESHOLDS: Limit = Limit::new(64, "categories");

/// Maximum length of an `Idempotency-Key`, in bytes. Bounds the time to hash it.
pub(crate) const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// Maximum time for which a response is stored for its `Idempotency-Key`. Bounds memory.
pub(crate) const MAX_STORED_TIME: Duration = Duration::from_secs(600);

/// Maximum number of stored responses, over all tenants. Bounds memory.
pub(crate) const MAX_STORED_RESPONSES: usize = 1_024;

/// Maximum size of all stored responses, in bytes. Bounds memory.
pub(crate) const MAX_STORED_BYTES: usize = 8 << 20;

/// Maximum size of one stored response, in bytes; a larger one is not stored. Bounds the share of
/// one response.
pub(crate) const MAX_STORED_RESPONSE_BYTES: usize = 64 << 10;

/// Maximum length of a comment, in bytes, as in Perspective.
pub(crate) const MAX_COMMENT: Limit = Limit::new(20_480, "bytes");

/// Maximum length of an analysis request, in bytes: a comment in escapes of six bytes per byte, and
/// its envelope.
pub(crate) const MAX_ANALYSIS_BODY: Limit = Limit::new(8 * MAX_COMMENT.max(), "bytes");

/// Maximum number of labels of one answer: common models have no more classes. Bounds the response.
pub(crate) const MAX_LABELS: u32 = 1_000;
