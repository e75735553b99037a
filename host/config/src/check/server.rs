//! Checks listeners, limits and keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;

use infer_engine::text::{QUOTE_BYTES, excerpt};
use toml::Spanned;

use super::number::Number;
use super::{Checker, one_of};
use crate::address::Address;
use crate::config::ComponentConfig;
use crate::key::Entry;
use crate::keys::KeyHash;
use crate::limits::MAX_KEYS;
use crate::place::Place;
use crate::server::{ANY_ORIGIN, ConnectionLimits, KeyConfig, MemoryContract, Rate, ServerConfig, TlsFiles};
use crate::table;

/// Returns true for an origin in the serialisation of RFC 6454; origins are compared byte by byte.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let default_port = match scheme {
        "http" => 80,
        "https" => 443,
        // Extensions and apps have other schemes, without a default port.
        _ => 0,
    };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_lowercase())
        && scheme.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !rest.ends_with(']') => (host, port.parse::<u16>().ok().map(Some)),
        _ => (rest, Some(None)),
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match address {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
            !host.is_empty() && host.bytes().all(is_plain)
        }
    };
    // A browser omits the default port.
    is_scheme && is_host && port.is_some_and(|port| port != Some(default_port))
}

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn server(
        &mut self,
        section: &table::Server,
        keyless: bool,
        components: &BTreeMap<String, ComponentConfig>,
    ) -> ServerConfig {
        let path = |path: &Spanned<PathBuf>| self.base.join(path.get_ref());
        let tls = section
            .tls
            .as_ref()
            .map(|tls| TlsFiles { certificate: path(&tls.certificate), key: path(&tls.key) });
        let unix_socket = section.unix_socket.as_ref().map(path);
        for entry in section.tls.iter().flat_map(|tls| [tls.certificate(), tls.key()]) {
            let path = self.base.join(entry.value.get_ref());
            if !path.is_file() {
                let message = format!(
                    "`tls.{}` is `{}`, which is not a file; expected a PEM file, with its path from the \
                     configuration's folder",
                    entry.key.name,
                    path.display()
                );
                self.mistake(entry.value.span().start, message);
            }
        }
        let deadline = self.duration("", section.deadline_ms());
        let chat_deadline = self.duration("", section.chat_deadline_ms());
        let max_body_bytes = self.number("", section.max_body_bytes()) as usize;
        let listen = self.address(&section.listen());
        let admin_listen = self.address(&section.admin_listen());
        let chosen =
            |address: &Option<(usize, Address)>| address.as_ref().map(|(_, address)| address.chosen());
        let server = ServerConfig {
            // An invalid address is a mistake, so its replacement is never used.
            listen: chosen(&listen).unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            admin_listen: chosen(&admin_listen),
            unix_socket,
            trusted_network: section.trusted_network().flag(),
            tls,
            connections: self.connections(section),
            rate_per_ip: self.rate("", section.rate_per_ip(), section.burst_per_ip()),
            deadline,
            chat_deadline,
            body_time: self.duration_or("", section.body_ms(), deadline),
            max_body_bytes,
            body_memory_bytes: self.body_memory(section.body_memory_bytes(), max_body_bytes as u64),
            memory: self.optional("", section.memory_bytes()).zip(section.memory_bytes.as_ref()).map(
                |(bytes, entry)| MemoryContract {
                    bytes: bytes as usize,
                    at: (self.place)(entry.span().start),
                },
            ),
            max_inputs: self.number("", section.max_inputs()) as usize,
            aliases: self.aliases(section, components),
            cors_origins: self.origins(section.cors_origins.as_deref().unwrap_or_default()),
            queue_time: self.duration_or("", section.queue_ms(), deadline / 20),
            drain: self.duration("", section.drain_ms()),
            watch: section.watch().flag(),
        };
        self.addresses([listen, admin_listen], &server, keyless);
        server
    }

    /// Returns the memory of request bodies, in which the largest body fits.
    fn body_memory(&mut self, entry: Number, max_body_bytes: u64) -> usize {
        let default = entry.key.number().max(max_body_bytes);
        let max = entry.key.range().map_or(u64::MAX, |range| *range.end());
        self.within("", entry, max_body_bytes..=max).unwrap_or(default) as usize
    }

    /// Checks that origins are written as browsers send them.
    fn origins(&mut self, origins: &[Spanned<String>]) -> Vec<String> {
        for origin in origins {
            let text = origin.get_ref();
            if text != ANY_ORIGIN && !is_origin(text) {
                let message = format!(
                    "`cors_origins`: `{}` is not an origin; expected a scheme and a host in lower case, such as \
                     `https://example.com` or `http://localhost:3000`, without a path, or `*` for every origin",
                    excerpt(text, QUOTE_BYTES)
                );
                self.mistake(origin.span().start, message);
            }
        }
        origins.iter().map(|origin| origin.get_ref().clone()).collect()
    }

    fn aliases(
        &mut self,
        section: &table::Server,
        components: &BTreeMap<String, ComponentConfig>,
    ) -> BTreeMap<String, String> {
        let aliases = section.aliases.iter().flatten();
        for (alias, component) in aliases.clone() {
            if !components.contains_key(component.get_ref()) {
                let message = format!(
                    "alias `{alias}`: component `{}` is not configured; expected {}",
                    component.get_ref(),
                    one_of(components.keys())
                );
                self.mistake(component.span().start, message);
            } else if components.contains_key(alias) {
                let message = format!("alias `{alias}` is a component's name; expected another name");
                self.mistake(component.span().start, message);
            }
        }
        aliases.map(|(alias, component)| (alias.clone(), component.get_ref().clone())).collect()
    }

    /// Parses the address, or the default of its key. Returns it with its offset in the file.
    fn address(&mut self, entry: &Entry<'_, Option<Spanned<String>>>) -> Option<(usize, Address)> {
        let text = entry.text();
        if text.is_empty() && entry.value.is_none() {
            return None;
        }
        let at = entry.value.as_ref().map_or(0, |value| value.span().start);
        match text.parse() {
            Ok(address) => Some((at, address)),
            Err(error) => {
                self.mistake(at, format!("`{}` is `{text}`: {error}", entry.key.name));
                None
            }
        }
    }

    /// Rejects listeners that other machines reach without a key; `admin_listen` never requires
    /// one.
    fn addresses(
        &mut self,
        [listen, admin]: [Option<(usize, Address)>; 2],
        server: &ServerConfig,
        keyless: bool,
    ) {
        if let Some((at, address)) = listen
            && let Err(problem) = server.check_access(&address, keyless)
        {
            self.mistake(at, format!("`listen` {problem}"));
        }
        let Some((at, address)) = admin else { return };
        if let Some(exposed) = server.exposed(&address) {
            let message = format!(
                "`admin_listen` is `{exposed}`, which other machines reach, and this listener requires no API key; \
                 expected a loopback address, or `trusted_network = true` under [server]"
            );
            self.mistake(at, message);
        }
        if address.chosen() == server.listen && server.listen.port() != 0 {
            let message =
                format!("`admin_listen` is `{}`, the same as `listen`; expected another port", server.listen);
            self.mistake(at, message);
        }
    }

    fn connections(&mut self, section: &table::Server) -> ConnectionLimits {
        let max_connections = self.number("", section.connections());
        let per_ip = section.connections_per_ip();
        let default_per_ip = per_ip.key.number().min(max_connections);
        ConnectionLimits {
            max_connections: max_connections as usize,
            max_per_ip: self.number_or("", per_ip, default_per_ip) as usize,
            max_header_bytes: self.number("", section.max_header_bytes()) as usize,
            header_time: self.duration("", section.header_ms()),
            idle_time: self.duration("", section.idle_ms()),
            send_time: self.duration("", section.send_ms()),
        }
    }

    /// Returns a token bucket if a rate is configured; without `burst` it holds one second's
    /// requests.
    fn rate(&mut self, subject: &str, rate: Number, burst: Number) -> Option<Rate> {
        let rate_key = rate.key.name;
        let per_second = self.optional(subject, rate).unwrap_or(0) as u32;
        let Some(per_second) = NonZeroU32::new(per_second) else {
            if let Some(value) = burst.value {
                let message = format!(
                    "{subject}`{}` requires `{rate_key}`, the requests per second after the burst",
                    burst.key.name
                );
                self.mistake(value.span().start, message);
            }
            return None;
        };
        let burst = self.number_or(subject, burst, u64::from(per_second.get()));
        Some(Rate { per_second, burst: NonZeroU32::new(burst as u32).unwrap_or(per_second) })
    }

    pub(super) fn keys(
        &mut self,
        sections: &BTreeMap<String, table::ApiKey>,
        models: &BTreeMap<String, ()>,
        components: &BTreeMap<String, ComponentConfig>,
    ) -> BTreeMap<String, KeyConfig> {
        let mut keys: BTreeMap<String, KeyConfig> = BTreeMap::new();
        for (name, key) in sections {
            let subject = format!("key `{name}`");
            let at = key.hash.span().start;
            let Ok(hash) = key.hash.get_ref().parse::<KeyHash>() else {
                // The value may be a key itself, so the message does not repeat it.
                let message = format!(
                    "{subject}: `hash` has {} characters, expected `sha256:` and 64 hexadecimal digits, as \
                     `infer key new` prints it",
                    key.hash.get_ref().chars().count()
                );
                self.mistake(at, message);
                continue;
            };
            if let Some((other, _)) = keys.iter().find(|(_, other)| other.hash == hash) {
                let message = format!("{subject} has the same hash as key `{other}`; expected another key");
                self.mistake(at, message);
            }
            if keys.len() == MAX_KEYS {
                self.mistake(at, format!("{subject}: expected at most {MAX_KEYS} keys"));
                break;
            }
            let prefix = format!("{subject}: ");
            let key = KeyConfig {
                hash,
                components: self.listed(&subject, "component", key.components.as_deref(), components),
                models: self.listed(&subject, "model", key.models.as_deref(), models),
                rate: self.rate(&prefix, key.rate(), key.burst()),
                concurrency: self.optional(&prefix, key.concurrency()).map(|limit| limit as usize),
            };
            keys.insert(name.clone(), key);
        }
        keys
    }

    /// Checks that the names of a list are configured.
    fn listed<T>(
        &mut self,
        subject: &str,
        kind: &str,
        names: Option<&[Spanned<String>]>,
        known: &BTreeMap<String, T>,
    ) -> Option<BTreeSet<String>> {
        let names = names?;
        for name in names.iter().filter(|name| !known.contains_key(name.get_ref())) {
            let message = format!(
                "{subject}: {kind} `{}` is not configured; expected {}",
                name.get_ref(),
                one_of(known.keys())
            );
            self.mistake(name.span().start, message);
        }
        Some(names.iter().map(|name| name.get_ref().clone()).collect())
    }
}
