//! `[server]` and `[keys]`: where the server listens, whom it answers, and how much it takes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::{Address, Place};
use crate::keys::KeyHash;

/// The listener and the requests.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the operator's own endpoints are; on `listen` where there is none.
    pub admin_listen: Option<SocketAddr>,
    /// A socket beside `listen`.
    pub unix_socket: Option<PathBuf>,
    /// Whoever reaches the listeners may use them, keys or not.
    pub trusted_network: bool,
    /// The certificate that `listen` answers with.
    pub tls: Option<TlsFiles>,
    /// What a connection may cost.
    pub connections: ConnectionLimits,
    /// Requests of one address.
    pub rate_per_ip: Option<Rate>,
    /// The longest that a request may take.
    pub deadline: Duration,
    /// The longest that a chat's answer may take.
    pub chat_deadline: Duration,
    /// The longest that its body may take to arrive.
    pub body_time: Duration,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// What the process may take; all that there is where there is none.
    pub memory: Option<MemoryContract>,
    /// All bodies that are held at any one time, in bytes.
    pub body_memory_bytes: usize,
    /// The most inputs of one `/moderate` request.
    pub max_inputs: usize,
    /// Other names of moderators, by which a request's `model` may choose them.
    pub aliases: BTreeMap<String, String>,
    /// Origins whose pages may ask the server and read its answers; [`ANY_ORIGIN`] for any.
    pub cors_origins: Vec<String>,
    /// The longest that a request is expected to wait for an instance.
    pub queue_time: Duration,
    /// How long requests under way may take to finish after a signal to stop.
    pub drain: Duration,
    /// Whether the configuration is read again when it or a file that it names has changed.
    pub watch: bool,
}

/// What the process may take of memory.
#[derive(Clone, Debug)]
pub struct MemoryContract {
    /// `memory_bytes`.
    pub bytes: usize,
    /// Where it is configured.
    pub at: Place,
}

/// What a connection may cost.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at any one time.
    pub most: usize,
    /// Those of one IPv4 address, or of one IPv6 network of 64 bits.
    pub most_per_ip: usize,
    /// The longest head of a request, in bytes.
    pub header_bytes: usize,
    /// How long a handshake may take, and each request's head.
    pub header_time: Duration,
    /// How long a connection may stay without a request.
    pub idle_time: Duration,
    /// How long a client may take nothing of an answer.
    pub send_time: Duration,
}

/// The files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and the root, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second.
    pub per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// One API key: what is known of it is its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// SHA-256 of the key.
    pub hash: KeyHash,
    /// The components that it may use; all where there is no list.
    pub components: Option<BTreeSet<String>>,
    /// The models that it may ask by name; all where there is no list.
    pub models: Option<BTreeSet<String>>,
    /// How often.
    pub rate: Option<Rate>,
    /// Requests under way at any one time.
    pub concurrency: Option<usize>,
}

/// What stands for every origin.
pub const ANY_ORIGIN: &str = "*";

impl ServerConfig {
    /// Whether everybody who reaches `address` may be answered: without keys, only this machine's
    /// own programs are. It holds for all that a name stands for, whichever of them is listened on.
    ///
    /// # Errors
    ///
    /// What is wrong, and the ways out.
    pub fn admits(&self, address: &Address, keyless: bool) -> Result<(), String> {
        let Some(address) = self.reached(address).filter(|_| keyless) else { return Ok(()) };
        Err(format!(
            "is `{address}`, which other machines reach, and no key is configured; expected a loopback address such as \
             `127.0.0.1:{}`, or a [keys.NAME] section (`infer key new` makes one), or `trusted_network = true` under \
             [server] where everybody who reaches it may use it",
            address.port()
        ))
    }

    /// The first of `address` that other machines reach, unless the network is trusted.
    pub(crate) fn reached(&self, address: &Address) -> Option<SocketAddr> {
        let reached = address.all().iter().find(|address| !address.ip().is_loopback());
        reached.copied().filter(|_| !self.trusted_network)
    }
}
