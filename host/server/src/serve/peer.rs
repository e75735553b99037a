//! The client of a connection.

use std::net::IpAddr;

/// The remote end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A host, by its address.
    Ip(IpAddr),
    /// A local process, over the Unix socket.
    Socket,
}

impl Peer {
    /// Its address, if it has one.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Ip(ip) => Some(ip),
            Peer::Socket => None,
        }
    }
}
