//! An HTTP/2 client that opens a window only when a test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Server;
use super::http2::{DATA, END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM, WINDOW_UPDATE};

/// An HTTP/2 client that reads continuously and never opens a window by itself.
pub(crate) struct Client {
    frames: UnboundedSender<(u8, u8, u32, Vec<u8>)>,
    requests: UnboundedSender<(&'static str, String, u8)>,
    received: Arc<Mutex<Received>>,
    next: u32,
}

/// Frames received from the server.
#[derive(Clone, Default)]
pub(crate) struct Received {
    /// Streams with a response; true if its status is 200.
    heads: BTreeMap<u32, bool>,
    /// Bytes of bodies.
    pub(crate) data: usize,
    pub(crate) resets: BTreeSet<u32>,
    pub(crate) is_closed: bool,
}

impl Client {
    /// Connects a client whose streams each have a window of `window` bytes.
    pub(crate) async fn connect(server: &Server, window: u32) -> Client {
        let connection = Http2::connect(Ipv4Addr::LOCALHOST, server.address(), window).await.unwrap();
        let ((frames, to_send), (requests, to_request)) = (unbounded_channel(), unbounded_channel());
        let received = Arc::default();
        tokio::spawn(Client::run(connection, to_send, to_request, Arc::clone(&received)));
        Client { frames, requests, received, next: 1 }
    }

    async fn run(
        mut connection: Http2,
        mut frames: UnboundedReceiver<(u8, u8, u32, Vec<u8>)>,
        mut requests: UnboundedReceiver<(&'static str, String, u8)>,
        received: Arc<Mutex<Received>>,
    ) {
        loop {
            tokio::select! {
                biased;
                Some((method, path, flags)) = requests.recv() => {
                    if connection.request(method, &path, &[], flags | END_HEADERS).await.is_err() {
                        break;
                    }
                }
                Some((kind, flags, stream, payload)) = frames.recv() => {
                    if connection.send(kind, flags, stream, &payload).await.is_err() {
                        break;
                    }
                }
                frame = connection.frame() => {
                    let Ok(Some(frame)) = frame else { break };
                    let mut received = received.lock().unwrap();
                    match frame.kind {
                        DATA => received.data += frame.payload.len(),
                        HEADERS => drop(received.heads.insert(frame.stream, frame.is_ok())),
                        RST_STREAM => drop(received.resets.insert(frame.stream)),
                        _ => {}
                    }
                }
            }
        }
        received.lock().unwrap().is_closed = true;
    }

    /// Sends a GET and returns its stream.
    pub(crate) fn get(&mut self, path: &str) -> u32 {
        self.open("GET", path, END_STREAM)
    }

    /// Sends the head of a POST and returns its stream.
    pub(crate) fn post(&mut self, path: &str) -> u32 {
        self.open("POST", path, 0)
    }

    fn open(&mut self, method: &'static str, path: &str, flags: u8) -> u32 {
        let stream = self.next;
        self.next += 2;
        let _ = self.requests.send((method, path.to_owned(), flags));
        stream
    }

    /// Sends a frame after all requests, unless the server has closed.
    pub(crate) fn send(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.frames.send((kind, flags, stream, payload.to_vec()));
    }

    /// Opens the window of `stream` by `bytes`.
    pub(crate) fn open_window(&self, stream: u32, bytes: u32) {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    }

    pub(crate) fn received(&self) -> Received {
        self.received.lock().unwrap().clone()
    }
}

impl Received {
    pub(crate) fn answered(&self) -> usize {
        self.heads.len()
    }

    pub(crate) fn ok(&self) -> usize {
        self.heads.values().filter(|&&ok| ok).count()
    }
}
