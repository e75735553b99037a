use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use infer_config::keys::KeyHash;
use infer_control::registry::Registry;
use reqwest::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::harness::http2::{CANCEL, DATA, END_STREAM, RST_STREAM};
use crate::harness::windows::Client;
use crate::harness::{Server, answer, eventually, guest, load};

/// Generous timeout for a busy machine; only a failing test reaches it.
const LONG: Duration = Duration::from_secs(30);

const MODERATE: &str = "[models.toxic-bilstm]\nsource = \"builtin:toxic-bilstm\"\nsessions = 1\n\
    [components.moderate]\nsource = \"builtin:moderate\"\nroute = \"/moderate\"\n\
    models = { text = \"toxic-bilstm\" }\n";

/// Short client timeouts, and a deadline before the end of most tests.
const SHORT: &str = "header_ms = 1000\nidle_ms = 1000\nsend_ms = 600\ndeadline_ms = 1500\n";

/// Type of a frame that the server ignores.
const PRIORITY: u8 = 2;

/// A route whose answer has some tens of kilobytes.
const LARGE: &str = "/openapi.json";

/// A server with a text classifier and `limits` under `[server]`, and its registry.
async fn limited(limits: &str, more: &str) -> (Server, Arc<Registry>) {
    let registry = Arc::new(load(&format!("[server]\n{limits}\n{more}\n{MODERATE}")));
    (Server::start(registry.clone()).await, registry)
}

async fn judge(server: &Server) -> StatusCode {
    server.moderate(&json!({ "input": "hello" })).await.0
}

/// A `[keys.NAME]` section whose key equals its name.
fn key(name: &str) -> String {
    format!("[keys.{name}]\nhash = \"{}\"\n", KeyHash::of(name))
}

/// A connection from another address of this machine.
async fn connect_from(server: &Server, last: u8) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    socket.connect(server.address().parse().unwrap()).await.unwrap()
}

/// Reads until the server closes the connection or resets it.
async fn rest(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(LONG, connection.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn get(connection: &mut TcpStream, path: &str, more: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n{more}\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length = timeout(LONG, connection.read(&mut answer)).await.expect("it answers").unwrap_or(0);
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A component that streams its answers, on /hh.
fn streaming() -> String {
    format!("[components.hh]\nsource = {:?}\nroute = \"/hh/...\"\n", guest("hostile-http"))
}

#[tokio::test]
async fn streamed_responses_release_their_permits() {
    let limits = format!("{SHORT}instances = 2\nwaiting = 2\n");
    let (server, _) = limited(&limits, &streaming()).await;
    let mut client = Client::connect(&server, 0).await;
    for _ in 0..8 {
        client.get("/hh/slow?1");
    }
    eventually(async || client.received().answered() >= 4).await;
    eventually(async || judge(&server).await == StatusCode::OK).await;
    eventually(async || client.received().is_closed).await;
}

#[tokio::test]
async fn stalled_stream_is_reset_beside_live_ones() {
    let (server, _) = limited(SHORT, "").await;
    let mut client = Client::connect(&server, 0).await;
    let stalled = client.get(LARGE);
    // Others on the same connection are accepted as they arrive.
    eventually(async || {
        let answered = client.received().answered();
        let live = client.get("/healthz");
        client.open_window(live, 100_000);
        let is_reset = || client.received().resets.contains(&stalled);
        eventually(async || client.received().answered() > answered || is_reset()).await;
        is_reset()
    })
    .await;
    assert!(!client.received().is_closed);
}

#[tokio::test]
async fn connection_that_reads_nothing_is_closed() {
    let (server, registry) = limited(SHORT, "").await;
    for path in ["/healthz", LARGE, "/nothing"] {
        let mut client = Client::connect(&server, 0).await;
        client.get(path);
        eventually(async || client.received().is_closed).await;
        assert_eq!((client.received().answered(), client.received().data), (1, 0), "{path}");
    }
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
}

#[tokio::test]
async fn window_opened_by_bytes_is_no_progress() {
    let (server, registry) = limited(SHORT, "").await;
    let mut client = Client::connect(&server, 0).await;
    let stream = client.get(LARGE);
    eventually(async || {
        client.open_window(stream, 1);
        client.received().is_closed || client.received().resets.contains(&stream)
    })
    .await;
    assert!(client.received().data > 0);
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
}

#[tokio::test]
async fn last_bytes_of_a_response_expire() {
    let (server, registry) = limited(SHORT, "").await;
    let mut client = Client::connect(&server, 1).await;
    client.get("/healthz");
    eventually(async || client.received().is_closed).await;
    assert_eq!(client.received().data, 1);
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
}

#[tokio::test]
async fn chat_streams_end_with_their_leases() {
    let tiny = "[models.tiny]\nsource = \"tests/data/language/qwen2-q6_k.gguf\"\nthreads = 1\npacked_cache = false\n";
    let limits = format!("{SHORT}chat_deadline_ms = 1500\n");
    let (server, registry) = limited(&limits, tiny).await;
    let mut client = Client::connect(&server, 0).await;
    let body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Name a colour." }],
        "max_tokens": 64, "stream": true })
    .to_string();
    for _ in 0..4 {
        let stream = client.post("/v1/chat/completions");
        client.send(DATA, END_STREAM, stream, body.as_bytes());
    }
    eventually(async || client.received().answered() == 4).await;
    assert!(registry.sandbox.memory().used_bytes() > 0);
    eventually(async || client.received().is_closed).await;
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
}

#[tokio::test]
async fn http1_stream_ends_at_its_deadline() {
    let limits = format!("{SHORT}instances = 1\nwaiting = 0\n");
    let (server, registry) = limited(&limits, &streaming()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = socket.connect(server.address().parse().unwrap()).await.unwrap();
    client.write_all(b"GET /hh/endless HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    eventually(async || judge(&server).await == StatusCode::OK).await;
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 "));
}

#[tokio::test]
async fn missing_body_takes_no_permit() {
    let limits = "instances = 1\nwaiting = 1\nbody_ms = 60000\ndeadline_ms = 60000\nheader_ms = 60000\n";
    let (server, _) = limited(limits, "").await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut connection = TcpStream::connect(server.address()).await.unwrap();
        let head = b"POST /moderate HTTP/1.1\r\nhost: test\r\ncontent-length: 100\r\n\r\n{\"input\"";
        connection.write_all(head).await.unwrap();
        slow.push(connection);
    }
    let mut half_open = Client::connect(&server, 65_535).await;
    for _ in 0..20 {
        half_open.post("/moderate");
    }
    half_open.get("/healthz");
    eventually(async || half_open.received().ok() == 1).await;
    for _ in 0..10 {
        assert_eq!(judge(&server).await, StatusCode::OK);
    }
}

#[tokio::test]
async fn stalled_body_is_evicted() {
    let limits = "max_body_bytes = 100000\nbody_memory_bytes = 100000\nbody_ms = 60000\ndeadline_ms = 60000\n\
        header_ms = 60000\n";
    let (server, registry) = limited(limits, "").await;
    let mut stalled = TcpStream::connect(server.address()).await.unwrap();
    let head = format!(
        "POST /moderate HTTP/1.1\r\nhost: test\r\ncontent-length: 100000\r\n\r\n{}",
        "x".repeat(90_000)
    );
    stalled.write_all(head.as_bytes()).await.unwrap();
    eventually(async || registry.sandbox.memory().used_bytes() >= 90_000).await;
    let body = json!({ "input": format!("hello{}", " ".repeat(12_000)) });
    eventually(async || server.moderate(&body).await.0 == StatusCode::OK).await;
    assert!(rest(&mut stalled).await.starts_with("HTTP/1.1 408"));
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
}

#[tokio::test]
async fn body_without_progress_is_rejected() {
    let limits = "body_ms = 60000\ndeadline_ms = 60000\nheader_ms = 500\n";
    let (server, registry) = limited(limits, "").await;
    let connection = TcpStream::connect(server.address()).await.unwrap();
    let (mut reading, mut writing) = connection.into_split();
    let dribble = async {
        let head = b"POST /moderate HTTP/1.1\r\nhost: test\r\ncontent-length: 100000\r\n\r\n";
        writing.write_all(head).await.unwrap();
        while writing.write_all(b"x").await.is_ok() {
            // A slow client.
            sleep(Duration::from_millis(50)).await;
        }
    };
    let mut status = [0; 12];
    let read = async { reading.read_exact(&mut status).await.unwrap() };
    timeout(LONG, async {
        tokio::select! { () = dribble => {}, _ = read => {} }
    })
    .await
    .unwrap();
    assert_eq!(std::str::from_utf8(&status).unwrap(), "HTTP/1.1 408");
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
}

#[tokio::test]
async fn connection_without_key_is_evicted_first() {
    let limits = "connections = 4\nconnections_per_ip = 4\nheader_ms = 60000\nidle_ms = 60000\n";
    let (server, _) = limited(limits, &key("alice")).await;
    let bearer = "authorization: Bearer alice\r\n";
    let mut keyed = connect_from(&server, 1).await;
    assert!(get(&mut keyed, "/v1/models", bearer).await.starts_with("HTTP/1.1 200"));
    let mut anonymous = connect_from(&server, 2).await;
    assert!(get(&mut anonymous, "/healthz", "").await.starts_with("HTTP/1.1 200"));
    let mut silent = [connect_from(&server, 3).await, connect_from(&server, 4).await];
    for newcomer in 5..9 {
        let mut newcomer = connect_from(&server, newcomer).await;
        assert!(get(&mut newcomer, "/healthz", "").await.starts_with("HTTP/1.1 200"));
        // The connection stays open, idle like the others.
        tokio::spawn(async move { rest(&mut newcomer).await });
    }
    for silent in &mut silent {
        assert_eq!(rest(silent).await, "");
    }
    assert_eq!(rest(&mut anonymous).await, "");
    assert!(get(&mut keyed, "/v1/models", bearer).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn longest_idle_connection_is_evicted() {
    let limits = "connections = 2\nconnections_per_ip = 2\nheader_ms = 60000\nidle_ms = 60000\n";
    let (server, _) = limited(limits, "").await;
    let mut longest = connect_from(&server, 2).await;
    assert!(get(&mut longest, "/healthz", "").await.starts_with("HTTP/1.1 200"));
    let mut other = connect_from(&server, 3).await;
    assert!(get(&mut other, "/healthz", "").await.starts_with("HTTP/1.1 200"));
    let mut newcomer = connect_from(&server, 4).await;
    assert!(get(&mut newcomer, "/healthz", "").await.starts_with("HTTP/1.1 200"));
    assert_eq!(rest(&mut longest).await, "");
    assert!(get(&mut other, "/healthz", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn unsent_responses_count_as_memory() {
    let limits = "send_ms = 60000\nheader_ms = 60000\nidle_ms = 60000\n";
    let (server, registry) = limited(limits, "").await;
    let memory = registry.sandbox.memory();
    let length = server.get(LARGE).send().await.unwrap().bytes().await.unwrap().len();
    eventually(async || memory.used_bytes() == 0).await;
    let mut client = Client::connect(&server, 0).await;
    for _ in 0..8 {
        client.get(LARGE);
    }
    eventually(async || client.received().answered() == 8).await;
    assert!(memory.used_bytes() >= 8 * length, "{} of {}", memory.used_bytes(), 8 * length);
    memory.set_max_bytes(Some(memory.used_bytes() + length / 2));
    let (status, error) = answer(server.get(LARGE)).await;
    assert_eq!((status, &error["error"]["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("busy")));
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), StatusCode::OK);
    drop(client);
}

#[tokio::test]
async fn repeated_resets_close_the_connection() {
    let (server, _) = limited("", "").await;
    let mut client = Client::connect(&server, 65_535).await;
    eventually(async || {
        for _ in 0..20 {
            let stream = client.post("/moderate");
            // Accepted before the reset, so that the HTTP library's own limit does not count it.
            sleep(Duration::from_millis(2)).await;
            client.send(RST_STREAM, 0, stream, &CANCEL);
        }
        client.received().is_closed
    })
    .await;
    assert_eq!(judge(&server).await, StatusCode::OK);
}

#[tokio::test]
async fn half_open_streams_close_the_connection() {
    let (server, _) = limited("body_ms = 100\nheader_ms = 500\n", "").await;
    let mut client = Client::connect(&server, 65_535).await;
    eventually(async || {
        client.post("/moderate");
        client.received().is_closed
    })
    .await;
    assert_eq!(judge(&server).await, StatusCode::OK);
}

#[tokio::test]
async fn repeated_control_frames_close_the_connection() {
    let (server, _) = limited("", "").await;
    let mut client = Client::connect(&server, 65_535).await;
    client.get("/healthz");
    eventually(async || {
        for _ in 0..10_000 {
            client.send(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]);
        }
        client.received().is_closed
    })
    .await;
    assert_eq!(judge(&server).await, StatusCode::OK);
}

#[tokio::test]
async fn bodiless_responses_wait_for_the_client() {
    let (server, registry) = limited(SHORT, "").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut greedy = socket.connect(server.address().parse().unwrap()).await.unwrap();
    let requests = "HEAD /healthz HTTP/1.1\r\nhost: test\r\n\r\n".repeat(100_000);
    let _ = timeout(LONG, greedy.write_all(requests.as_bytes())).await.expect("it reads, or closes");
    eventually(async || registry.sandbox.memory().used_bytes() == 0).await;
    assert_eq!(judge(&server).await, StatusCode::OK);
}
