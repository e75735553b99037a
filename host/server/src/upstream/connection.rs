//! Connections to an upstream: the name is resolved, every address is checked, and the connection
//! goes to one of the checked addresses. No second look-up can replace them (DNS rebinding).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, anyhow, ensure};
use axum::body::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use infer_config::MAX_CA_BYTES;
use infer_config::network;
use infer_config::upstream::{UpstreamConfig, UpstreamHost};
use infer_engine::files;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::fault::Cause;
use crate::abort::Abort;
use crate::limits::{MAX_RESOLUTIONS, MAX_UPSTREAM_ADDRESSES, MAX_UPSTREAM_HEAD_BYTES};

/// Finds the addresses of a name; may block.
pub(super) type Resolver = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Makes connections to one upstream.
pub(super) struct Connector {
    resolver: Resolver,
    /// Bounds the threads that wait for the system's resolver.
    resolving: Arc<Semaphore>,
    tls: Option<Result<TlsConnector, String>>,
}

/// An open connection. Dropping it closes it, and so cancels its request.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    _task: Abort<()>,
    /// Time since which it is idle.
    pub(super) idle: Instant,
}

/// The resolver of the system.
pub(super) fn system_resolver() -> Resolver {
    Arc::new(|name, port| Ok((name, port).to_socket_addrs()?.collect()))
}

impl Connector {
    /// The connector of an upstream. Invalid root certificates fail each connection.
    pub(super) fn new(config: &UpstreamConfig, resolver: Resolver) -> Self {
        let tls =
            config.url.is_tls.then(|| tls(config.roots.as_deref()).map_err(|error| format!("{error:#}")));
        Connector { resolver, resolving: Arc::new(Semaphore::new(MAX_RESOLUTIONS)), tls }
    }

    /// Opens a connection within `connect_ms`, and until `deadline`.
    pub(super) async fn connect(
        &self,
        config: &UpstreamConfig,
        deadline: Instant,
    ) -> Result<Connection, Cause> {
        let limit = config.times.connect;
        let due = Instant::now() + limit;
        let connecting = timeout_at(due.min(deadline).into(), self.open(config, due.min(deadline)));
        connecting.await.unwrap_or(Err(if due < deadline {
            Cause::ConnectTimeout(limit)
        } else {
            Cause::Deadline
        }))
    }

    async fn open(&self, config: &UpstreamConfig, due: Instant) -> Result<Connection, Cause> {
        let tls = match &self.tls {
            None => None,
            Some(Ok(tls)) => Some(tls),
            Some(Err(detail)) => {
                let words = "cannot be verified, because this server has no valid root certificates";
                return Err(Cause::Tls { words, detail: detail.clone() });
            }
        };
        let addresses = self.addresses(config).await?;
        let mut failed = Cause::Unreachable("the name has no address".to_owned());
        for (index, address) in addresses.iter().enumerate() {
            // An address that does not answer leaves time for the next one.
            let left = due.saturating_duration_since(Instant::now());
            let share = left / (addresses.len() - index) as u32;
            match timeout(share, TcpStream::connect(address)).await {
                Err(_) => failed = Cause::ConnectTimeout(config.times.connect),
                // Of the addresses of a name, the one that has a host says most.
                Ok(Err(_)) if matches!(failed, Cause::Refused) => {}
                Ok(Err(error)) => failed = Cause::connecting(&error),
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return match tls {
                        None => handshake(TokioIo::new(stream)).await,
                        Some(tls) => {
                            let stream = tls.connect(server_name(config)?, stream).await;
                            let stream = stream.map_err(|error| Cause::handshake(&error))?;
                            handshake(TokioIo::new(stream)).await
                        }
                    };
                }
            }
        }
        Err(failed)
    }

    /// Resolves the host. Every address must be permitted.
    async fn addresses(&self, config: &UpstreamConfig) -> Result<Vec<SocketAddr>, Cause> {
        let port = config.url.port;
        let mut found = match &config.url.host {
            UpstreamHost::Address(address) => vec![SocketAddr::new(*address, port)],
            // Never asked of a DNS server (RFC 6761, section 6.3).
            UpstreamHost::Name(name) if name == "localhost" => {
                let own = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
                own.map(|address| SocketAddr::new(address, port)).to_vec()
            }
            UpstreamHost::Name(name) => {
                let permit = self.resolving.clone().acquire_owned().await;
                let (resolver, name) = (self.resolver.clone(), name.clone());
                let resolve = move || {
                    let _permit = permit;
                    resolver(&name, port)
                };
                let found = tokio::task::spawn_blocking(resolve).await;
                let found = found.unwrap_or_else(|failure| Err(io::Error::other(failure)));
                found.map_err(|error| Cause::Resolve(error.to_string()))?
            }
        };
        let private = config.permits_private();
        if let Some(words) = found.iter().find_map(|address| network::rejected(address.ip(), private)) {
            return Err(Cause::Address(words));
        }
        found.truncate(MAX_UPSTREAM_ADDRESSES);
        Ok(found)
    }
}

fn server_name(config: &UpstreamConfig) -> Result<ServerName<'static>, Cause> {
    match &config.url.host {
        UpstreamHost::Address(address) => Ok(ServerName::IpAddress((*address).into())),
        UpstreamHost::Name(name) => ServerName::try_from(name.clone()).map_err(|error| Cause::Tls {
            words: "has a host name that no TLS certificate can have",
            detail: error.to_string(),
        }),
    }
}

/// Begins HTTP/1.1 on a stream.
async fn handshake(stream: impl Read + Write + Unpin + Send + 'static) -> Result<Connection, Cause> {
    let mut builder = Builder::new();
    builder.max_buf_size(MAX_UPSTREAM_HEAD_BYTES);
    let (sender, connection) = builder.handshake(stream).await.map_err(|error| Cause::head(&error))?;
    let task = tokio::spawn(async move {
        // Its errors arrive at the request or at the body.
        let _ = connection.await;
    });
    Ok(Connection { sender, _task: Abort(task), idle: Instant::now() })
}

/// The TLS client that trusts the certificates in `roots`, or the system's.
///
/// # Errors
///
/// If there are no valid certificates.
pub(super) fn tls(roots: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut store = RootCertStore::empty();
    match roots {
        Some(path) => {
            let pem = files::read(path, MAX_CA_BYTES)
                .with_context(|| format!("cannot read `{}`", path.display()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let added = certificate
                    .map_err(|error| anyhow!("{error}"))
                    .and_then(|certificate| store.add(certificate).map_err(Into::into));
                added.with_context(|| format!("`{}` has an invalid certificate", path.display()))?;
            }
            ensure!(!store.is_empty(), "`{}` has no certificate", path.display());
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            store.add_parsable_certificates(found.certs);
            let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
            ensure!(
                !store.is_empty(),
                "the system has no root certificates; install them (the package `ca-certificates`), or set `ca_file`; {}",
                errors.join("; ")
            );
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .context("no supported TLS version")?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config).into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use infer_config::{Config, Origin};
    use tokio::net::TcpListener;

    use super::*;

    fn config(url: &str, more: &str) -> UpstreamConfig {
        let text = format!("[upstreams.u]\nurl = \"{url}\"\nmodels = {{ a = \"b\" }}\n{more}");
        Config::parse(&text, &Origin::Builtin).unwrap().upstreams.remove("u").unwrap()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[tokio::test]
    async fn changed_name_does_not_redirect_a_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        // The first look-up is permitted. A second one would lead to the metadata service.
        let looked_up = Arc::new(AtomicUsize::new(0));
        let counter = looked_up.clone();
        let resolver: Resolver = Arc::new(move |_, port| {
            let first = counter.fetch_add(1, Ordering::Relaxed) == 0;
            let address = if first { [127, 0, 0, 1] } else { [169, 254, 169, 254] };
            Ok(vec![(address, port).into()])
        });
        let config = config(&format!("http://llm.example:{port}"), "private_addresses = true");
        let connector = Connector::new(&config, resolver);
        let (connection, accepted) = tokio::join!(connector.connect(&config, soon()), listener.accept());
        assert!(connection.is_ok() && accepted.is_ok());
        assert_eq!(looked_up.load(Ordering::Relaxed), 1);
        let Err(cause) = connector.connect(&config, soon()).await else { panic!("it connected") };
        assert!(matches!(cause, Cause::Address("a link-local address")), "{cause}");
    }

    #[tokio::test]
    async fn forbidden_addresses_are_never_connected_to() {
        let cases: [(&[&str], &str, bool); 7] = [
            (&["127.0.0.1:1"], "", true),
            (&["10.1.2.3:1"], "", true),
            (&["[::ffff:127.0.0.1]:1"], "", true),
            (&["[::1]:1"], "", true),
            // One forbidden address rejects all.
            (&["127.0.0.1:1", "169.254.169.254:1"], "private_addresses = true", true),
            (&["0.0.0.0:1"], "private_addresses = true", true),
            (&["127.0.0.1:1"], "private_addresses = true", false),
        ];
        for (addresses, more, is_rejected) in cases {
            let found: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
            let config = config("https://llm.example/v1", more);
            let connector = Connector::new(&config, Arc::new(move |_, _| Ok(found.clone())));
            let addresses_of = connector.addresses(&config).await;
            assert_eq!(matches!(addresses_of, Err(Cause::Address(_))), is_rejected, "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn literal_addresses_are_permitted_by_the_url() {
        for (url, count) in [("http://127.0.0.1:5", 1), ("http://localhost:5", 2), ("http://10.0.0.1", 1)] {
            let config = config(url, "");
            let resolver: Resolver = Arc::new(|name, _| panic!("`{name}` is looked up"));
            let found = Connector::new(&config, resolver).addresses(&config).await.unwrap();
            assert_eq!(found.len(), count, "{url}");
        }
    }

    #[tokio::test]
    async fn failed_look_ups_are_named() {
        let config = config("https://llm.example/v1", "");
        let resolver: Resolver = Arc::new(|_, _| Err(io::Error::other("no such name")));
        let failed = Connector::new(&config, resolver).connect(&config, soon()).await;
        assert!(matches!(failed.err().unwrap(), Cause::Resolve(detail) if detail == "no such name"));
    }
}
