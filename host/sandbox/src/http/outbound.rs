//! Hosts that a component may call, from its configuration.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use ipnet::IpNet;

/// One entry of `allowed_outbound_hosts`: `scheme://host[:port]`.
///
/// The scheme is `http`, `https` or `*`. The host is a name, `*.` and a name for all names below
/// it, an IP address, a network such as `10.0.0.0/8` for the addresses in it, or `*`. The port is a
/// number or `*`; it defaults to that of the scheme.
///
/// Hosts are compared as written in the request, without resolving names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundHost {
    text: Arc<str>,
    /// `None` for any.
    scheme: Option<Scheme>,
    host: Host,
    /// `None` for any.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    /// The suffix after `*`, with its dot.
    Below(String),
    Network(IpNet),
}

impl OutboundHost {
    /// Returns true if a request for `uri` may be sent.
    #[must_use]
    pub fn allows(&self, uri: &Uri) -> bool {
        let (Some(scheme), Some(host)) = (uri.scheme(), uri.host()) else { return false };
        let port = uri.port_u16().or_else(|| default_port(scheme));
        self.scheme.as_ref().is_none_or(|allowed| allowed == scheme)
            && self.port.is_none_or(|allowed| Some(allowed) == port)
            && self.host.holds(host)
    }
}

impl Host {
    fn holds(&self, host: &str) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        match self {
            Host::Any => true,
            Host::Name(name) => *name == host,
            Host::Below(suffix) => host.strip_suffix(suffix.as_str()).is_some_and(|rest| !rest.is_empty()),
            Host::Network(network) => address(&host).is_some_and(|address| network.contains(&address)),
        }
    }
}

/// Parses an address of a URI; version 6 is in brackets.
fn address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}

fn default_port(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

impl FromStr for OutboundHost {
    type Err = String;

    /// # Errors
    ///
    /// When `text` is not an entry, with the expected form.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, authority) = text
            .split_once("://")
            .ok_or_else(|| "it has no scheme; expected one such as `https://example.com`".to_owned())?;
        let scheme = match scheme {
            "http" => Some(Scheme::HTTP),
            "https" => Some(Scheme::HTTPS),
            "*" => None,
            _ => return Err(format!("its scheme is `{scheme}`, expected `http`, `https` or `*`")),
        };
        // The colon before a port, not one within brackets.
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let port = match (port, &scheme) {
            (Some("*"), _) => None,
            (Some(port), _) => {
                let number: Option<u16> = port.parse().ok().filter(|&number| number > 0);
                Some(number.ok_or_else(|| format!("its port is `{port}`, expected 1 to 65535 or `*`"))?)
            }
            (None, Some(scheme)) => default_port(scheme),
            (None, None) => {
                return Err("its scheme is `*`, which has no default port; add one, or `:*`".to_owned());
            }
        };
        let host = host.to_ascii_lowercase();
        Ok(OutboundHost { text: text.into(), scheme, host: host.parse()?, port })
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(host: &str) -> Result<Self, String> {
        if host == "*" {
            return Ok(Host::Any);
        }
        if let Some(address) = address(host) {
            return Ok(Host::Network(address.into()));
        }
        let unbracketed = host.replace(['[', ']'], "");
        if let Ok(network) = unbracketed.parse() {
            return Ok(Host::Network(network));
        }
        let (name, is_suffix) = match host.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (host, false),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !name.split('.').all(is_label) {
            return Err(format!(
                "its host is `{host}`, expected a name, `*.` and a name, an IP address, a network such as `10.0.0.0/8`, or \
                 `*`, and no path"
            ));
        }
        Ok(if is_suffix { Host::Below(format!(".{name}")) } else { Host::Name(name.to_owned()) })
    }
}

impl fmt::Display for OutboundHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, uri: &str) -> bool {
        let host: OutboundHost = entry.parse().unwrap_or_else(|error| panic!("{entry}: {error}"));
        host.allows(&uri.parse().unwrap_or_else(|error| panic!("{uri}: {error}")))
    }

    #[test]
    fn entry_allows_its_scheme_host_and_port() {
        let cases = [
            ("https://example.com", "https://example.com/any?path", true),
            ("https://example.com", "https://EXAMPLE.com:443/", true),
            ("https://example.com", "https://example.com./", true),
            ("https://example.com", "http://example.com/", false),
            ("https://example.com", "https://example.com:8443/", false),
            ("https://example.com", "https://example.com.evil.test/", false),
            ("https://example.com", "https://evil.test/example.com", false),
            ("https://example.com", "https://example.com@evil.test/", false),
            ("https://example.com", "https://sub.example.com/", false),
            ("https://*.example.com", "https://a.b.example.com/", true),
            ("https://*.example.com", "https://example.com/", false),
            ("https://*.example.com", "https://badexample.com/", false),
            ("http://localhost:8080", "http://localhost:8080/", true),
            ("http://localhost:8080", "http://localhost/", false),
            ("http://example.com:*", "http://example.com:1/", true),
            ("*://example.com:443", "http://example.com:443/", true),
            ("*://example.com:443", "https://example.com/", true),
            ("http://10.0.0.0/8", "http://10.255.0.1/", true),
            ("http://10.0.0.0/8", "http://11.0.0.1/", false),
            ("http://10.0.0.0/8", "http://ten.example.com/", false),
            ("http://127.0.0.1:80", "http://127.0.0.1/", true),
            ("http://[::1]:8080", "http://[::1]:8080/", true),
            ("http://[fd00::/8]", "http://[fd00::1]/", true),
            ("*://*:*", "https://anything.test:5/", true),
        ];
        for (entry, uri, expected) in cases {
            assert_eq!(allows(entry, uri), expected, "{entry} for {uri}");
        }
        assert!(!allows("*://*:*", "/only/a/path"));
    }

    #[test]
    fn invalid_entries_are_rejected_with_reason() {
        let cases = [
            ("example.com", "no scheme"),
            ("ftp://example.com", "scheme is `ftp`"),
            ("*://example.com", "no default port"),
            ("http://example.com:0", "port is `0`"),
            ("http://example.com:http", "port is `http`"),
            ("http://example.com/path", "and no path"),
            ("http://", "host is ``"),
            ("http://a.*.com", "host is `a.*.com`"),
            ("http://user@example.com", "host is `user@example.com`"),
        ];
        for (entry, expected) in cases {
            let error = entry.parse::<OutboundHost>().expect_err(entry);
            assert!(error.contains(expected), "{entry}: {error}");
        }
    }
}
