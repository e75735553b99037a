use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};

use crate::harness::{Server, answer, photo};

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
async fn a_form_and_a_body_get_the_same_labels() {
    let server = Server::builtin().await;
    let (_, by_body) = server.classify("", photo("chelsea.webp")).await;
    let form = Form::new().part("image", Part::bytes(photo("chelsea.webp")).file_name("chelsea.webp"));
    let (status, by_form) = answer(server.post("/classify").multipart(form)).await;
    assert_eq!(status, StatusCode::OK, "{by_form}");
    assert_eq!(by_form["labels"], by_body["labels"]);
    assert_eq!(by_form["labels"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn what_is_not_an_image_is_refused() {
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
async fn a_bomb_is_refused_by_its_header() {
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
