use std::sync::Arc;

use infer_config::{Config, Origin};
use reqwest::{Method, Response, StatusCode};
use serde_json::json;

use crate::harness::{Server, load, repository};

const PAGE: &str = "https://app.example";

async fn allowing(origins: &str) -> Server {
    let key = infer_config::keys::KeyHash::of("alice");
    let server = format!("[server]\ncors_origins = [{origins}]\n[keys.alice]\nhash = \"{key}\"\n");
    let models = infer_config::CONFIG.replace("listen = \"127.0.0.1:8080\"", "").replace("[server]", "");
    Server::start(Arc::new(load(&format!("{server}{models}")))).await
}

async fn preflight(server: &Server, path: &str, origin: &str) -> Response {
    let request =
        reqwest::Client::new().request(Method::OPTIONS, format!("http://{}{path}", server.address()));
    let request = request.header("origin", origin).header("access-control-request-method", "POST");
    request.header("access-control-request-headers", "authorization, x-stainless-os").send().await.unwrap()
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers().get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn preflight_of_listed_origin_needs_no_key() {
    let server = allowing(&format!("\"{PAGE}\"")).await;
    for path in ["/moderate", "/v1/chat/completions", "/v1/models/x"] {
        let response = preflight(&server, path, PAGE).await;
        assert_eq!(response.status(), StatusCode::NO_CONTENT, "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), Some(PAGE));
        assert_eq!(header(&response, "access-control-allow-methods"), Some("POST"));
        assert_eq!(header(&response, "access-control-allow-headers"), Some("authorization, x-stainless-os"));
        assert!(response.headers().get_all("vary").iter().any(|vary| vary == "origin"), "{path}");
    }
    for origin in ["https://other.example", "https://app.example:8443", "http://app.example", "null"] {
        let response = preflight(&server, "/moderate", origin).await;
        assert_ne!(response.status(), StatusCode::NO_CONTENT, "{origin}");
        assert_eq!(header(&response, "access-control-allow-origin"), None, "{origin}");
    }
}

#[tokio::test]
async fn answers_and_errors_are_readable_by_listed_origins() {
    let server = allowing(&format!("\"{PAGE}\"")).await;
    let ask = |key: &str, origin: &str| {
        let request = server.post("/moderate").bearer_auth(key).json(&json!({ "input": "a" }));
        request.header("origin", origin).send()
    };
    for (key, expected) in [("alice", StatusCode::OK), ("eve", StatusCode::UNAUTHORIZED)] {
        let response = ask(key, PAGE).await.unwrap();
        assert_eq!(response.status(), expected);
        assert_eq!(header(&response, "access-control-allow-origin"), Some(PAGE));
        let exposed = header(&response, "access-control-expose-headers").unwrap();
        assert!(exposed.contains("x-request-id") && exposed.contains("x-infer-action"), "{exposed}");
        assert_eq!(header(&response, "access-control-allow-credentials"), None);
    }
    let other = ask("alice", "https://other.example").await.unwrap();
    assert_eq!((other.status(), header(&other, "access-control-allow-origin")), (StatusCode::OK, None));
    assert_eq!(header(&other, "vary"), Some("origin"));
}

#[tokio::test]
async fn wildcard_origin_reads_client_routes_only() {
    let server = allowing("\"*\"").await;
    let response = preflight(&server, "/moderate", "null").await;
    assert_eq!(header(&response, "access-control-allow-origin"), Some("*"));
    for path in ["/healthz", "/readyz", "/metrics"] {
        let response = server.get(path).header("origin", PAGE).send().await.unwrap();
        assert_eq!(
            (response.status(), header(&response, "access-control-allow-origin")),
            (StatusCode::OK, None)
        );
    }
}

#[tokio::test]
async fn no_origin_is_permitted_by_default() {
    let server = Server::builtin().await;
    assert_eq!(preflight(&server, "/moderate", PAGE).await.status(), StatusCode::METHOD_NOT_ALLOWED);
    let response = server.get("/v1/models").header("origin", PAGE).send().await.unwrap();
    assert_eq!((response.status(), header(&response, "access-control-allow-origin")), (StatusCode::OK, None));
    assert_eq!(header(&response, "vary"), None);
}

#[test]
fn invalid_origins_are_rejected() {
    let parse = |origin: &str| {
        Config::parse(
            &format!("[server]\ncors_origins = [{origin:?}]"),
            &Origin::File(repository().join("infer.toml")),
        )
    };
    for origin in ["*", "https://example.com", "http://localhost:3000", "http://[::1]:80a0", "app://infer"] {
        assert_eq!(parse(origin).is_ok(), !origin.contains("80a0"), "{origin}");
    }
    for origin in [
        "",
        "null",
        "example.com",
        "https://",
        "https://example.com/",
        "https://example.com/path",
        "https://Example.com",
        "https://example.com:443",
        "https://*.example.com",
        "https://user@example.com",
        "https://example.com, https://other.example",
    ] {
        let error = parse(origin).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("is not an origin"), "{origin}: {error}");
    }
}
