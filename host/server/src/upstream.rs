//! Servers with OpenAI's API, to which requests are forwarded.
//!
//! # Layout
//!
//! - `upstreams`: the upstreams of a configuration; their state is kept over a reload
//! - `exchange`: a request and its response, with retries, deadlines and size limits
//! - `connection`: resolves and checks addresses, connects, TLS; `pool`: idle connections
//! - `breaker`: the circuit breaker; `retry`: the retry budget and pauses
//! - `event_reader`: server-sent events from bytes
//! - `fault`: causes of failures, as errors for clients

mod breaker;
mod connection;
mod event_reader;
mod exchange;
mod fault;
mod pool;
mod retry;
mod upstreams;

use anyhow::Context as _;
pub(crate) use event_reader::EventReader;
pub(crate) use exchange::{Answer, Outgoing};
pub(crate) use fault::Cause;
use infer_config::Config;
pub(crate) use upstreams::{Upstream, Upstreams};

/// Checks that the root certificates of all upstreams can be read.
///
/// # Errors
///
/// If the system has none, or a `ca_file` is invalid.
pub fn check(config: &Config) -> anyhow::Result<()> {
    for (name, upstream) in config.upstreams.iter().filter(|(_, upstream)| upstream.url.is_tls) {
        connection::tls(upstream.roots.as_deref()).with_context(|| format!("upstream `{name}`"))?;
    }
    Ok(())
}
