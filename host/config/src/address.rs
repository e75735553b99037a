//! Address of a listener: an IP address or a host name, and a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

/// An address to listen on, resolved from its configured text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Addresses of the name, sorted, IPv4 first. The server listens on the first.
    resolved: Vec<SocketAddr>,
}

/// Text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAddress(String);

impl Address {
    /// Returns the address to listen on.
    #[must_use]
    pub fn chosen(&self) -> SocketAddr {
        self.resolved[0]
    }

    /// Returns all addresses of the name, whether the server listens on them or not.
    #[must_use]
    pub fn all(&self) -> &[SocketAddr] {
        &self.resolved
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address { resolved: vec![address] }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    /// Parses `text`. A name is resolved, which may query DNS; `localhost`, and any name below it,
    /// is 127.0.0.1 without a query (RFC 6761, section 6.3).
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        const EXPECTED: &str =
            "expected an address and a port such as `127.0.0.1:8080`, `[::1]:8080` or `localhost:8080`";
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let invalid = |problem: &str| InvalidAddress(format!("{problem}; {EXPECTED}"));
        let (name, port) = text.rsplit_once(':').ok_or_else(|| invalid("it has no port"))?;
        let port: u16 = port.parse().map_err(|_| invalid("its port is not a number from 0 to 65535"))?;
        let with_port = |ip: IpAddr| Ok(SocketAddr::new(ip, port).into());
        match name.trim_end_matches('.').to_ascii_lowercase().as_str() {
            "" => return Err(invalid("it has no host")),
            "*" => {
                return Err(invalid(
                    "`*` is not an address; `0.0.0.0` or `[::]` is every address of this machine",
                ));
            }
            host if host == "localhost" || host.ends_with(".localhost") => {
                return with_port(Ipv4Addr::LOCALHOST.into());
            }
            _ => {}
        }
        if name.contains("://") {
            return Err(invalid("it is a URL"));
        }
        if name.contains(':') || name.contains(['[', ']']) {
            return Err(invalid("an IPv6 address needs brackets"));
        }
        let found = (name, port).to_socket_addrs();
        let found =
            found.map_err(|error| invalid(&format!("the name `{name}` cannot be resolved: {error}")))?;
        let mut resolved: Vec<_> = found.collect();
        // DNS servers answer in any order, and a reload must find the same first address.
        resolved.sort();
        resolved.dedup();
        if resolved.is_empty() {
            return Err(invalid(&format!("the name `{name}` has no address")));
        }
        Ok(Address { resolved })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chosen().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, Origin};

    #[test]
    fn addresses_and_localhost_are_parsed() {
        let cases = [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:8080", "[::1]:8080"),
            ("[::]:8080", "[::]:8080"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("LocalHost:0", "127.0.0.1:0"),
            ("infer.localhost:80", "127.0.0.1:80"),
            ("localhost.:80", "127.0.0.1:80"),
        ];
        for (text, expected) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.all().len()), (expected, 1), "{text}");
        }
    }

    #[test]
    fn every_address_of_a_name_is_checked() {
        let config = |text: &str| Config::parse(text, &Origin::Builtin).unwrap().server;
        let own: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let other: SocketAddr = "192.0.2.1:80".parse().unwrap();
        let address = Address { resolved: vec![own, other] };
        let keyless = config("").check_access(&address, true).unwrap_err();
        assert!(keyless.contains("`192.0.2.1:80`, which other machines reach"), "{keyless}");
        assert_eq!(config("").check_access(&address, false), Ok(()));
        assert_eq!(config("").check_access(&Address { resolved: vec![own] }, true), Ok(()));
        assert_eq!(config("[server]\ntrusted_network = true").check_access(&address, true), Ok(()));
    }

    #[test]
    fn invalid_address_is_explained() {
        let cases = [
            ("8080", "it has no port"),
            ("localhost", "it has no port"),
            (":8080", "it has no host"),
            ("*:8080", "`0.0.0.0` or `[::]`"),
            ("localhost:http", "not a number"),
            ("localhost:65536", "not a number"),
            ("::1:8080", "needs brackets"),
            ("[::1]:x", "not a number"),
            ("[::1:80", "needs brackets"),
            ("no-such-name.invalid:8080", "`no-such-name.invalid` cannot be resolved"),
            ("http://localhost:8080", "it is a URL"),
        ];
        for (text, words) in cases {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("expected an address"), "{text}: {error}");
        }
    }
}
