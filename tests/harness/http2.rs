//! HTTP/2 frames written by hand (RFC 9113), for requests that no client library sends.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Frame types.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const WINDOW_UPDATE: u8 = 8;

/// Flags: of SETTINGS and PING, of DATA and HEADERS, of HEADERS.
const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Error code of a RST_STREAM frame that cancels a request.
pub(crate) const CANCEL: [u8; 4] = 8_u32.to_be_bytes();

/// The setting for the window of each new stream.
const INITIAL_WINDOW_SIZE: u16 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;

pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The client end of a connection. Reads and opens windows only on request.
pub(crate) struct Http2 {
    socket: TcpStream,
    /// Received bytes that are not a whole frame yet.
    received: Vec<u8>,
    next_stream: u32,
}

impl Http2 {
    /// Connects from `source`. Each answer may send `window` bytes before the client opens the
    /// window.
    pub(crate) async fn connect(source: Ipv4Addr, address: &str, window: u32) -> io::Result<Http2> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((source, 0).into())?;
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let mut socket = socket.connect(address).await?;
        let setting = [&INITIAL_WINDOW_SIZE.to_be_bytes()[..], &window.to_be_bytes()].concat();
        socket.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat()).await?;
        Ok(Http2 { socket, received: Vec::new(), next_stream: 1 })
    }

    /// Sends a request's head and returns its stream. With `END_STREAM` in `flags` it has no body;
    /// without `END_HEADERS` its head continues.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        flags: u8,
    ) -> io::Result<u32> {
        let stream = self.next_stream;
        self.next_stream += 2;
        let pseudo = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "test")];
        let fields: Vec<u8> =
            pseudo.iter().chain(headers).flat_map(|(name, value)| literal(name, value)).collect();
        self.send(HEADERS, flags, stream, &fields).await?;
        Ok(stream)
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.socket.write_all(&frame(kind, flags, stream, payload)).await
    }

    /// Opens the window of `stream` by `bytes`; stream 0 is the connection.
    pub(crate) async fn open(&mut self, stream: u32, bytes: u32) -> io::Result<()> {
        self.send(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes()).await
    }

    /// Returns the next frame, or `None` after the server has closed. Acknowledges settings and
    /// pings, as a client whose application does not read. Cancel-safe.
    pub(crate) async fn frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.take() {
                match (frame.kind, frame.flags & ACK) {
                    (SETTINGS, 0) => self.send(SETTINGS, ACK, 0, &[]).await?,
                    (PING, 0) => self.send(PING, ACK, 0, &frame.payload).await?,
                    _ => {}
                }
                return Ok(Some(frame));
            }
            if self.socket.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits until the server closes or resets the connection.
    pub(crate) async fn closed(&mut self) {
        while let Ok(Some(_)) = self.frame().await {}
    }

    /// Takes a whole frame from the received bytes.
    fn take(&mut self) -> Option<Frame> {
        let head: [u8; FRAME_HEAD] = self.received.get(..FRAME_HEAD)?.try_into().ok()?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let end = FRAME_HEAD + u32::from_be_bytes([0, a, b, c]) as usize;
        let payload = self.received.get(FRAME_HEAD..end)?.to_vec();
        self.received.drain(..end);
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff, payload })
    }
}

impl Frame {
    /// True for the head of an answer with status 200, which is one byte of HPACK's static table.
    pub(crate) fn is_ok(&self) -> bool {
        self.kind == HEADERS && self.payload.first() == Some(&0x88)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An HPACK header field (RFC 7541, section 6.2.2): literal, not indexed, not Huffman-coded.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        length(text.len(), &mut field);
        field.extend(text.bytes());
    }
    field
}

/// An HPACK integer with a 7-bit prefix.
fn length(mut value: usize, field: &mut Vec<u8>) {
    const PREFIX: usize = 127;
    if value < PREFIX {
        return field.push(value as u8);
    }
    field.push(PREFIX as u8);
    value -= PREFIX;
    while value >= 128 {
        field.push((value % 128) as u8 | 128);
        value /= 128;
    }
    field.push(value as u8);
}
