use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::harness::{Server, answer, eventually, load, skip};

/// Generous timeout for a busy machine; only a failing test reaches it.
const LONG: Duration = Duration::from_secs(30);

const MODERATE: &str = "[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\nsessions = 1\n\
    [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
    models = { text = \"toxic-bilstm\" }\n";

/// A server with a text classifier and `limits` under `[server]`.
async fn limited(limits: &str) -> Server {
    Server::start(Arc::new(load(&format!("[server]\n{limits}\n{MODERATE}")))).await
}

async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

/// Reads until the server closes the connection or resets it.
async fn rest(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let end = timeout(LONG, connection.read_to_end(&mut bytes)).await.expect("the server closes");
    if let Err(error) = end {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
    String::from_utf8(bytes).unwrap()
}

/// A POST with the content length `length`, of which only `body` is sent.
fn post(length: usize, body: &str) -> Vec<u8> {
    format!("POST /moderate HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

#[tokio::test]
async fn silent_connection_is_closed() {
    let server = limited("header_ms = 200").await;
    assert_eq!(rest(&mut connect(&server).await).await, "");
}

#[tokio::test]
async fn slow_head_times_out() {
    let server = limited("header_ms = 300\nidle_ms = 60000").await;
    let heads = [
        "GET /healthz HTTP/1.1\r\nx-slow: ",
        // The HTTP/2 preface up to the point where the protocol is still undecided.
        "PRI * HTTP/2.0\r\n",
        // A complete request, then a second one that is slow.
        "GET /healthz HTTP/1.1\r\nhost: test\r\n\r\nGET /healthz HTTP/1.1\r\nx-slow: ",
    ];
    for head in heads {
        let connection = connect(&server).await;
        let (mut reading, mut writing) = connection.into_split();
        let dribble = async {
            let start = if head.starts_with("PRI") { "" } else { head };
            writing.write_all(start.as_bytes()).await.unwrap();
            for byte in head.bytes().cycle() {
                let byte = if head.starts_with("PRI") { byte } else { b'x' };
                // A slow client.
                tokio::time::sleep(Duration::from_millis(50)).await;
                if writing.write_all(&[byte]).await.is_err() {
                    return;
                }
            }
        };
        let mut bytes = Vec::new();
        let end = async { reading.read_to_end(&mut bytes).await };
        timeout(LONG, async { tokio::join!(dribble, end) }).await.expect("the server closes").1.ok();
        let answers = String::from_utf8(bytes).unwrap().matches("HTTP/1.1 200").count();
        assert_eq!(answers, head.matches("host: test").count(), "{head}");
    }
}

#[tokio::test]
async fn only_idle_connections_are_closed() {
    let server = limited("idle_ms = 2000").await;
    let mut idle = connect(&server).await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut used = connect(&server).await;
    let mut answer = [0; 4_096];
    for _ in 0..12 {
        used.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        assert!(used.read(&mut answer).await.unwrap() > 0);
        // Shorter than `idle_ms`, 3 s in all.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    let answer = rest(&mut idle).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
}

#[tokio::test]
async fn oversized_head_is_rejected() {
    let server = limited("max_header_bytes = 8192").await;
    let mut connection = connect(&server).await;
    let head = format!("GET /healthz HTTP/1.1\r\nhost: test\r\nx-long: {}\r\n\r\n", "x".repeat(1 << 20));
    let _ = connection.write_all(head.as_bytes()).await;
    let answer = rest(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn oversized_body_is_rejected_before_it_arrives() {
    let server = limited("max_body_bytes = 1000").await;
    let mut connection = connect(&server).await;
    connection.write_all(&post(1_000_000_000, "")).await.unwrap();
    let answer = rest(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(answer.contains("larger than 1000 bytes"), "{answer}");
}

#[tokio::test]
async fn endless_body_is_rejected_at_the_limit() {
    let server = limited("max_body_bytes = 100000").await;
    let (mut reading, mut writing) = connect(&server).await.into_split();
    let send = async {
        let head = "POST /moderate HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
        writing.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("3e8\r\n{}\r\n", "x".repeat(1_000));
        while writing.write_all(chunk.as_bytes()).await.is_ok() {}
    };
    let mut status = [0; 12];
    // The client sends until the server closes; the answer arrives before that.
    let both = async { tokio::join!(send, reading.read_exact(&mut status)).1 };
    timeout(LONG, both).await.expect("the server closes").unwrap();
    assert_eq!(std::str::from_utf8(&status).unwrap(), "HTTP/1.1 413");
}

#[tokio::test]
async fn bodies_stay_within_their_memory() {
    let server =
        limited("max_body_bytes = 1000\nbody_memory_bytes = 1000\nbody_ms = 60000\ndeadline_ms = 60000")
            .await;
    let text = json!({ "input": "a".repeat(900) }).to_string();
    let (sent, remainder) = text.split_at(850);
    let mut half = connect(&server).await;
    half.write_all(&post(text.len(), sent)).await.unwrap();
    let body = json!({ "input": "b".repeat(200) });
    let other = || server.moderate(&body);
    eventually(async || other().await.0 == StatusCode::TOO_MANY_REQUESTS).await;
    half.write_all(remainder.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    half.read_exact(&mut status).await.unwrap();
    assert_eq!(std::str::from_utf8(&status).unwrap(), "HTTP/1.1 200");
    eventually(async || other().await.0 == StatusCode::OK).await;
}

#[tokio::test]
async fn connections_per_address_are_limited() {
    let server = limited("connections_per_ip = 2\nheader_ms = 60000").await;
    eventually(async || {
        // The server keeps them until it has first read from them, which may come before the third.
        let _open = [connect(&server).await, connect(&server).await];
        let mut third = connect(&server).await;
        let answer = rest_of_get(&mut third).await;
        answer.starts_with("HTTP/1.1 429")
            && answer.contains("too_many_connections")
            && answer.contains("\r\nretry-after: 1\r\n")
    })
    .await;
    eventually(async || rest_of_get(&mut connect(&server).await).await.starts_with("HTTP/1.1 200")).await;
}

async fn rest_of_get(connection: &mut TcpStream) -> String {
    let _ = connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await;
    rest(connection).await
}

#[tokio::test]
async fn two_thousand_idle_connections_are_survived() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: files.maximum, ..files },
    )
    .unwrap();
    if files.maximum.is_some_and(|max| max < 6_000) {
        return skip("this process may have fewer than 6,000 files open");
    }
    let server = limited("connections = 300\nconnections_per_ip = 300\nheader_ms = 2000").await;
    let mut idle = Vec::new();
    for _ in 0..2_000 {
        idle.push(connect(&server).await);
    }
    // Each is closed: it was evicted for a later one, timed out, or was turned away. How many of
    // each depends on timing.
    for connection in &mut idle {
        let rest = rest(connection).await;
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 429"), "{rest}");
    }
    assert_eq!(server.moderate(&json!({ "input": "hello" })).await.0, StatusCode::OK);
}

#[tokio::test]
async fn client_that_reads_nothing_is_disconnected() {
    // A limit of one connection: others are rejected while it lasts.
    let server = limited("connections = 1\nsend_ms = 300\nidle_ms = 60000").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut greedy = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let requests = "GET /v1/models HTTP/1.1\r\nhost: test\r\n\r\n".repeat(20_000);
    let asked = timeout(LONG, greedy.write_all(requests.as_bytes()));
    let _ = asked.await.expect("the server continues to read, or closes");
    eventually(async || {
        let mut next = connect(&server).await;
        rest_of_get(&mut next).await.starts_with("HTTP/1.1 200")
    })
    .await;
}

#[tokio::test]
async fn early_answer_reaches_a_sending_client() {
    let server = limited("max_body_bytes = 1000").await;
    let body = vec![b'x'; 300_000];
    for _ in 0..20 {
        let request = server.post("/moderate").body(body.clone());
        assert_eq!(answer(request).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn connection_survives_rejection_of_a_received_body() {
    let server = limited("").await;
    let mut connection = connect(&server).await;
    for path in ["/nothing", "/healthz", "/nothing"] {
        let body = "x".repeat(2_000);
        let request = format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: 2000\r\n\r\n{body}");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4_096];
        let length = connection.read(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer[..length].to_vec()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 40") && !answer.contains("connection: close"), "{answer}");
    }
    connection
        .write_all(b"POST /nothing HTTP/1.1\r\nhost: test\r\ncontent-length: 2000\r\n\r\n")
        .await
        .unwrap();
    let answer = rest(&mut connection).await;
    assert!(answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn invalid_requests_get_errors_only() {
    let server = limited("").await;
    let deep = "[".repeat(50_000);
    let cases: [(&[u8], StatusCode); 4] = [
        (b"{\"input\": \"\xff\xfe\"}", StatusCode::BAD_REQUEST),
        (deep.as_bytes(), StatusCode::BAD_REQUEST),
        (b"\0\0\0\0", StatusCode::BAD_REQUEST),
        (b"", StatusCode::BAD_REQUEST),
    ];
    for (body, status) in cases {
        let (found, error) = answer(server.post("/moderate").body(body.to_vec())).await;
        assert_eq!(found, status, "{error}");
        assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
    }
    for bytes in [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n"] {
        let mut connection = connect(&server).await;
        connection.write_all(bytes).await.unwrap();
        let answer = rest(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 400") || answer.is_empty(), "{answer}");
    }
    assert_eq!(server.moderate(&json!({ "input": "hello" })).await.0, StatusCode::OK);
}

/// The status code of the answer to `request`, over its own connection.
async fn status_of(address: &str, request: &str) -> String {
    let mut connection = TcpStream::connect(address).await.unwrap();
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    String::from_utf8_lossy(&status[9..]).into_owned()
}

#[tokio::test]
async fn request_names_exactly_one_valid_host() {
    let server = Server::builtin().await;
    let long = "x".repeat(20_000);
    for (target, hosts, expected) in [
        ("/healthz", &["test"][..], "200"),
        ("/healthz", &["test:8080"], "200"),
        ("http://test/healthz", &["test"], "200"),
        ("/healthz", &[], "400"),
        ("/healthz", &["a", "b"], "400"),
        ("/healthz", &["a", "a"], "400"),
        ("/healthz", &[""], "400"),
        ("/healthz", &["a b"], "400"),
        ("/healthz", &["user@a"], "400"),
        ("/healthz", &["a:port"], "400"),
        ("/healthz", &["localhost:+80"], "400"),
        ("/healthz", &[".."], "400"),
        ("/healthz", &["-"], "400"),
        ("/healthz", &["a,b"], "400"),
        ("/healthz", &["[::1%25lo]"], "400"),
        ("/healthz", &[&long], "400"),
        ("http://test/healthz", &["other"], "400"),
        ("/nothing", &["a", "b"], "400"),
        ("/moderate", &["a", "b"], "400"),
    ] {
        let hosts: String = hosts.iter().map(|host| format!("host: {host}\r\n")).collect();
        let request = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(status_of(server.address(), &request).await, expected, "{target} {hosts:.60}");
    }
    assert_eq!(status_of(server.address(), "GET /healthz HTTP/1.0\r\n\r\n").await, "200");
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_501() {
    let server = Server::builtin().await;
    for (codings, expected) in [("chunked", "405"), ("gzip, chunked", "501"), ("chunked, chunked", "501")] {
        let head = format!("GET /moderate HTTP/1.1\r\nhost: test\r\ntransfer-encoding: {codings}\r\n");
        let request = format!("{head}\r\n0\r\n\r\n");
        assert_eq!(status_of(server.address(), &request).await, expected, "{codings}");
    }
}

#[tokio::test]
async fn http2_host_agrees_with_its_authority() {
    let server = Server::builtin().await;
    for (host, expected) in [(None, 200), (Some("test"), 200), (Some("other"), 400)] {
        let stream = TcpStream::connect(server.address()).await.unwrap();
        let executor = hyper_util::rt::TokioExecutor::new();
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        tokio::spawn(connection);
        let mut request = hyper::Request::get("http://test/healthz");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), expected, "{host:?}");
    }
}
