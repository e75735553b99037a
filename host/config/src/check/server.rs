//! Checks listeners, limits and keys.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use infer_engine::text::{QUOTE_BYTES, excerpt};
use toml::Spanned;

use super::{Checker, one_of};
use crate::address::Address;
use crate::config::{ComponentConfig, ModelConfig};
use crate::file;
use crate::keys::KeyHash;
use crate::place::Place;
use crate::server::{ANY_ORIGIN, ConnectionLimits, KeyConfig, MemoryContract, Rate, ServerConfig, TlsFiles};

/// Limit on keys, because every request's key is compared with all of them.
const MAX_KEYS: usize = 1_000;

/// Returns true for an origin in the serialisation of RFC 6454; origins are compared byte by byte.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let usual = match scheme {
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
            let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_');
            !host.is_empty() && host.bytes().all(plain)
        }
    };
    // A browser omits the default port.
    is_scheme && is_host && port.is_some_and(|port| port != Some(usual))
}

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn server(
        &mut self,
        typed: &file::Server,
        keyless: bool,
        components: &BTreeMap<String, ComponentConfig>,
    ) -> ServerConfig {
        let path = |path: &PathBuf| self.base.join(path);
        let tls = typed.tls.as_ref().map(|tls| TlsFiles {
            certificate: path(tls.certificate.get_ref()),
            key: path(tls.key.get_ref()),
        });
        let unix_socket = typed.unix_socket.as_ref().map(path);
        for (subject, file) in
            typed.tls.iter().flat_map(|tls| [("certificate", &tls.certificate), ("key", &tls.key)])
        {
            let path = self.base.join(file.get_ref());
            if !path.is_file() {
                let message = format!(
                    "`tls.{subject}` is `{}`, which is no file; expected a PEM file, by its path from the configuration's folder",
                    path.display()
                );
                self.mistake(file.span().start, message);
            }
        }
        let deadline = self.duration("", "deadline_ms", &typed.deadline_ms, Duration::from_secs(5));
        let chat_deadline =
            self.duration("", "chat_deadline_ms", &typed.chat_deadline_ms, Duration::from_secs(120));
        let max_body_bytes = self.size("", "max_body_bytes", &typed.max_body_bytes, 10 << 20, 1..=1 << 30);
        let listen = self.address("listen", typed.listen.as_ref());
        let admin_listen = self.address("admin_listen", typed.admin_listen.as_ref());
        let server = ServerConfig {
            listen: listen
                .as_ref()
                .map_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)), |(_, address)| address.chosen()),
            admin_listen: admin_listen.as_ref().map(|(_, address)| address.chosen()),
            unix_socket,
            trusted_network: typed.trusted_network.unwrap_or(false),
            tls,
            connections: self.connections(typed),
            rate_per_ip: self.rate(
                "",
                ("rate_per_ip", &typed.rate_per_ip),
                ("burst_per_ip", &typed.burst_per_ip),
            ),
            deadline,
            chat_deadline,
            body_time: self.duration("", "body_ms", &typed.body_ms, deadline),
            max_body_bytes,
            body_memory_bytes: self.size(
                "",
                "body_memory_bytes",
                &typed.body_memory_bytes,
                max_body_bytes.max(128 << 20),
                max_body_bytes as u64..=1 << 40,
            ),
            memory: typed.memory_bytes.as_ref().map(|at| MemoryContract {
                bytes: self.size("", "memory_bytes", &typed.memory_bytes, 0, 32 << 20..=1 << 44),
                at: (self.place)(at.span().start),
            }),
            max_inputs: self.size("", "max_inputs", &typed.max_inputs, 128, 1..=65_536),
            aliases: self.aliases(&typed.aliases, components),
            cors_origins: self.origins(&typed.cors_origins),
            queue_time: self.duration("", "queue_ms", &typed.queue_ms, deadline / 20),
            drain: self.duration("", "drain_ms", &typed.drain_ms, Duration::from_secs(10)),
            watch: typed.watch.unwrap_or(false),
        };
        self.addresses([listen, admin_listen], &server, keyless);
        server
    }

    /// Checks that origins are written as browsers send them.
    fn origins(&mut self, typed: &[Spanned<String>]) -> Vec<String> {
        for origin in typed {
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
        typed.iter().map(|origin| origin.get_ref().clone()).collect()
    }

    fn aliases(
        &mut self,
        typed: &BTreeMap<String, Spanned<String>>,
        components: &BTreeMap<String, ComponentConfig>,
    ) -> BTreeMap<String, String> {
        for (alias, component) in typed {
            if !components.contains_key(component.get_ref()) {
                let message = format!(
                    "alias `{alias}`: component `{}` is not configured; expected {}",
                    component.get_ref(),
                    one_of(components.keys())
                );
                self.mistake(component.span().start, message);
            } else if components.contains_key(alias) {
                let message = format!("alias `{alias}` is a component's name; expected another");
                self.mistake(component.span().start, message);
            }
        }
        typed.iter().map(|(alias, component)| (alias.clone(), component.get_ref().clone())).collect()
    }

    /// Parses the address at `key`; returns it with its offset in the file.
    fn address(&mut self, key: &str, typed: Option<&Spanned<String>>) -> Option<(usize, Address)> {
        let typed = typed?;
        let at = typed.span().start;
        match typed.get_ref().parse() {
            Ok(address) => Some((at, address)),
            Err(error) => {
                self.mistake(at, format!("`{key}` is `{}`: {error}", typed.get_ref()));
                None
            }
        }
    }

    /// Rejects listeners that other machines reach without a key; `admin_listen` never asks for
    /// one.
    fn addresses(
        &mut self,
        [listen, admin]: [Option<(usize, Address)>; 2],
        server: &ServerConfig,
        keyless: bool,
    ) {
        if let Some((at, address)) = listen
            && let Err(why) = server.admits(&address, keyless)
        {
            self.mistake(at, format!("`listen` {why}"));
        }
        let Some((at, address)) = admin else { return };
        if let Some(reached) = server.reached(&address) {
            let message = format!(
                "`admin_listen` is `{reached}`, which other machines reach, and nobody is asked for a key there; expected \
                 a loopback address, or `trusted_network = true` under [server]"
            );
            self.mistake(at, message);
        }
        if address.chosen() == server.listen && server.listen.port() != 0 {
            let message =
                format!("`admin_listen` is `{}`, as `listen` is; expected another port", server.listen);
            self.mistake(at, message);
        }
    }

    fn connections(&mut self, typed: &file::Server) -> ConnectionLimits {
        let most = self.size("", "connections", &typed.connections, 1_024, 1..=1_000_000);
        let seconds = Duration::from_secs;
        ConnectionLimits {
            most,
            most_per_ip: self.size(
                "",
                "connections_per_ip",
                &typed.connections_per_ip,
                most.min(256),
                1..=1_000_000,
            ),
            // hyper's read buffer has at least 8 KiB.
            header_bytes: self.size(
                "",
                "max_header_bytes",
                &typed.max_header_bytes,
                32 << 10,
                8 << 10..=1 << 20,
            ),
            header_time: self.duration("", "header_ms", &typed.header_ms, seconds(10)),
            idle_time: self.duration("", "idle_ms", &typed.idle_ms, seconds(60)),
            send_time: self.duration("", "send_ms", &typed.send_ms, seconds(10)),
        }
    }

    /// Returns a token bucket if a rate is configured; without `burst` it holds one second's
    /// requests.
    fn rate(
        &mut self,
        subject: &str,
        (rate_key, rate): (&str, &file::Number),
        (burst_key, burst): (&str, &file::Number),
    ) -> Option<Rate> {
        let most = 1_000_000;
        let per_second = NonZeroU32::new(self.number(subject, rate_key, rate, 0, 1..=most) as u32);
        let Some(per_second) = per_second else {
            if let Some(burst) = burst {
                let message =
                    format!("{subject}`{burst_key}` needs `{rate_key}` beside it: how often, after that");
                self.mistake(burst.span().start, message);
            }
            return None;
        };
        let burst = self.number(subject, burst_key, burst, u64::from(per_second.get()), 1..=most);
        Some(Rate { per_second, burst: NonZeroU32::new(burst as u32).unwrap_or(per_second) })
    }

    pub(super) fn keys(
        &mut self,
        typed: &BTreeMap<String, file::Key>,
        models: &BTreeMap<String, ModelConfig>,
        components: &BTreeMap<String, ComponentConfig>,
    ) -> BTreeMap<String, KeyConfig> {
        let mut keys: BTreeMap<String, KeyConfig> = BTreeMap::new();
        for (name, key) in typed {
            let subject = format!("key `{name}`");
            let at = key.hash.span().start;
            let Ok(hash) = key.hash.get_ref().parse::<KeyHash>() else {
                // The value may be a key itself, so the message does not repeat it.
                let message = format!(
                    "{subject}: `hash` is of {} characters, expected `sha256:` and 64 hexadecimal digits, as \
                     `infer key new` prints it",
                    key.hash.get_ref().chars().count()
                );
                self.mistake(at, message);
                continue;
            };
            if let Some((other, _)) = keys.iter().find(|(_, other)| other.hash == hash) {
                self.mistake(
                    at,
                    format!("{subject}: its hash is the key `{other}`'s; expected one of its own"),
                );
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
                rate: self.rate(&prefix, ("rate", &key.rate), ("burst", &key.burst)),
                concurrency: self.optional(&prefix, "concurrency", &key.concurrency, 1..=65_536),
            };
            keys.insert(name.clone(), key);
        }
        keys
    }

    fn listed<T>(
        &mut self,
        subject: &str,
        kind: &str,
        typed: Option<&[Spanned<String>]>,
        known: &BTreeMap<String, T>,
    ) -> Option<BTreeSet<String>> {
        let typed = typed?;
        for name in typed.iter().filter(|name| !known.contains_key(name.get_ref())) {
            let message = format!(
                "{subject}: {kind} `{}` is not configured; expected {}",
                name.get_ref(),
                one_of(known.keys())
            );
            self.mistake(name.span().start, message);
        }
        Some(typed.iter().map(|name| name.get_ref().clone()).collect())
    }
}
