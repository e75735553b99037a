use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use infer_config::{Config, Origin};
use infer_server::serve::Listeners;
use reqwest::{Method, StatusCode};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::harness::{Server, eventually, free_address, infer, load};

/// A server with `config` under `[server]`, on free ports, and its admin address.
async fn listening(config: &str) -> (Server, String) {
    let registry = load(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{config}"));
    let listeners = Listeners::bind(&registry.config.server).await.unwrap();
    let admin = listeners.admin_address().map(|address| address.to_string());
    (Server::listen(Arc::new(registry), listeners), admin.unwrap_or_default())
}

/// Sends GET `path` over any connection and returns the status line.
async fn get(mut connection: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// Writes a new certificate for `localhost` and its key into `folder`; returns the certificate, for
/// clients to trust.
fn certify(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

/// Sends GET /healthz as a client that trusts only `certificate`.
async fn get_trusting(server: &Server, certificate: &CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(server.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    get(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, "/healthz").await
}

#[tokio::test]
async fn certificate_is_replaced_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let first = certify(folder.path());
    let tls = format!(
        "tls = {{ certificate = {0:?}, key = {1:?} }}",
        folder.path().join("cert.pem"),
        folder.path().join("key.pem")
    );
    let (server, _) = listening(&tls).await;
    assert_eq!(get_trusting(&server, &first).await.unwrap(), "HTTP/1.1 200 OK");
    // With a key that does not match, the certificate in use stays.
    let original = fs::read(folder.path().join("key.pem")).unwrap();
    fs::write(folder.path().join("key.pem"), "no key").unwrap();
    // Time in which the server looks at the files at least once. A rejected key changes nothing
    // that a client could wait for.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(get_trusting(&server, &first).await.unwrap(), "HTTP/1.1 200 OK");
    fs::write(folder.path().join("key.pem"), original).unwrap();
    let second = certify(folder.path());
    eventually(async || get_trusting(&server, &second).await.is_ok()).await;
    assert!(get_trusting(&server, &first).await.is_err(), "the first is not answered with any more");
    // A client without TLS gets no plain-text answer, and does not affect others.
    let clear = get(TcpStream::connect(server.address()).await.unwrap(), "/healthz").await;
    assert!(!clear.unwrap_or_default().contains("200"));
    assert!(get_trusting(&server, &second).await.is_ok());
}

#[tokio::test]
async fn invalid_certificate_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    certify(folder.path());
    let file = |name: &str| folder.path().join(name);
    fs::write(file("text.pem"), "a text").unwrap();
    let other = tempfile::tempdir().unwrap();
    certify(other.path());
    let cases = [
        (file("text.pem"), file("key.pem"), "has no certificate"),
        (file("cert.pem"), file("text.pem"), "has no private key"),
        (file("cert.pem"), other.path().join("key.pem"), "do not match"),
    ];
    for (certificate, key, words) in cases {
        let tls = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = {certificate:?}, key = {key:?} }}"
        );
        let error = Listeners::bind(&load(&tls).config.server).await.err().expect("it cannot be used");
        assert!(format!("{error:#}").contains(words), "no `{words}` in {error:#}");
    }
}

#[tokio::test]
async fn unix_socket_is_served_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("infer.sock");
    // A stale socket of a server that has stopped.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let config = format!("unix_socket = {path:?}");
    let (mut server, _) = listening(&config).await;
    assert_eq!(get(UnixStream::connect(&path).await.unwrap(), "/healthz").await.unwrap(), "HTTP/1.1 200 OK");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let second = load(&format!("[server]\nlisten = \"127.0.0.1:0\"\n{config}"));
    let error = Listeners::bind(&second.config.server).await.err().expect("it is taken");
    assert!(error.to_string().contains("another server uses it"), "{error}");
    server.stop();
    server.stopped().await.unwrap();
    assert!(!path.exists());
    fs::write(&path, "a file").unwrap();
    let error = Listeners::bind(&second.config.server).await.err().expect("it is a file");
    assert!(error.to_string().contains("is not a socket"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"a file");
}

#[tokio::test]
async fn admin_listener_alone_serves_health() {
    let key = infer_config::keys::KeyHash::of("alice");
    let (server, admin) =
        listening(&format!("admin_listen = \"127.0.0.1:0\"\n[keys.alice]\nhash = \"{key}\"")).await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(server.get(path).send().await.unwrap().status(), StatusCode::NOT_FOUND, "{path}");
    }
    for path in ["/healthz", "/readyz", "/v1/models"] {
        let status = get(TcpStream::connect(&admin).await.unwrap(), path).await.unwrap();
        assert_eq!(status, "HTTP/1.1 200 OK", "{path}");
    }
    let status = get(TcpStream::connect(&admin).await.unwrap(), "/moderate").await.unwrap();
    assert_eq!(status, "HTTP/1.1 404 Not Found");
}

#[tokio::test]
async fn admin_listener_rejects_web_pages() {
    let (server, admin) = listening("admin_listen = \"127.0.0.1:0\"").await;
    let client = reqwest::Client::new();
    let own = format!("http://{admin}");
    let cases: [(&[(&str, &str)], bool); 9] = [
        (&[], true),
        (&[("host", "localhost")], true),
        (&[("host", "[::1]:1")], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("host", "pages.example")], false),
        (&[("host", "localhost.pages.example")], false),
        (&[("origin", "http://pages.example")], false),
        (&[("origin", &own)], false),
        (&[("sec-fetch-site", "cross-site")], false),
    ];
    for (headers, is_answered) in cases {
        for (method, path) in [
            (Method::GET, "/healthz"),
            (Method::GET, "/metrics"),
            (Method::GET, "/admin/state"),
            (Method::GET, "/admin/versions"),
            (Method::GET, "/openapi.json"),
            (Method::POST, "/admin/reload"),
        ] {
            let mut request = client.request(method, format!("{own}{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let status = request.send().await.unwrap().status();
            // The server has no configuration file to reload.
            let expected = match (is_answered, path) {
                (false, _) => StatusCode::FORBIDDEN,
                (true, "/admin/reload") => StatusCode::CONFLICT,
                (true, _) => StatusCode::OK,
            };
            assert_eq!(status, expected, "{path} {headers:?}");
        }
    }
    let page =
        server.get("/v1/models").header("host", "pages.example").header("origin", "http://pages.example");
    assert_eq!(page.send().await.unwrap().status(), StatusCode::OK, "clients are not the operator");
    let public = server.post("/admin/reload").send().await.unwrap();
    assert_eq!(public.status(), StatusCode::NOT_FOUND, "the operator's routes are nowhere else");
}

#[tokio::test]
async fn host_names_resolve_to_listeners() {
    let registry = load("[server]\nlisten = \"localhost:0\"\nadmin_listen = \"LOCALHOST:0\"\n");
    let listeners = Listeners::bind(&registry.config.server).await.unwrap();
    let admin = listeners.admin_address().unwrap();
    assert!(admin.ip().is_loopback());
    let server = Server::listen(Arc::new(registry), listeners);
    assert!(server.address().starts_with("127.0.0.1:"), "{}", server.address());
    let status = get(TcpStream::connect(admin).await.unwrap(), "/healthz").await.unwrap();
    assert_eq!(status, "HTTP/1.1 200 OK");
    let cases = [
        ("listen = \"localhost\"", "`listen` is `localhost`: it has no port; expected an address and a port"),
        ("listen = \"*:8080\"", "`0.0.0.0` or `[::]`"),
        ("listen = \"no-such-name.invalid:1\"", "the name `no-such-name.invalid` cannot be resolved"),
        ("admin_listen = \"8080\"", "`admin_listen` is `8080`: it has no port"),
        ("listen = \"localhost:81\"\nadmin_listen = \"127.0.0.1:81\"", "the same as `listen`"),
        ("listen = \"0.0.0.0:8080\"", "which other machines reach"),
    ];
    for (server, words) in cases {
        let error = Config::parse(&format!("[server]\n{server}"), &Origin::Builtin).unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains(":2: ") | error.contains(":3: "),
            "{server}: {error}"
        );
    }
}

#[test]
fn command_line_accepts_host_names() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("infer.toml"), "").unwrap();
    let refused = |arguments: &[&str]| {
        let output = infer(folder.path()).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = refused(&["serve", "--listen", "localhost"]);
    assert!(code == Some(2) && said.contains("it has no port"), "{code:?} {said}");
    // The host name resolves, and the connection is refused.
    let port = free_address().rsplit_once(':').unwrap().1.to_owned();
    let (code, said) = refused(&["reload", "--admin", &format!("localhost:{port}")]);
    assert!(
        code == Some(1) && said.contains(&format!("no server answers at `127.0.0.1:{port}`")),
        "{code:?} {said}"
    );
}
