use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Uri};
use axum::routing::any;
use infer_config::keys::KeyHash;
use infer_config::{Config, Origin};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Server, answer, eventually, guest, load, photo, repository};

/// The attackers on /attack, with `more` in their section.
fn attackers(more: &str) -> String {
    format!("[components.attack]\nsource = {:?}\nroute = \"/attack/...\"\n{more}\n", guest("hostile-http"))
}

async fn attacked(more: &str) -> Server {
    Server::start(Arc::new(load(&attackers(more)))).await
}

async fn say(server: &Server, path: &str) -> (StatusCode, String) {
    let response = server.get(path).send().await.unwrap();
    let status = response.status();
    (status, response.text().await.unwrap())
}

fn code(body: &str) -> String {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"));
    body["error"]["code"].as_str().unwrap().to_owned()
}

/// A server that echoes requests.
async fn mirror() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let echo = async |uri: Uri, headers: HeaderMap, body: Bytes| {
        let names: Vec<_> = headers.keys().map(ToString::to_string).collect();
        ([("x-mirror", "yes")], format!("{uri} {} {}", names.join(","), body.len()))
    };
    let router = Router::new().fallback(any(echo));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test]
async fn gate_forwards_permitted_requests() {
    let upstream = mirror().await;
    let config = |settings: &str, hosts: &str| {
        format!(
            "[models.nsfw]\nsource = \"builtin:nsfwjs-mobilenet_v2-int8\"\nsessions = 1\n[components.gate]\n\
             source = {:?}\nroute = \"/upload/...\"\nmodels = {{ image = \"nsfw\" }}\n{hosts}\nsettings = {{ {settings} }}\n",
            guest("gate")
        )
    };
    let allowed = format!("allowed_outbound_hosts = [\"http://{upstream}\"]");
    let to = format!("upstream = \"http://{upstream}/store\"");
    let image = photo("coffee.jpg");
    let upload = async |server: &Server, body: Vec<u8>| {
        let request =
            server.post("/upload/a/b?c=d").header("content-type", "image/jpeg").header("cookie", "a=b");
        request.body(body).send().await.unwrap()
    };

    let server = Server::start(Arc::new(load(&config(&to, &allowed)))).await;
    let passed = upload(&server, image.clone()).await;
    assert_eq!(passed.status(), StatusCode::OK);
    assert_eq!(passed.headers()["x-mirror"], "yes");
    let received = passed.text().await.unwrap();
    let (uri, rest) = received.split_once(' ').unwrap();
    assert_eq!(uri, "/store/upload/a/b?c=d");
    let (names, length) = rest.split_once(' ').unwrap();
    assert_eq!(length, image.len().to_string());
    assert!(names.contains("content-type") && !names.contains("cookie"), "{names}");
    let refused = upload(&server, b"no image".to_vec()).await;
    assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    for (name, value, words) in [
        ("content-encoding", "gzip", "`gzip`"),
        ("content-type", "Multipart/form-data; boundary=x", "is a form"),
    ] {
        let request = server.post("/upload").header(name, value).body(image.clone());
        let (status, body) = answer(request).await;
        let error = body["error"].as_str().unwrap();
        assert!(status == StatusCode::UNSUPPORTED_MEDIA_TYPE && error.contains(words), "{status} {error}");
    }
    let (status, body) = say(&server, "/upload").await;
    assert_eq!((status, body.contains("expected POST")), (StatusCode::METHOD_NOT_ALLOWED, true), "{body}");

    // The photo is neutral: refusing `Neutral` shows that the model runs.
    let strict = format!("{to}, refuse = \"Neutral\"");
    let server = Server::start(Arc::new(load(&config(&strict, &allowed)))).await;
    let refused = upload(&server, image.clone()).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["refused"], "Neutral");
    assert!(refused["score"].as_f64().unwrap() > 0.5, "{refused}");

    // Without `allowed_outbound_hosts` there is no network.
    let server = Server::start(Arc::new(load(&config(&to, "")))).await;
    assert_eq!(upload(&server, image.clone()).await.status(), StatusCode::BAD_GATEWAY);
    let server = Server::start(Arc::new(load(&config("", "")))).await;
    let judged: Value = upload(&server, image).await.json().await.unwrap();
    assert_eq!(judged["refused"], Value::Null);
}

#[tokio::test]
async fn request_reaches_its_component_unchanged() {
    let server = attacked("").await;
    let request = server.post("/attack/echo?a=b%20c").header("x-mine", "ü").body("a body");
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.starts_with("Method::Post /attack/echo?a=b%20c\n"), "{text}");
    assert!(text.contains("\nx-mine: ü\n") && text.ends_with("\na body"), "{text}");
    assert!(!text.contains("\nhost:"), "{text}");
    for path in ["/attack", "/attack/"] {
        assert_eq!(say(&server, path).await, (StatusCode::NOT_FOUND, "no such attack".to_owned()), "{path}");
    }
    assert_eq!(say(&server, "/attacked").await.0, StatusCode::NOT_FOUND);
    let client = reqwest::Client::new();
    let put = client.request(Method::PUT, format!("http://{}/attack/echo", server.address()));
    assert!(put.send().await.unwrap().text().await.unwrap().starts_with("Method::Put"));
}

#[tokio::test]
async fn api_key_is_not_passed_to_components() {
    let key = "ik-00000000000000000000000000000000";
    let hash = KeyHash::of(key);
    let config = format!("{}[keys.one]\nhash = \"{hash}\"\ncomponents = [\"attack\"]\n", attackers(""));
    let server = Server::start(Arc::new(load(&config))).await;
    assert_eq!(say(&server, "/attack/echo").await.0, StatusCode::UNAUTHORIZED);
    let text = server.get("/attack/echo").bearer_auth(key).send().await.unwrap().text().await.unwrap();
    assert!(
        text.starts_with("Method::Get") && !text.contains(key) && !text.contains("authorization"),
        "{text}"
    );
    // Without API keys, the header passes to the component.
    let server = attacked("").await;
    let text = server.get("/attack/echo").bearer_auth("theirs").send().await.unwrap().text().await.unwrap();
    assert!(text.contains("authorization: Bearer theirs"), "{text}");
}

#[tokio::test]
async fn answer_is_streamed_as_written() {
    let server = attacked("").await;
    let mut response = server.get("/attack/slow?300").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut pieces = Vec::new();
    while let Some(piece) = response.chunk().await.unwrap() {
        pieces.push(String::from_utf8(piece.to_vec()).unwrap());
    }
    // The first piece arrived before the guest slept, without waiting for the others.
    assert_eq!(pieces, ["one ", "two ", "three"]);
}

#[tokio::test]
async fn invalid_answer_is_reported_to_the_client() {
    let server = attacked("limits = { guest_ms = 1000 }").await;
    let cases = [
        ("silent", StatusCode::INTERNAL_SERVER_ERROR, "guest_failed"),
        ("fail", StatusCode::INTERNAL_SERVER_ERROR, "guest_failed"),
        ("informational", StatusCode::INTERNAL_SERVER_ERROR, "guest_failed"),
        ("trap", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("forbidden-header", StatusCode::INTERNAL_SERVER_ERROR, "guest_failed"),
        ("many-headers", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("random-bytes", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("pollables", StatusCode::INTERNAL_SERVER_ERROR, "guest_stopped"),
        ("spin", StatusCode::GATEWAY_TIMEOUT, "guest_time"),
    ];
    for (name, status, expected) in cases {
        let (found, body) = say(&server, &format!("/attack/{name}")).await;
        assert_eq!((found, code(&body).as_str()), (status, expected), "{name}: {body}");
    }
    let text = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    for (outcome, count) in [("wrong_answer", 4), ("handles", 1), ("guest_time", 1), ("trap", 3)] {
        let line =
            format!("infer_component_calls_total{{component=\"attack\",outcome=\"{outcome}\"}} {count}");
        assert!(text.contains(&line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn truncated_body_is_reported() {
    let server = attacked("").await;
    for name in ["trap-midway", "short", "unfinished"] {
        // The connection may close before the head is sent.
        if let Ok(response) = server.get(&format!("/attack/{name}")).send().await {
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            assert!(response.bytes().await.is_err(), "{name}");
        }
    }
    assert_eq!(say(&server, "/attack/print").await, (StatusCode::OK, "printed".to_owned()));
}

/// A single instance, so that the next request waits for it.
const ALONE: &str = "[server]\ninstances = 1\nwaiting = 4\ndeadline_ms = 20000\n";

#[tokio::test]
async fn disconnected_client_frees_the_instance() {
    let config = ALONE.to_owned() + &attackers("limits = { guest_ms = 20000 }");
    let server = Server::start(Arc::new(load(&config))).await;
    // A guest that writes gets an error; one that does not is stopped.
    for attack in ["endless", "slow?15000"] {
        let mut client = TcpStream::connect(server.address()).await.unwrap();
        let request = format!("GET /attack/{attack} HTTP/1.1\r\nhost: x\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        assert!(client.read(&mut [0; 4096]).await.unwrap() > 0);
        drop(client);
        let next = tokio::time::timeout(Duration::from_secs(10), say(&server, "/attack/echo"));
        assert_eq!(next.await.unwrap().0, StatusCode::OK, "{attack}");
    }
    let gone = "infer_component_calls_total{component=\"attack\",outcome=\"gone\"}";
    eventually(async || server.get("/metrics").send().await.unwrap().text().await.unwrap().contains(gone))
        .await;
}

#[tokio::test]
async fn component_stays_within_its_instances() {
    let other = format!("[components.other]\nsource = {:?}\nroute = \"/other/...\"\n", guest("hostile-http"));
    let config = "[server]\ninstances = 2\nwaiting = 0\n".to_owned()
        + &attackers("limits = { instances = 1 }")
        + &other;
    let server = Server::start(Arc::new(load(&config))).await;
    let streaming = server.get("/attack/slow?20000").send().await.unwrap();
    assert_eq!(streaming.status(), StatusCode::OK);
    let (status, body) = say(&server, "/attack/echo").await;
    assert_eq!((status, code(&body).as_str()), (StatusCode::TOO_MANY_REQUESTS, "busy"));
    assert_eq!(say(&server, "/other/echo").await.0, StatusCode::OK);
    drop(streaming);
    eventually(async || say(&server, "/attack/echo").await.0.is_success()).await;
}

#[tokio::test]
async fn endless_answer_ends_at_the_deadline() {
    let config = "[server]\ndeadline_ms = 600\n".to_owned() + &attackers("limits = { guest_ms = 20000 }");
    let server = Server::start(Arc::new(load(&config))).await;
    let endless = server.get("/attack/endless").send().await.unwrap();
    assert_eq!(endless.status(), StatusCode::OK);
    assert!(endless.bytes().await.is_err(), "it has no end");
    // A guest that continues after its answer is stopped at the deadline too; its client has the
    // complete answer.
    assert_eq!(say(&server, "/attack/linger").await, (StatusCode::OK, "answered".to_owned()));
    let stopped = "infer_component_calls_total{component=\"attack\",outcome=\"deadline\"} 2";
    eventually(async || server.get("/metrics").send().await.unwrap().text().await.unwrap().contains(stopped))
        .await;
}

#[tokio::test]
async fn only_listed_hosts_are_reachable() {
    let there = mirror().await;
    let server = attacked(&format!("allowed_outbound_hosts = [\"http://{there}\"]")).await;
    let (status, body) = say(&server, &format!("/attack/fetch?http://{there}/a")).await;
    assert_eq!((status, body.starts_with("/a ")), (StatusCode::OK, true), "{body}");
    let port = there.port();
    for url in [
        format!("http://localhost:{port}/"),
        format!("https://{there}/"),
        format!("http://{there}@example.com/"),
        "http://127.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "http://169.254.169.254/latest".to_owned(),
    ] {
        let (status, body) = say(&server, &format!("/attack/fetch?{url}")).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{url}: {body}");
    }
    // Sixteen of twenty requests: the limit.
    assert_eq!(say(&server, &format!("/attack/fetch-many?http://{there}/")).await.1, "16");
    let alone = attacked("").await;
    let (status, body) = say(&alone, &format!("/attack/fetch?http://{there}/")).await;
    assert_eq!((status, body.contains("does not allow")), (StatusCode::BAD_GATEWAY, true), "{body}");
}

#[tokio::test]
async fn clocks_and_randomness_follow_the_configuration() {
    let server = attacked("").await;
    let clocks = say(&server, "/attack/clocks").await.1;
    let [seconds, wall, monotonic] =
        clocks.split(' ').map(|number| number.parse::<u64>().unwrap()).collect::<Vec<_>>()[..]
    else {
        panic!("{clocks}")
    };
    assert!(seconds > 1_700_000_000 && wall > 0 && monotonic >= 5_000_000, "{clocks}");
    let random = say(&server, "/attack/random").await.1;
    assert_ne!(say(&server, "/attack/random").await.1, random);

    let server = attacked("clock = \"frozen\"\nrandom_seed = 7").await;
    let clocks = say(&server, "/attack/clocks").await.1;
    assert!(clocks.ends_with(" 0 0"), "{clocks}");
    let random = say(&server, "/attack/random").await.1;
    assert_eq!(say(&server, "/attack/random").await.1, random);
    let other = attacked("random_seed = 8").await;
    assert_ne!(say(&other, "/attack/random").await.1, random);
    assert_eq!(say(&server, "/attack/around").await.1, "stdin: nothing");
}

#[tokio::test]
async fn files_and_environment_are_absent() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read(repository().join("guest-models/hostile-http/wat/around.wat")).unwrap();
    let path = folder.path().join("around.wasm");
    std::fs::write(&path, wat::parse_bytes(&text).unwrap()).unwrap();
    let config = format!("[components.around]\nsource = {path:?}\nroute = \"/around\"\n");
    let server = Server::start(Arc::new(load(&config))).await;
    let (status, body) = say(&server, "/around").await;
    // A guest that reached a file or the environment would trap, which is `guest_stopped`.
    assert_eq!((status, code(&body).as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "guest_failed"));
}

#[test]
fn sockets_are_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let text = "(component (import \"wasi:sockets/network@0.2.0\" (instance)) (instance $none) \
                (export \"wasi:http/incoming-handler@0.2.0\" (instance $none)))";
    let path = folder.path().join("sockets.wasm");
    std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
    let origin = Origin::File(repository().join("infer.toml"));
    let config = Config::parse(&format!("[components.a]\nsource = {path:?}\n"), &origin).unwrap();
    let error = format!("{:#}", infer_control::registry::Registry::load(config).err().unwrap());
    assert!(error.contains("imports `wasi:sockets/network@0.2.0`, which guests may not import"), "{error}");
}

#[test]
fn handler_settings_are_rejected_for_other_worlds() {
    let moderator = "[components.a]\nsource = \"builtin:moderate\"\n";
    let cases = [
        ("allowed_outbound_hosts = [\"https://example.com\"]\n", "`allowed_outbound_hosts` is for"),
        ("clock = \"frozen\"\n", "`clock` is for"),
        ("random_seed = 1\n", "`random_seed` is for"),
        ("route = \"/a/...\"\n", "which answers one path"),
    ];
    for (line, expected) in cases {
        let config = format!("{moderator}{line}");
        let origin = Origin::File(repository().join("infer.toml"));
        let error =
            infer_control::registry::Registry::load(Config::parse(&config, &origin).unwrap()).err().unwrap();
        assert!(format!("{error:#}").contains(expected), "{line}: {error:#}");
    }
    let handler = format!("[components.a]\nsource = {:?}\n", guest("hostile-http"));
    let mistakes = [
        ("allowed_outbound_hosts = [\"example.com\"]\n", "it has no scheme"),
        ("clock = \"slow\"\n", "expected `system` or `frozen`"),
        (
            "route = \"/a/...\"\n[components.b]\nsource = \"builtin:moderate\"\nroute = \"/a/\"\n",
            "already used by component `a`",
        ),
        ("route = \"/v2/...\"\n", "is the server's own"),
    ];
    for (line, expected) in mistakes {
        let origin = Origin::File(repository().join("infer.toml"));
        let error = Config::parse(&format!("{handler}{line}"), &origin).unwrap_err();
        assert!(error.to_string().contains(expected), "{line}: {error}");
    }
}

#[tokio::test]
async fn handler_is_listed_but_cannot_moderate() {
    let server = attacked("").await;
    let (_, list) = answer(server.get("/v1/models")).await;
    assert_eq!(list["data"][0]["world"], "handler", "{list}");
    assert_eq!(list["data"][0]["route"], "/attack/...", "{list}");
    let body = json!({ "input": "x", "model": "attack" });
    assert_eq!(answer(server.post("/v1/moderations").json(&body)).await.0, StatusCode::NOT_FOUND);
}
