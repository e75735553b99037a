//! A child process that is isolated from the user's environment, and limited in time, output and
//! file size.
//!
//! - It leads a process group, which is killed when it ends, when it makes no progress for too
//!   long, and when this program ends in any way: a watcher in the group waits for the end of a
//!   pipe that only this program holds.
//! - The system limits the size of each file that it writes.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process_group};

use super::growth::Pace;
use crate::limits::{MAX_MESSAGE_BYTES, MAX_PIPE_TIME};

/// Interval between polls of the client.
const LOOK: Duration = Duration::from_millis(50);

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

/// A running client with its process group, which is killed on drop.
pub(super) struct Process {
    child: Child,
    words: mpsc::Receiver<Vec<u8>>,
}

impl Process {
    /// Starts `command`, which [`isolated`] has returned.
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command.spawn().context("cannot run `/bin/sh`")?;
        let (sender, words) = mpsc::channel();
        if let Some(pipe) = child.stderr.take() {
            // The pipe closes when every process of the group has ended.
            thread::spawn(move || sender.send(last_words(pipe)));
        }
        Ok(Process { child, words })
    }

    /// Waits for the client to end. Fails if `progress` fails or does not advance for `silence`.
    pub(super) fn ended(
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
            pace.record(now.abs_diff(last), Instant::now())?;
            last = now;
            thread::sleep(LOOK);
        }
    }

    /// Kills the rest of its process group and returns the tail of its messages.
    pub(super) fn stop(mut self) -> Vec<u8> {
        self.kill();
        self.words.recv_timeout(MAX_PIPE_TIME).unwrap_or_default()
    }

    fn kill(&mut self) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Returns a command that runs `program` with a clean environment in the folder `empty`, as the
/// leader of a process group that ends with this program. Each file that it writes has at most
/// about `max_bytes` bytes.
pub(super) fn isolated(program: &Path, empty: &Path, max_bytes: u64) -> Command {
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
pub(super) fn program(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path())
        .map(|folder| folder.join(name))
        .find(|path| rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file())
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
    fn start(script: &str, max_bytes: u64) -> Process {
        let mut command = isolated(Path::new("/bin/sh"), Path::new("/"), max_bytes);
        Process::start(command.args(["-c", script])).unwrap()
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
}
