use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use reqwest::StatusCode;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::scripted::{Reply, Scripted, completion, event_stream, json_response, reply};
use super::{CHAT, chat, gateway, nothing_is_held, section};
use crate::harness::{Server, answer, free_address, load};

const EVENT: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";

/// Asks through a gateway with `config`, and checks the error.
async fn fails(config: &str, stream: bool, status: u16, code: &str, words: &str) {
    let registry = Arc::new(load(config));
    let server = Server::start(registry.clone()).await;
    let (found, body) = answer(server.post(CHAT).json(&chat(&json!({ "stream": stream })))).await;
    assert_eq!((found.as_u16(), body["error"]["code"].as_str()), (status, Some(code)), "{words}: {body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("upstream `u` ") && message.contains(words), "{words}: {body}");
    assert!(!message.contains("127.0.0.1"), "no address is shown: {message}");
    nothing_is_held(&registry).await;
}

#[tokio::test]
async fn faults_before_the_answer_name_the_cause() {
    let json = |status: &str, body: &str| Reply::Keep(json_response(status, body));
    let large = format!("{{\"x\":\"{}\"}}", "x".repeat(4_000));
    let html = reply("200 OK", "text/html", "content-length: 2\r\n", "hi");
    let gzip = reply("200 OK", "application/json", "content-encoding: gzip\r\ncontent-length: 2\r\n", "{}");
    let moved = reply(
        "307 Temporary Redirect",
        "a/b",
        "location: http://169.254.169.254/\r\ncontent-length: 0\r\n",
        "",
    );
    let half = reply("200 OK", "application/json", "content-length: 100\r\n", "{\"choices\":");
    let utf8 =
        [reply("200 OK", "application/json", "content-length: 9\r\n", ""), b"{\"a\":\"\xff\"}".to_vec()]
            .concat();
    let events = event_stream(&[EVENT, "data: [DONE]\n\n"]);
    let cases = [
        (Reply::Close(Vec::new()), 502, "upstream_unreachable", "closed the connection before it answered"),
        (Reply::Close(b"SSH-2.0-OpenSSH\r\n".to_vec()), 502, "upstream_failed", "did not answer in HTTP/1.1"),
        (
            Reply::Keep(moved),
            502,
            "upstream_failed",
            "a redirect (307 Temporary Redirect), which is not followed",
        ),
        (json("401 Unauthorized", "{}"), 502, "upstream_failed", "rejected the API key of this server"),
        (
            json("500 Internal Server Error", "{}"),
            502,
            "upstream_failed",
            "answered 500 Internal Server Error",
        ),
        (json("504 Gateway Timeout", "{}"), 504, "upstream_failed", "answered 504"),
        (
            Reply::Keep(html),
            502,
            "upstream_failed",
            "the content type `text/html`, expected `application/json`",
        ),
        (Reply::Keep(events), 502, "upstream_failed", "expected `application/json`"),
        (Reply::Keep(gzip), 502, "upstream_failed", "the content coding `gzip`"),
        (
            Reply::Close(half.clone()),
            502,
            "upstream_failed",
            "closed the connection in the middle of its response",
        ),
        (Reply::Keep(utf8), 502, "upstream_failed", "text that is not UTF-8"),
        (json("200 OK", "{\"choices\":"), 502, "upstream_failed", "invalid JSON"),
        (json("200 OK", "[]"), 502, "upstream_failed", "invalid JSON"),
        (json("200 OK", "{\"error\":{\"message\":\"no memory\"}}"), 502, "upstream_failed", "no memory"),
        (json("200 OK", &large), 502, "upstream_failed", "more than 2048 bytes (`max_response_bytes`)"),
    ];
    for (reply, status, code, words) in cases {
        let upstream = Scripted::start(vec![reply]).await;
        fails(
            &section(&upstream.address, "retries = 0\nmax_response_bytes = 2048"),
            false,
            status,
            code,
            words,
        )
        .await;
    }
    // The upstream never answers, or stops in the middle.
    for (reply, words) in [(Vec::new(), "did not answer within 50 ms"), (half, "sent nothing for 60 ms")] {
        let upstream = Scripted::start(vec![Reply::Hang(reply)]).await;
        let times = if words.contains("50") { "first_byte_ms = 50" } else { "idle_ms = 60" };
        fails(&section(&upstream.address, times), false, 504, "upstream_timeout", words).await;
        upstream.closed(1).await;
    }
}

#[tokio::test]
async fn unreachable_upstreams_are_named() {
    let refused = section(&free_address(), "retries = 0");
    fails(&refused, false, 502, "upstream_unreachable", "refuses connections").await;
    let unknown = section("no-such-name.invalid", "retries = 0\nprivate_addresses = true");
    fails(&unknown, true, 502, "upstream_unreachable", "has a host name that cannot be resolved").await;
    // The handshake is never answered: the system accepts the connection for a program that does
    // not.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let tls = section(&address, "retries = 0\nconnect_ms = 50").replace("http://", "https://");
    fails(&tls, false, 504, "upstream_timeout", "did not accept a connection within 50 ms").await;
}

/// A TLS server with a certificate made by `change`, and the certificate in PEM.
async fn tls(name: &str, change: impl FnOnce(&mut CertificateParams)) -> (Scripted, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    change(&mut params);
    let certificate = params.self_signed(&key).unwrap();
    let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config =
        config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], private).unwrap();
    let reply = Reply::Keep(json_response("200 OK", &completion()));
    (Scripted::listen(vec![reply], Some(TlsAcceptor::from(Arc::new(config)))).await, certificate.pem())
}

#[tokio::test]
async fn tls_certificates_are_verified() {
    let folder = tempfile::tempdir().unwrap();
    let config = |address: &str, pem: &str| {
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, pem).unwrap();
        let url = address.replace("127.0.0.1", "localhost");
        section(&url, &format!("retries = 0\nca_file = {path:?}")).replace("http://", "https://")
    };
    let (upstream, pem) = tls("localhost", |_| {}).await;
    let server = Server::start(Arc::new(load(&config(&upstream.address, &pem)))).await;
    let (status, body) = answer(server.post(CHAT).json(&chat(&json!({})))).await;
    assert_eq!(status, StatusCode::OK, "{body}");

    let fails = |upstream: Scripted, pem: String, words: &'static str| {
        let config = config(&upstream.address, &pem);
        async move {
            fails(&config, false, 502, "upstream_unreachable", words).await;
            assert_eq!(upstream.requests().len(), 0, "nothing is sent");
        }
    };
    let (expired, pem) = tls("localhost", |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1)).await;
    fails(expired, pem, "has an expired TLS certificate").await;
    let (early, pem) = tls("localhost", |params| params.not_before = rcgen::date_time_ymd(3000, 1, 1)).await;
    fails(early, pem, "not valid yet").await;
    let (other, pem) = tls("other.example", |_| {}).await;
    fails(other, pem, "has a TLS certificate for another host").await;
    let (unknown, _) = tls("localhost", |_| {}).await;
    let (_, pem) = tls("localhost", |_| {}).await;
    fails(unknown, pem, "has").await;
    // A server without TLS.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap().to_string();
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = plain.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let (_, pem) = tls("localhost", |_| {}).await;
    let cleartext = config(&address, &pem);
    self::fails(&cleartext, false, 502, "upstream_unreachable", "did not complete the TLS handshake").await;
    answering.abort();
}

/// The events of a stream that `upstream` sends, and its last one.
async fn streamed(upstream: &Scripted, more: &str) -> (Vec<String>, Value) {
    let (server, registry) = gateway(upstream, more).await;
    let response = server.post(CHAT).json(&chat(&json!({ "stream": true }))).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let text = response.text().await.unwrap();
    nothing_is_held(&registry).await;
    let events: Vec<_> = text.split_terminator("\n\n").map(str::to_owned).collect();
    let last = events.last().unwrap().strip_prefix("data: ").unwrap();
    let last = serde_json::from_str(last).unwrap_or_default();
    (events, last)
}

#[tokio::test]
async fn faults_in_a_stream_are_its_last_event() {
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let other = "data: {\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}}]}\n\n";
    let cut = |parts: &[&str]| {
        let mut bytes = event_stream(parts);
        bytes.truncate(bytes.len() - 5);
        Reply::Close(bytes)
    };
    let whole = |parts: &[&str]| Reply::Keep(event_stream(parts));
    let utf8 = {
        let start = reply("200 OK", "text/event-stream", "connection: close\r\n", EVENT);
        Reply::Close([start, b"data: \"\xff\"\n\n".to_vec()].concat())
    };
    let huge = {
        let start = reply("200 OK", "text/event-stream", "connection: close\r\n", &format!("{EVENT}data: "));
        Reply::Repeat(start, vec![b'x'; 1 << 20])
    };
    let endless = {
        let start = reply("200 OK", "text/event-stream", "connection: close\r\n", EVENT);
        Reply::Repeat(start, EVENT.repeat(1_000).into())
    };
    let cases = [
        (cut(&[EVENT]), "closed the connection in the middle of its response"),
        (cut(&[EVENT, "data: {\"choi"]), "closed the connection in the middle of its response"),
        (whole(&[EVENT]), "ended its stream without `finish_reason` and `[DONE]`"),
        (whole(&[EVENT, other, finish]), "ended its stream without `finish_reason` and `[DONE]`"),
        (whole(&[EVENT, "data: {\"choices\":\n\n"]), "sent invalid JSON"),
        (whole(&[EVENT, "data: 7\n\n"]), "sent invalid JSON"),
        (
            whole(&[EVENT, "data: {\"error\":{\"message\":\"no memory\"}}\n\n"]),
            "an error in its stream: no memory",
        ),
        (utf8, "text that is not UTF-8"),
        (huge, "an event of more than 1048576 bytes (`max_event_bytes`)"),
        (endless, "a response of more than 3000000 bytes (`max_response_bytes`)"),
    ];
    for (reply, words) in cases {
        let upstream = Scripted::start(vec![reply]).await;
        let (events, last) = streamed(&upstream, "max_response_bytes = 3000000").await;
        assert_eq!(events[0], EVENT.trim_end(), "{words}");
        let message = last["error"]["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("upstream `u` ") && message.contains(words), "{words}: {last}");
        assert!(!events.iter().any(|event| event == "data: [DONE]"), "{words}");
        if !words.contains("ended its stream") {
            upstream.closed(1).await;
        }
    }
    let stalled = reply("200 OK", "text/event-stream", "connection: close\r\n", EVENT);
    let upstream = Scripted::start(vec![Reply::Hang(stalled)]).await;
    let (_, last) = streamed(&upstream, "idle_ms = 70").await;
    assert!(last["error"]["message"].as_str().unwrap().contains("sent nothing for 70 ms"), "{last}");
    upstream.closed(1).await;
    // A stream without `[DONE]` is complete if every choice has ended.
    let upstream = Scripted::start(vec![whole(&[EVENT, finish])]).await;
    let (events, _) = streamed(&upstream, "").await;
    assert_eq!(events.last().unwrap(), "data: [DONE]");
}
