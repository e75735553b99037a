use std::fs;
use std::path::{Path, PathBuf};

use infer_config::{Config, Origin};
use infer_control::registry::Registry;
use reqwest::StatusCode;
use serde_json::json;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::harness::{Server, answer, repository};

/// Assembles `guest-models/hostile/wat/NAME.wat`.
fn assembled(name: &str) -> Vec<u8> {
    wat::parse_file(repository().join(format!("guest-models/hostile/wat/{name}.wat"))).unwrap()
}

/// Wraps a core module as a component of the world `moderator`.
fn moderator(module: &[u8]) -> Vec<u8> {
    let mut module = module.to_owned();
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(repository().join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some("moderator")).unwrap();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}

/// Loads an app whose only component is these bytes.
fn load(folder: &Path, name: &str, bytes: &[u8]) -> anyhow::Result<Registry> {
    load_with(folder, name, bytes, "")
}

fn load_with(folder: &Path, name: &str, bytes: &[u8], more: &str) -> anyhow::Result<Registry> {
    let path = folder.join(format!("{name}.wasm"));
    fs::write(&path, bytes).unwrap();
    let config = format!("[components.guest]\nsource = {path:?}\nroute = \"/moderate\"\n{more}");
    Registry::load(Config::parse(&config, &Origin::File(PathBuf::from("infer.toml"))).unwrap())
}

#[test]
fn invalid_guest_file_is_rejected_with_reason() {
    let folder = tempfile::tempdir().unwrap();
    let guest = fs::read(Path::new(env!("INFER_GUESTS")).join("moderate.wasm")).unwrap();
    let module = assembled("table");
    // A hundred megabytes in a custom section after a valid component.
    let mut large = guest.clone();
    let length = 100_u32 << 20;
    let leb = |value: u32| {
        (0..5).map(move |byte| (value >> (7 * byte)) as u8 & 0x7f | if byte < 4 { 0x80 } else { 0 })
    };
    large.push(0);
    large.extend(leb(length));
    large.resize(large.len() + length as usize, 0);
    let cases: [(&str, &[u8], &str); 8] = [
        ("truncated", &guest[..guest.len() / 2], "out of bounds"),
        ("flipped", &[&guest[..64], &[0xff; 64], &guest[128..]].concat(), "component `guest`"),
        ("empty", b"", "component `guest`"),
        ("core", &module, "core module"),
        ("large", &large, "expected at most"),
        ("files", &assembled("files"), "wasi:filesystem/preopens@0.2.0"),
        ("nothing", &assembled("nothing"), "nothing"),
        ("memory", &moderator(&assembled("memory")), "memory"),
    ];
    for (name, bytes, words) in cases {
        let error = match load(folder.path(), name, bytes) {
            Ok(_) => panic!("{name} is loaded"),
            Err(error) => format!("{error:#}"),
        };
        assert!(error.contains("guest") && error.contains(words), "{name}: no `{words}` in {error}");
        assert!(error.len() < 2_000, "{name}: {} bytes of an error", error.len());
    }
}

/// A core module around `body`, with a memory and an allocator before it; `body` may call
/// `compute`.
fn module(body: &str) -> Vec<u8> {
    let text = format!(
        "(module
            (import \"wasi:nn/inference@0.2.0-rc-2024-10-28\" \"[method]graph-execution-context.compute\"
                (func $compute (param i32 i32 i32 i32)))
            (memory (export \"memory\") 1)
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            {body})"
    );
    wat::parse_str(text).unwrap()
}

/// The exported function, with `body` as its code.
fn moderate(body: &str) -> String {
    format!("(func (export \"infer:guest/moderation@0.1.0#moderate\") (param i32 i32) (result i32) {body})")
}

#[tokio::test]
async fn attacks_from_below_the_interface_are_stopped() {
    let (stopped, late) = (StatusCode::INTERNAL_SERVER_ERROR, StatusCode::GATEWAY_TIMEOUT);
    let honest = moderate("(i32.const 0)");
    let forged =
        "(call $compute (i32.const 12345) (i32.const 0) (i32.const 0) (i32.const 2048)) (i32.const 0)";
    let endless = "(i32.store (i32.const 72) (i32.const 1024)) (i32.store (i32.const 76) (i32.const 0x7fffffff)) (i32.const 64)";
    let no_kind = "(i32.store8 (i32.const 64) (i32.const 7)) (i32.const 64)";
    let cases = [
        (
            "loop-in-start",
            format!("(func $begin (loop $on (br $on))) (start $begin) {honest}"),
            late,
            "guest_time",
        ),
        ("forged-handle", moderate(forged), stopped, "trap"),
        ("answer-out-of-memory", moderate("(i32.const 0x7ffffff8)"), stopped, "trap"),
        ("answer-of-no-kind", moderate(no_kind), stopped, "trap"),
        ("answer-of-endless-lists", moderate(endless), stopped, "trap"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, body, status, cause) in cases {
        let registry =
            load_with(folder.path(), name, &moderator(&module(&body)), "limits = { guest_ms = 100 }\n")
                .unwrap();
        let server = Server::start(registry.into()).await;
        let (found, body) = answer(server.post("/moderate").json(&json!({ "input": "x" }))).await;
        assert_eq!(found, status, "{name}: {body}");
        let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = format!("infer_component_calls_total{{component=\"guest\",outcome=\"{cause}\"}} 1");
        assert!(metrics.contains(&line), "{name} was stopped for another cause: {metrics}");
    }
}

#[tokio::test]
async fn guest_stopped_during_start_stops_alone() {
    let folder = tempfile::tempdir().unwrap();
    let registry = load(folder.path(), "start-trap", &moderator(&assembled("start-trap"))).unwrap();
    let server = Server::start(registry.into()).await;
    for _ in 0..64 {
        let (status, body) = answer(server.post("/moderate").json(&json!({ "input": "x" }))).await;
        assert_eq!(
            (status, &body["error"]["code"]),
            (StatusCode::INTERNAL_SERVER_ERROR, &json!("guest_stopped"))
        );
    }
}

#[tokio::test]
async fn table_growth_stops_at_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let registry = load(folder.path(), "table", &moderator(&assembled("table"))).unwrap();
    let server = Server::start(registry.into()).await;
    for _ in 0..64 {
        let (status, body) = answer(server.post("/moderate").json(&json!({ "input": "x" }))).await;
        assert_eq!((status, &body["results"][0]["flagged"]), (StatusCode::OK, &json!(true)), "{body}");
    }
}

#[tokio::test]
async fn bulk_instruction_is_stopped_midway() {
    // Over half a gigabyte in a single instruction, which takes far longer than the guest's limit.
    let grown = "(drop (memory.grow (i32.const 16383)))";
    let rest = "(i32.const 0)";
    let cases = [
        ("fill", format!("{grown} (memory.fill (i32.const 0) (i32.const 7) (i32.const 0x3fff0000)) {rest}")),
        (
            "fill-of-any-length",
            format!(
                "{grown} (memory.fill (i32.const 0) (i32.const 7) (i32.sub (i32.const 0x3fff0001) (local.get 1))) {rest}"
            ),
        ),
        (
            "copy-up",
            format!(
                "{grown} (memory.copy (i32.const 0x1fff0000) (i32.const 0) (i32.const 0x1fff0000)) {rest}"
            ),
        ),
        (
            "copy-down",
            format!(
                "{grown} (memory.copy (i32.const 0) (i32.const 0x1fff0000) (i32.const 0x1fff0000)) {rest}"
            ),
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, body) in cases {
        let limits = "limits = { guest_ms = 20, memory_bytes = 1073741824 }\n";
        let registry = load_with(folder.path(), name, &moderator(&module(&moderate(&body))), limits).unwrap();
        let server = Server::start(registry.into()).await;
        let (found, body) = answer(server.post("/moderate").json(&json!({ "input": "x" }))).await;
        assert_eq!(found, StatusCode::GATEWAY_TIMEOUT, "{name}: {body}");
        let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
        let line = "infer_component_calls_total{component=\"guest\",outcome=\"guest_time\"} 1";
        assert!(metrics.contains(line), "{name} was stopped for another cause: {metrics}");
    }
}
