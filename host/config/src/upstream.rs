//! `[upstreams]`: servers with OpenAI's API, to which requests are forwarded.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Place;
use crate::limits::MAX_HOST_NAME_BYTES;

/// Configuration of an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Its line in the configuration.
    pub at: Place,
    /// Base of its paths.
    pub url: UpstreamUrl,
    /// Source of its API key; `None` if it needs none.
    pub key_source: Option<KeySource>,
    /// Its API key.
    pub key: Option<Secret>,
    /// The upstream's model names by the names that clients send.
    pub models: BTreeMap<String, String>,
    /// PEM file of the root certificates to trust; `None` for those of the system.
    pub roots: Option<PathBuf>,
    /// Permits addresses of this machine and of private networks.
    pub private_addresses: bool,
    /// Maximum times of the steps of a request.
    pub times: UpstreamTimes,
    /// Maximum number of connections, each with one request in flight.
    pub connections: usize,
    /// Retries and circuit breaker.
    pub resilience: Resilience,
    /// Maximum size of a request's body, in bytes.
    pub max_body_bytes: usize,
    /// Maximum size of a response, in bytes.
    pub max_response_bytes: usize,
    /// Maximum size of an event of a stream, in bytes.
    pub max_event_bytes: usize,
    /// Prices of a million tokens: of the request, and of the response.
    pub prices: [Option<f64>; 2],
}

/// Maximum times of the steps of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamTimes {
    /// Until the connection is made: name, TCP, TLS.
    pub connect: Duration,
    /// Until the head of the response has arrived.
    pub first_byte: Duration,
    /// Between two parts of a response.
    pub idle: Duration,
}

/// Retries and circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resilience {
    /// Maximum number of retries of one request.
    pub retries: u32,
    /// Share of the requests that may be retried, in percent.
    pub retry_percent: f64,
    /// Consecutive failures that open the breaker.
    pub breaker_failures: u32,
    /// Time for which it stays open.
    pub breaker_time: Duration,
}

/// Source of an API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// Base URL of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamUrl {
    /// True for `https`.
    pub is_tls: bool,
    /// Its host.
    pub host: UpstreamHost,
    /// Its port.
    pub port: u16,
    /// Base of all paths, without a slash at its end.
    pub path: String,
}

/// Host of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// An address.
    Address(IpAddr),
    /// A name in lower case.
    Name(String),
}

impl UpstreamConfig {
    /// Returns true if both are equal, apart from their lines in the file.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        *self == UpstreamConfig { at: self.at.clone(), ..other.clone() }
    }

    /// Returns true if connections to addresses of this machine and of private networks are
    /// permitted.
    #[must_use]
    pub fn permits_private(&self) -> bool {
        self.private_addresses || self.url.host.is_local()
    }
}

impl Secret {
    /// The secret `text`.
    ///
    /// # Errors
    ///
    /// The reason if `text` cannot be sent in a header: it is empty, or has characters other than
    /// visible ASCII.
    pub fn new(text: &str) -> Result<Self, &'static str> {
        match text {
            "" => Err("is empty"),
            text if text.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret(text.to_owned())),
            _ => Err("has characters other than visible ASCII"),
        }
    }

    /// The text, for the header of a request only.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl UpstreamHost {
    /// True if the configuration itself names an address or this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            UpstreamHost::Address(_) => true,
            UpstreamHost::Name(name) => name == "localhost",
        }
    }
}

impl UpstreamUrl {
    /// Value of the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        let default = if self.is_tls { 443 } else { 80 };
        if self.port == default { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl FromStr for UpstreamUrl {
    type Err = String;

    /// # Errors
    ///
    /// If `text` is not a URL of scheme, host, optional port and path.
    fn from_str(text: &str) -> Result<Self, String> {
        let (is_tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some((scheme, _)) => return Err(format!("its scheme is `{scheme}`, expected `https`")),
            None => return Err("it has no scheme".to_owned()),
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err("it has a user; put the key into `key_file` or `key_env`".to_owned());
        }
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        if !path.bytes().all(is_plain) {
            return Err("its path has characters other than letters, digits and `/-_.~`".to_owned());
        }
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.contains(']')) {
            Some((host, port)) => {
                let port: Option<u16> = port.parse().ok().filter(|port| *port > 0);
                (host, port.ok_or("its port is not a number from 1 to 65535")?)
            }
            None => (authority, if is_tls { 443 } else { 80 }),
        };
        Ok(UpstreamUrl { is_tls, host: host.parse()?, port, path: path.trim_end_matches('/').to_owned() })
    }
}

impl FromStr for UpstreamHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address = address.parse().map(IpAddr::V6);
            return address.map(UpstreamHost::Address).map_err(|_| "its IPv6 address is invalid".to_owned());
        }
        if let Ok(address) = text.parse() {
            return Ok(UpstreamHost::Address(IpAddr::V4(address)));
        }
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        // A resolver reads a last label of digits as a part of an address: `127.1` is 127.0.0.1.
        let is_number = |label: &str| {
            let digits = label.strip_prefix("0x").or(label.strip_prefix("0X"));
            label.bytes().all(|byte| byte.is_ascii_digit())
                || digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        };
        let last = text.rsplit('.').next().unwrap_or_default();
        if text.len() > MAX_HOST_NAME_BYTES || !text.split('.').all(is_label) || is_number(last) {
            return Err("its host is neither a DNS name nor an IP address".to_owned());
        }
        Ok(UpstreamHost::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UpstreamHost::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            UpstreamHost::Address(address) => address.fmt(f),
            UpstreamHost::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Display for UpstreamUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::File(path) => path.display().fmt(f),
            KeySource::Environment(name) => write!(f, "${name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_written() {
        let cases = [
            ("https://llm.example/v1", "https://llm.example/v1"),
            ("https://LLM.example:443/v1/", "https://llm.example/v1"),
            ("http://localhost:8000", "http://localhost:8000"),
            ("http://localhost:80/", "http://localhost"),
            ("http://127.0.0.1:80/v1", "http://127.0.0.1/v1"),
            ("https://[::1]:8443/openai/v1", "https://[::1]:8443/openai/v1"),
            ("https://[::1]", "https://[::1]"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<UpstreamUrl>().unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn invalid_urls_are_rejected_with_reason() {
        let cases = [
            ("llm.example", "no scheme"),
            ("ftp://llm.example", "scheme is `ftp`"),
            ("https://user:key@llm.example/v1", "has a user"),
            ("https://llm.example/v1?key=1", "its path"),
            ("https://llm.example#a", "its path"),
            ("https://llm.example/a b", "its path"),
            ("https://llm.example:0/v1", "its port"),
            ("https://llm.example:x/v1", "its port"),
            ("https:///v1", "its host"),
            ("https://a..b/v1", "its host"),
            ("https://2130706433/v1", "its host"),
            ("https://127.1/v1", "its host"),
            ("https://0x7f.0x1/v1", "its host"),
            ("https://[::1/v1", "its"),
            ("https://[fe80::1%25lo]/v1", "its"),
            ("https://bücher.example/v1", "its host"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<UpstreamUrl>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn secret_is_never_printed() {
        let secret = Secret::new("sk-very-secret").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret");
        assert!(Secret::new("").is_err() && Secret::new("a b").is_err() && Secret::new("a\n").is_err());
    }
}
