use std::io::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use infer_control::registry::Registry;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::harness::{Server, answer, guest, load, photo, words_section};

/// Every route that reads a body, with a body that it accepts.
fn routes() -> Vec<(&'static str, Vec<u8>)> {
    let chat = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 1 });
    let ids: Vec<i32> = vec![1; 100];
    let tensor =
        json!({ "inputs": [{ "name": "ids", "shape": [1, 100], "datatype": "INT32", "data": ids }] });
    let comment = json!({ "comment": { "text": "hello" }, "requestedAttributes": { "TOXICITY": {} } });
    [
        ("/moderate", json!({ "input": "hello" })),
        ("/v1/moderations", json!({ "input": "hello" })),
        ("/v1/chat/completions", chat),
        ("/v1/completions", json!({ "model": "tiny", "prompt": "Hi", "max_tokens": 1 })),
        ("/v1alpha1/comments:analyze", comment),
        ("/v2/models/words/infer", tensor),
    ]
    .into_iter()
    .map(|(path, body)| (path, body.to_string().into_bytes()))
    .chain([("/classify", photo("coffee.jpg"))])
    .collect()
}

fn registry() -> Arc<Registry> {
    let config = format!(
        "{}\n[models.tiny]\nsource = \"tests/data/language/qwen2-q6_k.gguf\"\nthreads = 1\npacked_cache = false\n\
         [components.attack]\nsource = {:?}\nroute = \"/attack/...\"\n{}",
        infer_config::CONFIG,
        guest("hostile-http"),
        words_section()
    );
    Arc::new(load(&config))
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// The message of an error in any of the error formats.
fn sentence(body: &Value) -> &str {
    let error = &body["error"];
    error.as_str().or_else(|| error["message"].as_str()).unwrap_or_else(|| panic!("no sentence: {body}"))
}

#[tokio::test]
async fn compressed_bodies_are_415_on_every_route() {
    let server = Server::start(registry()).await;
    for (path, body) in routes() {
        let mut body = body;
        if path.starts_with("/v2") {
            let metadata = answer(server.get("/v2/models/words")).await.1;
            let name = metadata["inputs"][0]["name"].as_str().unwrap();
            body = String::from_utf8(body).unwrap().replace("\"ids\"", &format!("{name:?}")).into_bytes();
        }
        for coding in [None, Some("identity"), Some("Identity, identity"), Some("")] {
            let mut request = server.post(path).body(body.clone());
            if let Some(coding) = coding {
                request = request.header("content-encoding", coding);
            }
            let (status, reply) = answer(request).await;
            assert_eq!(status, StatusCode::OK, "{path} {coding:?}: {reply}");
        }
        for (coding, name) in [
            ("gzip", "gzip"),
            ("GZIP", "gzip"),
            ("identity, deflate", "deflate"),
            ("br", "br"),
            ("zstd", "zstd"),
            ("x-gzip", "x-gzip"),
        ] {
            let request = server.post(path).header("content-encoding", coding).body(gzip(&body));
            let response = request.send().await.unwrap();
            assert_eq!(response.headers()["accept-encoding"], "identity", "{path} {coding}");
            let status = response.status();
            let reply: Value = response.json().await.unwrap();
            assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path} {coding}: {reply}");
            assert!(sentence(&reply).contains(&format!("`{name}`")), "{path} {coding}: {reply}");
        }
        let (status, reply) = answer(server.post(path).body(gzip(&body))).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{path}: {reply}");
        assert!(sentence(&reply).contains("gzip"), "{path}: {reply}");
    }
}

#[tokio::test]
async fn handlers_read_compressed_bodies_themselves() {
    let server = Server::start(registry()).await;
    let request = server.post("/attack/request").header("content-encoding", "gzip").body(gzip(b"hello"));
    let response: Response = request.send().await.unwrap();
    assert_ne!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn byte_order_marks_are_skipped_on_every_route() {
    let server = Server::start(registry()).await;
    for (path, body) in routes() {
        if path == "/classify" || path.starts_with("/v2") {
            continue;
        }
        let marked = [b"\xef\xbb\xbf", &body[..]].concat();
        let (status, reply) = answer(server.post(path).body(marked)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {reply}");
        let text = String::from_utf8(body).unwrap();
        let wide: Vec<u8> = format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (status, reply) = answer(server.post(path).body(wide)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}: {reply}");
        assert!(sentence(&reply).contains("UTF-16"), "{path}: {reply}");
    }
}

#[tokio::test]
async fn data_urls_are_read_in_every_spelling() {
    let server = Server::builtin().await;
    let image = photo("coffee.jpg");
    let plain = STANDARD.encode(&image);
    let lines = |width: usize, end: &str| {
        let lines: Vec<_> =
            plain.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        lines.join(end)
    };
    let percent = plain.replace('+', "%2B").replace('/', "%2f").replace('=', "%3D");
    let cases = [
        ("plain", format!("data:image/jpeg;base64,{plain}")),
        ("MIME's lines", format!("data:image/jpeg;base64,{}\r\n", lines(76, "\r\n"))),
        ("PEM's lines", format!("data:image/jpeg;base64,\n{}", lines(64, "\n"))),
        ("spaces and tabs", format!("data:image/jpeg;base64, {}", lines(60, "\t  "))),
        ("no padding", format!("data:image/jpeg;base64,{}", STANDARD_NO_PAD.encode(&image))),
        ("percent-encoded", format!("data:image/jpeg;base64,{percent}")),
        ("the alphabet of URLs", format!("data:image/jpeg;base64,{}", URL_SAFE.encode(&image))),
        ("a parameter", format!("data:image/jpeg;name=a.jpg;base64,{plain}")),
        ("upper case", format!("DATA:IMAGE/JPEG;BASE64,{plain}")),
        ("no type", format!("data:;base64,{plain}")),
    ];
    let ask = async |body: String| answer(server.post("/moderate").body(body)).await;
    let body = |url: &str| json!({ "input": [{ "type": "image_url", "image_url": { "url": url } }] });
    let (status, expected) = ask(body(&cases[0].1).to_string()).await;
    assert_eq!(status, StatusCode::OK, "{expected}");
    for (name, url) in &cases {
        let plain = body(url).to_string();
        // As PHP encodes it, and as a cautious encoder does.
        for text in [plain.replace('/', "\\/"), plain.replace('+', "\\u002b"), plain] {
            let (status, reply) = ask(text).await;
            assert_eq!(
                (status, &reply["results"]),
                (StatusCode::OK, &expected["results"]),
                "{name}: {reply}"
            );
        }
    }
    for (url, words) in [
        (
            format!("data:image/jpeg;base64,{}?", &plain[..8]),
            "invalid base64 in the data: URL: byte 8 is `?`",
        ),
        (format!("data:image/jpeg;base64,{}", &plain[..9]), "the end is missing"),
        (format!("data:image/jpeg,{plain}"), "not in base64"),
        (format!("https://example.org/{}", &plain[..8]), "no remote images"),
    ] {
        let (status, reply) = ask(body(&url).to_string()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{reply}");
        assert_eq!(reply["error"]["param"], "input[0].image_url.url");
        assert!(sentence(&reply).contains(words), "{reply}");
    }
}
