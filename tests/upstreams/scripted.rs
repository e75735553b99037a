//! A server that answers with fixed bytes, whatever it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::harness::eventually;

/// The answer to one request.
#[derive(Clone)]
pub(super) enum Reply {
    /// Sends the bytes, and waits for the next request.
    Keep(Vec<u8>),
    /// Sends the bytes, and closes the connection.
    Close(Vec<u8>),
    /// Sends the bytes, and then nothing until the client closes the connection.
    Hang(Vec<u8>),
    /// Sends the bytes, and then the part again and again until the client closes the connection.
    Repeat(Vec<u8>, Vec<u8>),
}

/// A scripted server. Its last reply is repeated.
pub(super) struct Scripted {
    pub(super) address: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    closed: AtomicUsize,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripted {
    pub(super) async fn start(replies: Vec<Reply>) -> Scripted {
        Scripted::listen(replies, None).await
    }

    /// As `start`, with TLS.
    pub(super) async fn listen(replies: Vec<Reply>, tls: Option<TlsAcceptor>) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (state, replies) = (Arc::new(State::default()), Arc::new(replies));
        let shared = state.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (state, replies, tls) = (shared.clone(), replies.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &state, &replies).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &state, &replies).await;
                            }
                        }
                    }
                    state.closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Scripted { address, state, task }
    }

    /// The requests so far, with their heads.
    pub(super) fn requests(&self) -> Vec<String> {
        self.state.requests.lock().unwrap().clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Waits until `count` connections have been closed.
    pub(super) async fn closed(&self, count: usize) {
        eventually(async || self.state.closed.load(Ordering::SeqCst) >= count).await;
    }
}

/// Answers the requests of a connection until it is closed.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: &State, replies: &[Reply]) {
    while let Some(request) = read(&mut stream).await {
        let index = {
            let mut requests = state.requests.lock().unwrap();
            requests.push(request);
            (requests.len() - 1).min(replies.len() - 1)
        };
        let (Reply::Keep(bytes) | Reply::Close(bytes) | Reply::Hang(bytes) | Reply::Repeat(bytes, _)) =
            &replies[index];
        if stream.write_all(bytes).await.is_err() {
            return;
        }
        let _ = stream.flush().await;
        match &replies[index] {
            Reply::Keep(_) => {}
            Reply::Close(_) => {
                let _ = stream.shutdown().await;
                return;
            }
            Reply::Hang(_) => {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                return;
            }
            Reply::Repeat(_, part) => {
                while stream.write_all(part).await.is_ok() {}
                return;
            }
        }
    }
}

/// Reads a request with `content-length`.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return Some(text.into_owned());
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A response with `headers` as they are.
pub(super) fn reply(status: &str, content_type: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{headers}\r\n{body}").into()
}

pub(super) fn json_response(status: &str, body: &str) -> Vec<u8> {
    reply(status, "application/json", &format!("content-length: {}\r\n", body.len()), body)
}

/// A complete response of server-sent events, each part in a chunk of its own.
pub(super) fn event_stream(parts: &[&str]) -> Vec<u8> {
    let chunk = |part: &&str| format!("{:x}\r\n{part}\r\n", part.len());
    let body: String = parts.iter().map(chunk).chain(["0\r\n\r\n".to_owned()]).collect();
    reply("200 OK", "text/event-stream; charset=utf-8", "transfer-encoding: chunked\r\n", &body)
}

/// A whole answer to a chat, in a layout that no serializer would write.
pub(super) fn completion() -> String {
    let choice = r#"{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}"#;
    format!("{{ \"choices\" :[{choice}],\n\"made_up\" : 1.50 }}")
}
