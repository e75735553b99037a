//! The server certificate and its reload, on a signal or when its files change.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use std::{fmt, fs, io};

use anyhow::{Context as _, anyhow, ensure};
use infer_config::TlsFiles;
use infer_engine::files;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{error, info};

use crate::limits::MAX_PEM_BYTES;

/// Interval at which the files are checked; certificates are renewed days before they expire.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// A certificate in use.
pub struct Tls {
    acceptor: TlsAcceptor,
    current: Arc<Current>,
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    /// Metadata of the files when they were last read.
    last_read: Mutex<[Option<Fingerprint>; 2]>,
}

/// Metadata that changes when a file is written or replaced: device, inode, size, and its change
/// time in seconds and nanoseconds.
type Fingerprint = (u64, u64, u64, i64, i64);

/// Read in each handshake, written at a reload. Neither blocks while it holds the lock.
struct Current(RwLock<Arc<CertifiedKey>>);

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl Tls {
    /// Reads the certificate and its key.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or do not match.
    pub fn load(files: TlsFiles) -> anyhow::Result<Self> {
        let provider = Arc::new(default_provider());
        let last_read = fingerprints(&files);
        let current = Arc::new(Current(RwLock::new(Arc::new(read(&files, &provider)?))));
        let mut config = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .context("no supported TLS version")?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            acceptor: Arc::new(config).into(),
            current,
            files,
            provider,
            last_read: Mutex::new(last_read),
        })
    }

    /// Reads the files again. Open connections keep their certificate.
    ///
    /// # Errors
    ///
    /// As [`Tls::load`]; the certificate in use then stays.
    pub fn reload(&self) -> anyhow::Result<()> {
        *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) = fingerprints(&self.files);
        let read = Arc::new(read(&self.files, &self.provider)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// Reloads, and logs the result.
    pub fn reload_and_log(&self) {
        match self.reload() {
            Ok(()) => {
                info!(certificate = %self.files.certificate.display(), "certificate reloaded");
            }
            Err(error) => error!("certificate not reloaded, the previous one stays in use: {error:#}"),
        }
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }

    fn has_changed(&self) -> bool {
        *self.last_read.lock().unwrap_or_else(PoisonError::into_inner) != fingerprints(&self.files)
    }
}

/// Reloads whenever the files change, for as long as this is polled. The two files are rarely
/// replaced at the same moment: a pair that does not match is logged, and read again when the
/// second file has changed too.
pub(super) async fn watch(tls: Arc<Tls>) {
    loop {
        sleep(CHECK_INTERVAL).await;
        let tls = tls.clone();
        let check = move || {
            if tls.has_changed() {
                tls.reload_and_log();
            }
        };
        if tokio::task::spawn_blocking(check).await.is_err() {
            return error!("the certificate is no longer watched; send SIGHUP after a change");
        }
    }
}

fn fingerprints(files: &TlsFiles) -> [Option<Fingerprint>; 2] {
    [&files.certificate, &files.key].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.dev(), found.ino(), found.len(), found.ctime(), found.ctime_nsec()))
    })
}

fn read(files: &TlsFiles, provider: &CryptoProvider) -> anyhow::Result<CertifiedKey> {
    let TlsFiles { certificate, key } = files;
    let chain = CertificateDer::pem_slice_iter(&read_file(certificate)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow!("`tls.certificate`: `{}` is damaged: {error}", certificate.display()))?;
    ensure!(
        !chain.is_empty(),
        "`tls.certificate`: `{}` has no certificate; expected PEM, which begins with `-----BEGIN CERTIFICATE-----`",
        certificate.display()
    );
    // The parser's error is dropped, because it must not reveal the contents of the key file.
    let private = PrivateKeyDer::from_pem_slice(&read_file(key)?).map_err(|_| {
        anyhow!(
            "`tls.key`: `{}` has no private key; expected PEM, which begins with `-----BEGIN PRIVATE KEY-----`",
            key.display()
        )
    })?;
    CertifiedKey::from_der(chain, private, provider).with_context(|| {
        format!(
            "`tls.certificate` and `tls.key`: `{}` and `{}` do not match; expected a certificate and its own key",
            certificate.display(),
            key.display()
        )
    })
}

fn read_file(path: &Path) -> anyhow::Result<Vec<u8>> {
    files::read(path, MAX_PEM_BYTES).with_context(|| format!("cannot read `{}`", path.display()))
}
