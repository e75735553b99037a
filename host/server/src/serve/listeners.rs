//! Sources of connections: a port, with or without TLS, an optional Unix socket, and the operator's
//! own port.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use infer_config::ServerConfig;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::peer::Peer;
use super::seats::NoSeat;
use super::socket::{self, SocketFile};
use super::stream::Io;
use super::tls::Tls;

/// All listeners.
pub struct Listeners {
    public: TcpListener,
    pub(super) admin: Option<TcpListener>,
    unix: Option<UnixListener>,
    socket: Option<SocketFile>,
    pub(super) tls: Option<Arc<Tls>>,
}

/// All listeners, detached from a runtime.
pub(super) struct Bound {
    public: std::net::TcpListener,
    admin: Option<std::net::TcpListener>,
    unix: Option<std::os::unix::net::UnixListener>,
    socket: Option<SocketFile>,
    tls: Option<Arc<Tls>>,
}

/// A single port, without TLS.
impl From<TcpListener> for Listeners {
    fn from(public: TcpListener) -> Self {
        Listeners { public, admin: None, unix: None, socket: None, tls: None }
    }
}

impl Listeners {
    /// Binds all configured listeners, and reads the certificate.
    ///
    /// # Errors
    ///
    /// If an address or the socket's path is in use, or the certificate is unusable.
    pub async fn bind(server: &ServerConfig) -> anyhow::Result<Self> {
        let tls = server.tls.as_ref().map(|files| Tls::load(files.clone())).transpose()?.map(Arc::new);
        let public = bind(server.listen, "`listen` under [server], or --listen").await?;
        let admin = match server.admin_listen {
            Some(address) => Some(bind(address, "`admin_listen` under [server]").await?),
            None => None,
        };
        let (unix, socket) = match &server.unix_socket {
            Some(path) => {
                let (unix, socket) = socket::bind(path).await?;
                (Some(unix), Some(socket))
            }
            None => (None, None),
        };
        Ok(Listeners { public, admin, unix, socket, tls })
    }

    /// URL of the public listener.
    ///
    /// # Errors
    ///
    /// If the system does not report the address.
    pub fn url(&self) -> io::Result<String> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{}", self.public.local_addr()?))
    }

    /// Address of the operator's listener, if any.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|admin| admin.local_addr().ok())
    }

    /// The certificate, if any.
    #[must_use]
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    pub(super) fn detach(self) -> io::Result<Bound> {
        Ok(Bound {
            public: self.public.into_std()?,
            admin: self.admin.map(TcpListener::into_std).transpose()?,
            unix: self.unix.map(UnixListener::into_std).transpose()?,
            socket: self.socket,
            tls: self.tls,
        })
    }

    /// Accepts the next connection of any listener.
    pub(super) async fn accept(&self) -> io::Result<Incoming> {
        let admin = async {
            match &self.admin {
                Some(admin) => admin.accept().await,
                None => pending().await,
            }
        };
        let unix = async {
            match &self.unix {
                Some(unix) => unix.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            accepted = self.public.accept() => {
                let (stream, address) = accepted?;
                Ok(Incoming {
                    peer: Peer::Ip(address.ip()),
                    stream: Stream::Tcp(stream),
                    tls: self.tls.clone(),
                    admin: false,
                })
            }
            accepted = admin => {
                let (stream, address) = accepted?;
                Ok(Incoming { peer: Peer::Ip(address.ip()), stream: Stream::Tcp(stream), tls: None, admin: true })
            }
            accepted = unix => {
                let (stream, _) = accepted?;
                Ok(Incoming { peer: Peer::Socket, stream: Stream::Unix(stream), tls: None, admin: false })
            }
        }
    }
}

impl Bound {
    /// Attaches the listeners to the current runtime.
    pub(super) fn attach(self) -> io::Result<Listeners> {
        Ok(Listeners {
            public: TcpListener::from_std(self.public)?,
            admin: self.admin.map(TcpListener::from_std).transpose()?,
            unix: self.unix.map(UnixListener::from_std).transpose()?,
            socket: self.socket,
            tls: self.tls,
        })
    }
}

/// A connection that was just accepted.
pub(super) struct Incoming {
    pub(super) peer: Peer,
    /// True if it belongs to the operator's listener.
    pub(super) admin: bool,
    stream: Stream,
    tls: Option<Arc<Tls>>,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Incoming {
    pub(super) async fn handshake(self) -> io::Result<Box<dyn Io>> {
        Ok(match (self.stream, self.tls) {
            (Stream::Tcp(stream), tls) => {
                // A response is one write; Nagle's algorithm would only delay it.
                stream.set_nodelay(true)?;
                match tls {
                    Some(tls) => Box::new(tls.accept(stream).await?),
                    None => Box::new(stream),
                }
            }
            (Stream::Unix(stream), _) => Box::new(stream),
        })
    }

    /// Rejects the connection with a response, without blocking, and closes it.
    pub(super) fn reject(self, limit: NoSeat) {
        let (Stream::Tcp(stream), None) = (&self.stream, &self.tls) else { return };
        let message = match limit {
            NoSeat::All => "connection limit of the server reached (`connections`); try again after a second",
            NoSeat::Ip => {
                "connection limit of this address reached (`connections_per_ip`); close or reuse connections"
            }
        };
        let body = format!(
            r#"{{"error":{{"message":"{message}","type":"invalid_request_error","param":null,"code":"too_many_connections"}}}}"#
        );
        let response = format!(
            "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
             connection: close\r\n\r\n{body}",
            body.len()
        );
        // Read the bytes that have arrived, otherwise the system resets the connection and the
        // response is lost. Later bytes are not waited for.
        let _ = stream.try_write(response.as_bytes());
        let mut bytes = [0; 4_096];
        for _ in 0..16 {
            if !matches!(stream.try_read(&mut bytes), Ok(read) if read > 0) {
                break;
            }
        }
    }
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind(address).await;
    bound.with_context(|| format!("cannot listen on `{address}`; choose another with {key}"))
}
