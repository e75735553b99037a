//! `infer pull` from a hub, also from hostile ones.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::setting::{FILE, Setting, bytes_below, hash, text};

/// A hub that serves `bytes` with ranges and breaks its first `broken` downloads half-way. Returns
/// its address and the counter of sent file bytes.
fn hub(bytes: Vec<u8>, tag: String, broken: usize) -> (String, Arc<AtomicUsize>) {
    stalling_hub(bytes, tag, broken, usize::MAX)
}

/// As [`hub`], but stalls forever after the first `stall` bytes of the file.
fn stalling_hub(bytes: Vec<u8>, tag: String, broken: usize, stall: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let sent = Arc::new(AtomicUsize::new(0));
    let count = sent.clone();
    std::thread::spawn(move || {
        let mut left = broken;
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), (&bytes, stall), &tag, &mut left, &count);
        }
    });
    (address, sent)
}

fn answer(
    mut stream: TcpStream,
    (bytes, stall): (&[u8], usize),
    tag: &str,
    broken: &mut usize,
    sent: &AtomicUsize,
) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).lines();
    let head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
    // The client was killed before it sent a request.
    if head.is_empty() {
        return Ok(());
    }
    let known = ["/me/tiny/resolve/main/t.gguf ", "SmolLM2", "Qwen3Guard"];
    if !known.iter().any(|known| head[0].contains(known)) {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let range =
        head.iter().find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
    let range = range.unwrap_or_else(|| "0-".to_owned());
    let (start, end) = range.split_once('-').unwrap();
    let start: usize = start.parse().unwrap();
    let end = end.parse().map_or(bytes.len(), |end: usize| end + 1);
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nETag: \"{tag}\"\r\nX-Repo-Commit: c0ffee\r\nContent-Range: bytes {start}-{}/{}\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        end - 1,
        bytes.len(),
        end - start
    )?;
    let mut body = &bytes[start..end];
    if body.len() > 1 && *broken > 0 {
        *broken -= 1;
        body = &body[..body.len() / 2];
    }
    if body.len() > 1 && start + body.len() > stall {
        body = &body[..stall.saturating_sub(start)];
        stream.write_all(body)?;
        sent.fetch_add(body.len(), Ordering::Relaxed);
        loop {
            std::thread::park();
        }
    }
    sent.fetch_add(body.len(), Ordering::Relaxed);
    stream.write_all(body)
}

/// `infer` in `folder`, which is also its cache, with `hub` as the hub.
fn command(folder: &Path, arguments: &[&str], hub: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    command.current_dir(folder).args(arguments).env("INFER_CACHE", folder).env("HF_ENDPOINT", hub);
    command.env("HF_HOME", folder).env("NO_PROXY", "127.0.0.1").env_remove("INFER_CONFIG");
    command
}

#[test]
fn hub_pull_resumes_after_a_broken_connection() {
    let setting = Setting::new();
    let (address, sent) = hub(setting.bytes.clone(), hash(&setting.bytes), 2);
    setting.assert_pulled(&setting.command("hub", &address).output().unwrap());
    // Each byte once, plus the one of the size request.
    assert_eq!(sent.load(Ordering::Relaxed), setting.bytes.len() + 1);
}

#[test]
fn killed_pull_leaves_no_partial_model() {
    let place = "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    let bytes = std::fs::read(crate::store::pulled("smollm2").join("../..").join(place)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("infer.toml"),
        "[server]\nonnxruntime = \"off\"\n[models.a]\nsource = \"builtin:smollm2\"\n",
    )
    .unwrap();
    let infer = |arguments: &[&str], hub: &str| command(folder.path(), arguments, hub);
    let pull = ["pull", "smollm2", "--from", "hub"];
    let tag = hash(&bytes);
    for stall in [1, bytes.len() / 2, bytes.len() - 1] {
        let (address, sent) = stalling_hub(bytes.clone(), tag.clone(), 0, stall);
        let mut child = infer(&pull, &address).spawn().unwrap();
        // One byte is sent in answer to the size request; the others continue a partial download.
        while sent.load(Ordering::Relaxed) < 2 {
            assert!(child.try_wait().unwrap().is_none(), "the pull ended by itself");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!folder.path().join(place).exists(), "{stall}");
        let blobs = std::fs::read_dir(folder.path().join("blobs")).into_iter().flatten().count();
        assert!(blobs <= 1, "{stall}: the lock alone");
        let printed = text(&infer(&["check"], &address).output().unwrap());
        assert!(
            printed.contains("does not exist, expected 98362432 bytes")
                && printed.contains("run `infer pull smollm2`"),
            "{printed}"
        );
        // A single byte may not have reached the disk.
        let printed = text(&infer(&["verify"], &address).output().unwrap());
        assert!(
            stall == 1 || printed.contains("`smollm2` is incomplete; `infer pull smollm2` resumes"),
            "{printed}"
        );
    }
    let (address, sent) = hub(bytes.clone(), tag, 0);
    let output = infer(&pull, &address).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(sent.load(Ordering::Relaxed) < bytes.len(), "it went on");
    let printed = text(&infer(&["verify"], &address).output().unwrap());
    assert!(printed.contains("`smollm2` matches its card"), "{printed}");
    assert!(text(&infer(&["check"], &address).output().unwrap()).contains("the configuration is valid"));
}

#[test]
fn hub_file_of_another_size_is_rejected() {
    let setting = Setting::new();
    let mut other = setting.bytes.clone();
    other[0] ^= 1;
    let (address, sent) = hub(other.clone(), hash(&other), 0);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains(&format!("has sha256 {} on the hub", hash(&other))), "{}", text(&output));
    // At most the byte of the size request, whose header may have been enough.
    assert!(sent.load(Ordering::Relaxed) <= 1);

    // A tag that is not a hash proves nothing; the file's own hash does.
    let (address, _) = hub(other.clone(), "v2".to_owned(), 0);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains(&format!("has sha256 {}", hash(&other))), "{}", text(&output));
    setting.assert_absent();

    let (address, _) = hub(setting.bytes[1..].to_vec(), "v2".to_owned(), 0);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains("is 299999 bytes on the hub, its card says 300000"), "{}", text(&output));
}

/// A hub that answers the size request with `size`, and every other request with endless zeros.
fn endless_hub(size: usize, tag: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let head = format!("HTTP/1.1 206 Partial Content\r\nETag: \"{tag}\"\r\nConnection: close\r\n");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head.clone();
            std::thread::spawn(move || -> std::io::Result<()> {
                let lines = BufReader::new(stream.try_clone()?).lines();
                let asked: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                if asked.iter().any(|line| line.to_lowercase() == "range: bytes=0-0") {
                    return write!(
                        stream,
                        "{head}Content-Range: bytes 0-0/{size}\r\nContent-Length: 1\r\n\r\n\0"
                    );
                }
                write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
                loop {
                    stream.write_all(b"40000\r\n")?;
                    stream.write_all(&[0; 0x40000])?;
                    stream.write_all(b"\r\n")?;
                }
            });
        }
    });
    address
}

#[test]
fn endless_hub_is_stopped_at_the_files_size() {
    let setting = Setting::new();
    let address = endless_hub(setting.bytes.len(), "v1");
    let mut child = setting.command("hub", &address).spawn().unwrap();
    let mut max = 0;
    while child.try_wait().unwrap().is_none() {
        max = max.max(bytes_below(&setting.folder()));
    }
    assert!(max < setting.bytes.len() as u64 + 10_000, "{max} bytes");
    setting.assert_absent();
    // The wrong file was removed.
    assert!(bytes_below(&setting.folder().join(".pull")) == 0);
    // If the bytes match, anything after them is not read.
    setting.card(&vec![0; 300_000]);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(std::fs::metadata(setting.folder().join(FILE)).unwrap().len(), 300_000);
}

#[test]
fn redirect_loop_is_abandoned() {
    let setting = Setting::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let head: Vec<_> = lines.map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            if head.first().is_some_and(|line| line.contains("/endless")) {
                // An endless head.
                let line = format!("x: {}\r\n", "y".repeat(1000));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
                while stream.write_all(line.as_bytes()).is_ok() {}
                continue;
            }
            let _ = stream.write_all(
                b"HTTP/1.1 302 Found\r\nLocation: /me/tiny/again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains("more than 8 redirects"), "{}", text(&output));
    let output = setting.command("hub", &format!("{address}/endless")).output().unwrap();
    assert!(text(&output).contains("hub: cannot request `t.gguf`"), "{}", text(&output));
    setting.assert_absent();
}

#[test]
fn first_pull_of_a_preset_pins_its_hash() {
    let bytes = std::fs::read("tests/data/language/qwen3-q8_0.gguf").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = "[server]\nonnxruntime = \"off\"\n[models.guard]\nsource = \"builtin:qwen3guard-0.6b\"\nthreads = 1\n";
    std::fs::write(folder.path().join("infer.toml"), config).unwrap();
    let infer = |arguments: &[&str], hub: &str| command(folder.path(), arguments, hub).output().unwrap();
    let card = folder.path().join("models/qwen3guard-0.6b/card.toml");
    // Nothing is pinned without a hash, and nothing is loaded before the pull.
    let (untagged, _) = hub(bytes.clone(), "a tag".to_owned(), 0);
    let printed = text(&infer(&["pull", "qwen3guard-0.6b"], &untagged));
    assert!(printed.contains("states no sha256") && !card.exists(), "{printed}");
    let printed = text(&infer(&["check"], &untagged));
    assert!(printed.contains("is not pulled yet: run `infer pull qwen3guard-0.6b`"), "{printed}");
    // The first pull shows and pins what the hub states.
    let (address, _) = hub(bytes.clone(), hash(&bytes), 0);
    let output = infer(&["pull"], &address);
    let printed = text(&output);
    for expected in ["not by Qwen", "Apache-2.0", "commit c0ffee", &hash(&bytes), "verified"] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    assert!(output.status.success(), "{printed}");
    let pinned = std::fs::read_to_string(&card).unwrap();
    assert!(pinned.contains(&hash(&bytes)) && pinned.contains("revision = \"c0ffee\""), "{pinned}");
    // The small file is a model, so its questions can be asked.
    let printed = text(&infer(&["check"], &address));
    assert!(printed.contains("guard") && !printed.contains("error"), "{printed}");
    // Other bytes under the same name are rejected from now on.
    let other = [&bytes[..], b"more"].concat();
    std::fs::remove_dir_all(folder.path().join("blobs")).unwrap();
    let (address, _) = hub(other.clone(), hash(&other), 0);
    let printed = text(&infer(&["pull", "qwen3guard-0.6b"], &address));
    assert!(printed.contains("bytes on the hub, its card says"), "{printed}");
    assert_eq!(std::fs::read_to_string(&card).unwrap(), pinned);
}
