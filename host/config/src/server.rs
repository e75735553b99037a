//! `[server]` and `[keys]`: listeners, permissions and limits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::{Address, Place};
use crate::keys::KeyHash;

/// Listeners and limits of requests.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Address of the listener.
    pub listen: SocketAddr,
    /// Address of the operator's own endpoints; `None` serves them on `listen`.
    pub admin_listen: Option<SocketAddr>,
    /// Path of a Unix socket that is served beside `listen`.
    pub unix_socket: Option<PathBuf>,
    /// Permits every client that reaches the listeners, even without keys.
    pub trusted_network: bool,
    /// TLS certificate of `listen`.
    pub tls: Option<TlsFiles>,
    /// Limits of connections.
    pub connections: ConnectionLimits,
    /// Rate limit per client address.
    pub rate_per_ip: Option<Rate>,
    /// Time limit for a request.
    pub deadline: Duration,
    /// Time limit for a chat's answer.
    pub chat_deadline: Duration,
    /// Time limit for receiving the body.
    pub body_time: Duration,
    /// Maximum size of a request's body, in bytes.
    pub max_body_bytes: usize,
    /// Memory budget of the process; `None` for no limit.
    pub memory: Option<MemoryContract>,
    /// Memory budget for all request bodies, in bytes.
    pub body_memory_bytes: usize,
    /// Maximum number of inputs in a `/moderate` request.
    pub max_inputs: usize,
    /// Other names of moderators that a request may send in `model`.
    pub aliases: BTreeMap<String, String>,
    /// Origins whose pages may send requests and read the answers; [`ANY_ORIGIN`] for any.
    pub cors_origins: Vec<String>,
    /// Maximum expected wait for an instance.
    pub queue_time: Duration,
    /// Time limit for requests in flight after a signal to stop.
    pub drain: Duration,
    /// Reloads the configuration when it or a file that it names changes.
    pub watch: bool,
}

/// Memory budget of the process.
#[derive(Clone, Debug)]
pub struct MemoryContract {
    /// Value of `memory_bytes`.
    pub bytes: usize,
    /// Its line in the configuration.
    pub at: Place,
}

/// Limits of connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Maximum number of connections.
    pub max_connections: usize,
    /// Maximum number per IPv4 address, or per IPv6 network of 64 bits.
    pub max_per_ip: usize,
    /// Maximum size of a request's head, in bytes.
    pub max_header_bytes: usize,
    /// Time limit for a handshake, and for each request's head.
    pub header_time: Duration,
    /// Time after which a connection without a request is closed.
    pub idle_time: Duration,
    /// Time after which a client that reads nothing of an answer is disconnected.
    pub send_time: Duration,
}

/// Files of a TLS certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its intermediates, in PEM.
    pub certificate: PathBuf,
    /// The private key, in PEM.
    pub key: PathBuf,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second.
    pub per_second: NonZeroU32,
    /// Requests in a burst above the rate.
    pub burst: NonZeroU32,
}

/// An API key. Only its hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// Components that it may use; `None` for all.
    pub components: Option<BTreeSet<String>>,
    /// Models that it may use by name; `None` for all.
    pub models: Option<BTreeSet<String>>,
    /// Rate limit.
    pub rate: Option<Rate>,
    /// Maximum number of requests in flight.
    pub concurrency: Option<usize>,
}

/// Permits every origin.
pub const ANY_ORIGIN: &str = "*";

impl ServerConfig {
    /// Checks that clients of `address` may be served. Without keys, only loopback addresses are
    /// permitted. All addresses of a name are checked, whichever of them the server listens on.
    ///
    /// # Errors
    ///
    /// If other machines reach the address without a key; names the remedies.
    pub fn check_access(&self, address: &Address, keyless: bool) -> Result<(), String> {
        let Some(address) = self.exposed(address).filter(|_| keyless) else { return Ok(()) };
        Err(format!(
            "is `{address}`, which other machines reach, and no API key is configured; expected a loopback address such \
             as `127.0.0.1:{}`, or a [keys.NAME] section (`infer key new` makes one), or `trusted_network = true` under \
             [server] to serve every client that connects",
            address.port()
        ))
    }

    /// Returns the first of `address` that other machines reach, unless the network is trusted.
    pub(crate) fn exposed(&self, address: &Address) -> Option<SocketAddr> {
        let exposed = address.all().iter().find(|address| !address.ip().is_loopback());
        exposed.copied().filter(|_| !self.trusted_network)
    }
}
