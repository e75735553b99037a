//! Models on a hub on this machine.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{copy, moderator, printed};
use crate::harness::infer;

/// Commit that the hub reports.
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub with the repository `me/tiny`, whose files are in `folder`. It ends with the process.
fn hub(folder: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), &folder);
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    let head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    let path = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let file = ["main", COMMIT]
        .iter()
        .find_map(|revision| path.strip_prefix(&format!("/me/tiny/resolve/{revision}/")));
    let bytes = file.and_then(|file| fs::read(folder.join(file)).ok());
    let Some(bytes) = bytes else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let range =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let (start, end) =
        range.as_deref().unwrap_or("0-").split_once('-').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(bytes.len(), |end: usize| end + 1).min(bytes.len());
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nETag: \"v1\"\r\nX-Repo-Commit: {COMMIT}\r\nContent-Range: bytes {start}-{}/{}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        end - 1,
        bytes.len(),
        end - start
    )?;
    stream.write_all(&bytes[start..end])
}

/// `infer` with its cache in `folder`.
fn command(folder: &Path, hub: &str, arguments: &[&str]) -> Command {
    let mut command = infer(folder);
    command.args(arguments).env("INFER_CACHE", folder.join("cache")).env("HF_ENDPOINT", hub);
    command.env("HF_HOME", folder).env("NO_PROXY", "127.0.0.1");
    command
}

fn configure(folder: &Path, source: &str) {
    let config = format!("[server]\nonnxruntime = \"off\"\n{}", moderator(source));
    fs::write(folder.join("infer.toml"), config).unwrap();
}

#[test]
fn hub_model_is_pulled_locked_and_checked() {
    let (export, folder) = (copy("xlm-roberta"), tempfile::tempdir().unwrap());
    let address = hub(export.path().to_owned());
    let infer =
        |arguments: &[&str]| -> Output { command(folder.path(), &address, arguments).output().unwrap() };
    let source = format!("hub:me/tiny@{COMMIT}");
    configure(folder.path(), &source);
    let absent = printed(&infer(&["check"]));
    assert!(
        absent.contains(&format!("`{source}` is not imported yet: run `infer pull {source}`")),
        "{absent}"
    );
    let models = printed(&infer(&["models"]));
    assert!(models.contains("not pulled"), "{models}");

    let pulled = infer(&["pull"]);
    let text = printed(&pulled);
    assert!(pulled.status.success() && text.contains("self-test        passed"), "{text}");
    assert!(text.contains(&format!("Hugging Face hub, me/tiny at {COMMIT}")), "{text}");
    assert!(printed(&infer(&["pull", "judge"])).contains("is imported already"));
    assert!(printed(&infer(&["pull"])).contains("no model of infer.toml has to be pulled"));

    let locked = infer(&["lock"]);
    assert!(locked.status.success(), "{}", printed(&locked));
    let lock = fs::read_to_string(folder.path().join("infer.lock")).unwrap();
    assert!(lock.contains(&format!("source = \"{source}\"")), "{lock}");
    let checked = infer(&["check"]);
    assert!(checked.status.success(), "{}", printed(&checked));
    assert!(printed(&infer(&["list"])).contains(&format!("me--tiny@{COMMIT}")));

    // A changed card has another hash.
    let card = folder.path().join(format!("cache/models/me--tiny@{COMMIT}/card.toml"));
    let text = fs::read_to_string(&card).unwrap();
    fs::write(&card, text.replace("threshold = 0.5", "threshold = 0.6")).unwrap();
    let changed = printed(&infer(&["check"]));
    assert!(changed.contains("infer.lock` pins"), "{changed}");
}

#[test]
fn import_of_a_branch_prints_its_commit() {
    let (export, folder) = (copy("roberta"), tempfile::tempdir().unwrap());
    let address = hub(export.path().to_owned());
    configure(folder.path(), "builtin:toxic-bilstm");
    let infer =
        |arguments: &[&str]| -> Output { command(folder.path(), &address, arguments).output().unwrap() };
    let output = infer(&["import", "hub:me/tiny"]);
    let text = printed(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains(&format!("source = \"hub:me/tiny@{COMMIT}\"")), "{text}");
    assert!(folder.path().join("tiny/card.toml").is_file());
    let output = infer(&["import", "hub:me/tiny@main", "-o", "b", "--file", "model_quantized.onnx"]);
    assert!(output.status.success(), "{}", printed(&output));
    let output = infer(&["import", "hub:me/other"]);
    assert!(
        printed(&output).contains("`hub:me/other` does not exist, or has no config.json"),
        "{}",
        printed(&output)
    );

    fs::remove_dir_all(export.path().join("onnx")).unwrap();
    fs::write(export.path().join("model.safetensors"), "weights").unwrap();
    let output = infer(&["import", "hub:me/tiny", "-o", "c"]);
    assert_eq!(output.status.code(), Some(2), "{}", printed(&output));
    assert!(
        printed(&output).contains("optimum-cli export onnx --model me/tiny tiny-onnx"),
        "{}",
        printed(&output)
    );
}

#[test]
fn configured_hub_model_needs_a_revision() {
    let folder = tempfile::tempdir().unwrap();
    for (source, expected) in [
        ("hub:me/tiny", "names no revision, expected `hub:me/tiny@COMMIT`, because a branch changes"),
        ("hub:tiny@main", "is invalid, expected `hub:OWNER/NAME@REVISION`"),
        ("hub:me/../x@main", "is invalid, expected `hub:OWNER/NAME@REVISION`"),
    ] {
        configure(folder.path(), source);
        let output = command(folder.path(), "http://127.0.0.1:9", &["check"]).output().unwrap();
        let text = printed(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.contains("infer.toml:4: model `judge`: source `hub:") && text.contains(expected),
            "{text}"
        );
    }
}
