//! Attacks by clients: hand-written and slow requests.

use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::server::{SLOW, TENANT};
use super::{Attacker, Source};
use crate::classify::png;
use crate::harness::http2::{CANCEL, DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, RST_STREAM};

/// Flags of a complete request head without a body.
const WHOLE: u8 = END_HEADERS | END_STREAM;

/// Streams per connection: the minimum that a server must allow, and fewer than it does.
const STREAMS: u32 = 24;

const TEXT: &[u8] = br#"{"input": "x"}"#;

/// Answers that are never read: of /healthz, which needs no key; of `/moderate`; of a streaming
/// guest.
pub(super) async fn zero_window(attacker: Attacker) {
    let one = |attacker: Attacker, source: Source| async move {
        let (mut connection, _) = ask_closed(&attacker, source).await?;
        connection.closed().await;
        Ok(())
    };
    attacker.hold(64, one).await;
}

/// The same answers, read one byte at a time.
pub(super) async fn byte_windows(attacker: Attacker) {
    let one = |attacker: Attacker, source: Source| async move {
        let (mut connection, mut streams) = ask_closed(&attacker, source).await?;
        while !streams.is_empty() {
            match timeout(Duration::from_millis(200), connection.frame()).await {
                Ok(Ok(Some(frame))) if frame.kind == RST_STREAM => {
                    streams.retain(|stream| *stream != frame.stream);
                }
                Ok(Ok(Some(_))) => {}
                Ok(ended) => return ended.map(|_| ()),
                Err(_) => {
                    for stream in &streams {
                        connection.open(*stream, 1).await?;
                    }
                }
            }
        }
        Ok(())
    };
    attacker.hold(32, one).await;
}

/// A connection with a closed window, and its requests.
async fn ask_closed(attacker: &Attacker, source: Source) -> io::Result<(Http2, Vec<u32>)> {
    let mut connection = Http2::connect(source.address, &attacker.address, 0).await?;
    let key = bearer(TENANT);
    let headers = [("authorization", key.as_str())];
    let mut streams = Vec::new();
    for index in 0..STREAMS {
        attacker.made();
        // Two of three connections have no key.
        let stream = match (source.index % 3, index % 3) {
            (0, 0) => connection.request("GET", "/http/slow?1", &headers, WHOLE).await?,
            (0, 1) => {
                let stream = connection.request("POST", "/moderate", &headers, END_HEADERS).await?;
                connection.send(DATA, END_STREAM, stream, TEXT).await?;
                stream
            }
            _ => connection.request("GET", "/healthz", &[], WHOLE).await?,
        };
        streams.push(stream);
    }
    Ok((connection, streams))
}

/// A TCP connection with a receive buffer of `buffer` bytes.
async fn connect(source: Source, address: &str, buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((source.address, 0).into())?;
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.connect(address.parse().map_err(io::Error::other)?).await
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// Requests that are cancelled at once.
pub(super) async fn rapid_reset(attacker: Attacker) {
    let pause = Duration::from_secs_f64(0.4 / attacker.each);
    let one = move |attacker: Attacker, source: Source| async move {
        let mut connection = Http2::connect(source.address, &attacker.address, 65_535).await?;
        let key = bearer(TENANT);
        loop {
            attacker.made();
            let stream =
                connection.request("POST", "/moderate", &[("authorization", &key)], END_HEADERS).await?;
            connection.send(DATA, END_STREAM, stream, TEXT).await?;
            connection.send(RST_STREAM, 0, stream, &CANCEL).await?;
            let frame = timeout(pause, connection.frame()).await;
            if let Ok(frame) = frame
                && frame?.is_none()
            {
                return Ok(());
            }
        }
    };
    attacker.hold(1, one).await;
}

/// Bodies that are announced and never sent, or sent at a byte per second, over HTTP/2.
pub(super) async fn h2_slow_bodies(attacker: Attacker) {
    let one = |attacker: Attacker, source: Source| async move {
        let mut connection = Http2::connect(source.address, &attacker.address, 65_535).await?;
        let key = bearer(SLOW);
        let headers = [("authorization", key.as_str()), ("content-length", "100")];
        let mut streams = Vec::new();
        for _ in 0..STREAMS {
            attacker.made();
            streams.push(connection.request("POST", "/moderate", &headers, END_HEADERS).await?);
        }
        loop {
            if let Ok(frame) = timeout(Duration::from_secs(1), connection.frame()).await {
                match frame? {
                    Some(Frame { kind: HEADERS | RST_STREAM, stream, .. }) => {
                        streams.retain(|other| *other != stream);
                    }
                    Some(_) => {}
                    None => return Ok(()),
                }
            }
            // The other half sends nothing.
            for stream in streams.iter().step_by(2) {
                connection.send(DATA, 0, *stream, b" ").await?;
            }
            if streams.is_empty() {
                return Ok(());
            }
        }
    };
    attacker.hold(8, one).await;
}

/// The same over HTTP/1.1, and chunked.
pub(super) async fn h1_slow_bodies(attacker: Attacker) {
    let one = |attacker: Attacker, source: Source| async move {
        let mut connection = connect(source, &attacker.address, None).await?;
        attacker.made();
        let length = ["content-length: 100", "transfer-encoding: chunked"][source.index % 2];
        let key = bearer(SLOW);
        let head =
            format!("POST /moderate HTTP/1.1\r\nhost: test\r\nauthorization: {key}\r\n{length}\r\n\r\n");
        connection.write_all(head.as_bytes()).await?;
        if source.index % 2 == 1 {
            connection.write_all(b"64\r\n").await?;
        }
        let (mut reading, mut writing) = connection.split();
        let drip = async {
            if source.index.is_multiple_of(3) {
                return std::future::pending::<io::Result<()>>().await;
            }
            loop {
                sleep(Duration::from_secs(1)).await;
                writing.write_all(b" ").await?;
            }
        };
        let answer = async { reading.read(&mut [0; 1_024]).await.map(|_| ()) };
        tokio::select! {
            end = drip => end,
            end = answer => end,
        }
    };
    attacker.hold(64, one).await;
}

/// Unfinished heads of both protocols, and silent connections; without a key.
pub(super) async fn half_heads(attacker: Attacker) {
    let one = |attacker: Attacker, source: Source| async move {
        attacker.made();
        if source.index.is_multiple_of(4) {
            let mut connection = Http2::connect(source.address, &attacker.address, 65_535).await?;
            connection.request("GET", "/healthz", &[], END_STREAM).await?;
            connection.closed().await;
            return Ok(());
        }
        let mut connection = connect(source, &attacker.address, None).await?;
        let head: &[u8] =
            [&b""[..], b"GET /healthz HTTP/1.1\r\nhost: te", b"PRI * HTTP/2.0\r\n"][source.index % 3];
        connection.write_all(head).await?;
        connection.read(&mut [0; 1_024]).await.map(|_| ())
    };
    attacker.hold(500, one).await;
}

/// Repeated requests for answers of many kilobytes, which are read slowly.
pub(super) async fn slow_readers(attacker: Attacker) {
    let one = |attacker: Attacker, source: Source| async move {
        let connection = connect(source, &attacker.address, Some(4_096)).await?;
        let (path, key) =
            [("/metrics", ""), ("/http/endless", TENANT), ("/v1/models", SLOW)][source.index % 3];
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nauthorization: {}\r\n\r\n", bearer(key));
        let (mut reading, mut writing) = connection.into_split();
        let asking = async {
            for _ in 0..1_000 {
                attacker.made();
                writing.write_all(request.as_bytes()).await?;
            }
            std::future::pending::<io::Result<()>>().await
        };
        let taking = async {
            while reading.read(&mut [0; 512]).await? > 0 {
                sleep(Duration::from_millis(500)).await;
            }
            Ok(())
        };
        tokio::select! {
            end = asking => end,
            end = taking => end,
        }
    };
    attacker.hold(24, one).await;
}

/// Bodies of 10 MB that an error could quote, whose answers are read slowly.
pub(super) async fn large_echoes(attacker: Attacker) {
    static SHAPE: LazyLock<String> = LazyLock::new(|| {
        let shape = "2,".repeat(5_000_000);
        format!(r#"{{"inputs":[{{"name":"ids","datatype":"INT32","shape":[{shape}2],"data":[1]}}]}}"#)
    });
    let one = |attacker: Attacker, source: Source| async move {
        let mut connection = connect(source, &attacker.address, Some(4_096)).await?;
        attacker.made();
        let head = format!(
            "POST /v2/models/text/infer HTTP/1.1\r\nhost: test\r\nauthorization: {}\r\ncontent-length: {}\r\n\r\n",
            bearer(TENANT),
            SHAPE.len()
        );
        connection.write_all(head.as_bytes()).await?;
        connection.write_all(SHAPE.as_bytes()).await?;
        while connection.read(&mut [0; 4_096]).await? > 0 {
            sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    };
    attacker.hold(6, one).await;
}

/// Photos of nine megapixels, each as expensive as hundreds of texts.
pub(super) async fn large_photos(attacker: Attacker) {
    const SIDE: u32 = 3_000;
    let photo = png(SIDE, b"", (SIDE * (SIDE + 1)) as usize);
    let photo = STANDARD.encode(photo);
    let url = format!("data:image/png;base64,{photo}");
    let body = json!({ "input": [{ "type": "image_url", "image_url": { "url": url } }] }).to_string();
    let body: Arc<str> = body.into();
    let one = move |attacker: Attacker, _| {
        let body = body.clone();
        async move {
            attacker.made();
            let url = format!("http://{}/moderate", attacker.address);
            let asked = attacker.client.post(url).bearer_auth(TENANT).body(body.to_string());
            let _ = asked.send().await;
            Ok(())
        }
    };
    attacker.hold(2, one).await;
}

/// Names of the maximum length of a head, which a log, an error or a metric could repeat.
pub(super) async fn long_paths(attacker: Attacker) {
    let pause = Duration::from_secs_f64(0.4 / attacker.each);
    let one = move |attacker: Attacker, source: Source| async move {
        attacker.made();
        let name = "x".repeat(30_000);
        let path = [format!("/{name}"), format!("/v2/models/{name}/infer"), format!("/http/{name}")];
        let key = [SLOW, TENANT, "unknown", ""][source.index % 4];
        let url = format!("http://{}{}", attacker.address, path[source.index % 3]);
        let asked = attacker.client.post(url).bearer_auth(key).header("x-request-id", &name[..1_000]);
        let body = json!({ "model": name, "input": name }).to_string();
        let _ = asked.body(body).send().await;
        sleep(pause).await;
        Ok(())
    };
    attacker.hold(8, one).await;
}
