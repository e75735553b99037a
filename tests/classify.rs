use std::io::Write as _;

use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};

use crate::harness::{Server, answer, photo, photo_names, repository};

#[tokio::test]
async fn coffee_is_espresso() {
    let server = Server::builtin().await;
    let (status, body) = server.classify("?top=3", photo("coffee.jpg")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let labels = body["labels"].as_array().unwrap();
    assert_eq!(labels.len(), 3);
    assert_eq!(labels[0]["label"], "espresso");
    assert!(labels[0]["score"].as_f64().unwrap() > 0.9, "{body}");
    assert_eq!(body["infer"]["models"][0]["name"], "efficientnet-lite0");
}

#[tokio::test]
async fn form_and_body_get_the_same_labels() {
    let server = Server::builtin().await;
    let (_, by_body) = server.classify("", photo("chelsea.webp")).await;
    let form = Form::new().part("image", Part::bytes(photo("chelsea.webp")).file_name("chelsea.webp"));
    let (status, by_form) = answer(server.post("/classify").multipart(form)).await;
    assert_eq!(status, StatusCode::OK, "{by_form}");
    assert_eq!(by_form["labels"], by_body["labels"]);
    assert_eq!(by_form["labels"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn file_of_a_form_is_found_among_fields() {
    let server = Server::builtin().await;
    let image = || photo("coffee.jpg");
    let named = || Part::bytes(image()).file_name("coffee.jpg");
    let cases = [
        ("the file first", Form::new().part("file", named()).text("note", "hello")),
        ("a text first", Form::new().text("note", "hello").part("file", named())),
        ("texts around", Form::new().text("a", "1").text("b", "2").part("file", named()).text("c", "3")),
        (
            "a type alone",
            Form::new().text("a", "1").part("file", Part::bytes(image()).mime_str("image/jpeg").unwrap()),
        ),
        ("nothing but the bytes", Form::new().part("file", Part::bytes(image()))),
        (
            "a name beyond ASCII",
            Form::new().text("a", "1").part("file", Part::bytes(image()).file_name("\u{e4}.jpg")),
        ),
        (
            "a field without a file",
            Form::new().part("other", Part::bytes(Vec::new()).file_name("")).part("file", named()),
        ),
    ];
    for (name, form) in cases {
        let (status, body) = answer(server.post("/classify?top=1").multipart(form)).await;
        assert_eq!(
            (status, &body["labels"][0]["label"]),
            (StatusCode::OK, &"espresso".into()),
            "{name}: {body}"
        );
    }
    let texts = Form::new().text("a", "1").text("b", "2");
    let (status, body) = answer(server.post("/classify").multipart(texts)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"]["message"].as_str().unwrap().contains("no image among the 2 parts"), "{body}");
}

#[tokio::test]
async fn content_types_may_have_parameters() {
    let server = Server::builtin().await;
    for kind in [
        "image/jpeg; q=1",
        "IMAGE/JPEG",
        "application/octet-stream; charset=utf-8",
        "Application/Octet-Stream ; x=y",
        "application/x-www-form-urlencoded; charset=UTF-8",
    ] {
        let request = server.post("/classify?top=1").header("content-type", kind).body(photo("coffee.jpg"));
        let (status, body) = answer(request).await;
        assert_eq!(
            (status, &body["labels"][0]["label"]),
            (StatusCode::OK, &"espresso".into()),
            "{kind}: {body}"
        );
    }
}

#[tokio::test]
async fn non_images_are_rejected() {
    let server = Server::builtin().await;
    let cut = photo("coffee.jpg")[..300].to_vec();
    let cases = [
        ("", b"this is text".to_vec(), StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("", Vec::new(), StatusCode::BAD_REQUEST),
        ("", cut, StatusCode::BAD_REQUEST),
        ("?top=0", photo("coffee.jpg"), StatusCode::BAD_REQUEST),
        ("?top=many", photo("coffee.jpg"), StatusCode::BAD_REQUEST),
        ("?best=1", photo("coffee.jpg"), StatusCode::BAD_REQUEST),
    ];
    for (query, body, expected) in cases {
        let length = body.len();
        let (status, answer) = server.classify(query, body).await;
        assert_eq!(status, expected, "{query}, {length} bytes: {answer}");
    }
    let (status, error) = answer(server.post("/classify").json("an image")).await;
    assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(error["error"]["message"].as_str().unwrap().contains("application/json"), "{error}");
}

#[tokio::test]
async fn image_bomb_is_rejected_by_its_header() {
    // A PNG of 60,000 × 60,000 pixels that ends after its header.
    let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
    bomb.extend(60_000_u32.to_be_bytes());
    bomb.extend(60_000_u32.to_be_bytes());
    bomb.extend([8, 2, 0, 0, 0, 0xe8, 0xb2, 0xcd, 0x2a]);
    let server = Server::builtin().await;
    let (status, body) = server.classify("", bomb).await;
    assert!(status.is_client_error(), "{status} {body}");
    let (status, _) = server.classify("", photo("coffee.jpg")).await;
    assert_eq!(status, StatusCode::OK);
}

/// Encodes a PNG chunk.
fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(kind);
    crc.update(data);
    [&(data.len() as u32).to_be_bytes(), &kind[..], data, &crc.sum().to_be_bytes()].concat()
}

/// A grey PNG of `side` × `side` pixels, with `extra` between the header and the pixel data, which
/// inflates to `bytes` bytes.
pub(crate) fn png(side: u32, extra: &[u8], bytes: usize) -> Vec<u8> {
    let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 0]].concat();
    [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        extra.to_vec(),
        chunk(b"IDAT", &zeros(bytes)),
        chunk(b"IEND", b""),
    ]
    .concat()
}

/// The zlib stream of `bytes` zeros.
fn zeros(bytes: usize) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![0; 1 << 20];
    for start in (0..bytes).step_by(block.len()) {
        encoder.write_all(&block[..block.len().min(bytes - start)]).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn overlong_image_data_costs_no_memory() {
    const BOMB: usize = 512 << 20;
    let profile = chunk(b"iCCP", &[b"p\0\0", &zeros(BOMB)[..]].concat());
    let text = chunk(b"zTXt", &[b"t\0\0", &zeros(BOMB)[..]].concat());
    let cases = [
        ("fits", png(64, b"", 64 * 65), true),
        ("pixels without end", png(64, b"", BOMB), false),
        ("a colour profile without end", png(64, &profile, 64 * 65), false),
        ("a text without end", png(64, &text, 64 * 65), false),
        ("fewer pixels than it says", png(4_000, b"", 64), false),
        ("more pixels than are taken", png(40_000, b"", BOMB), false),
    ];
    let server = Server::builtin().await;
    for (name, file, whole) in cases {
        let length = file.len();
        let (status, body) = server.classify("", file).await;
        assert!(
            status == StatusCode::OK || (status.is_client_error() && !whole),
            "{name}, {length} bytes: {status} {body}"
        );
    }
    assert_eq!(server.classify("", photo("coffee.jpg")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn photo_beyond_the_decoder_limit_is_rejected() {
    let server = Server::builtin().await;
    let path = repository().join("fuzz/seeds/image/more-colour-than-brightness.jpg");
    let (status, body) = server.classify("", std::fs::read(path).unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("samples chroma more finely"), "{body}");
}

#[tokio::test]
async fn truncated_photos_are_answered() {
    let server = Server::builtin().await;
    for name in photo_names() {
        let whole = photo(&name);
        for parts in [1, 2, 5, 8, 9] {
            let (status, body) = server.classify("", whole[..whole.len() * parts / 10].to_vec()).await;
            assert!(
                status == StatusCode::OK || status.is_client_error(),
                "{name}, {parts}/10: {status} {body}"
            );
        }
    }
}

#[tokio::test]
async fn labels_of_partial_views_are_marked() {
    let server = Server::builtin().await;
    let note = async |path: &str| {
        let file = std::fs::read(repository().join("tests/data").join(path)).unwrap();
        let (status, body) = server.classify("", file).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body["infer"]["notes"].clone()
    };
    for (path, expected) in [
        ("views/second-frame.gif", "the labels cover 1 of 2 frames"),
        ("views/sixty-frames.webp", "the labels cover 1 of 60 frames"),
        ("views/panorama.png", "the labels cover 7 % of its length"),
        ("photos/coffee.jpg", "the labels cover 63 % of its length"),
    ] {
        assert_eq!(note(path).await.as_array().unwrap(), &[expected], "{path}");
    }
    assert!(note("photos/camera-grey.jpg").await.is_null());
}
