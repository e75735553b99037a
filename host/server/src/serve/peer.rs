//! The client of a connection.

use std::net::IpAddr;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A machine.
    Ip(IpAddr),
    /// A program of this machine, over the Unix socket.
    Socket,
}

impl Peer {
    /// Its address, where it has one.
    #[must_use]
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Ip(ip) => Some(ip),
            Peer::Socket => None,
        }
    }
}
