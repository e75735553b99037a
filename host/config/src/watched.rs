//! The files that a configuration depends on, and their state when it was read. `watch` compares it
//! with their current state.
//!
//! Small files are compared by content, because two edits may fall into one tick of a file system's
//! clock. Weights are compared by metadata, once their last change is older than such a tick; until
//! then they count as changed.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use infer_models::source::HUB;
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use crate::limits::{MAX_HASHED_BYTES, MAX_WATCHED_CONFIG_BYTES, MAX_WATCHED_FILES};
use crate::place::base;
use crate::{Origin, lock};

/// Longest tick of a file system's clock, that of FAT.
const TICK: Duration = Duration::from_secs(2);

/// States of files by path; `None` for a missing file.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<PathBuf, Option<FileState>>);

/// State of a file.
#[derive(Clone, Debug)]
struct FileState {
    stamp: Stamp,
    /// SHA-256 of a small file.
    content: Option<[u8; 32]>,
    /// True if a later change cannot have the same time stamp.
    is_settled: bool,
}

/// Identity and times of a file: device and inode, size, and the seconds and nanoseconds of its
/// last modification and status change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp {
    identity: (u64, u64),
    size: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    /// Records the files of the configuration `text`, which was read from `path`. Call it before
    /// any of them is loaded, so that the loaded content is as recorded or newer.
    pub fn read(path: &Path, text: &str) -> Self {
        Files::of(path, Some(text), &Files::default())
    }

    /// Records the current state of the files of the configuration at `path`. Unchanged files that
    /// `before` knows are not read again.
    pub fn current(path: &Path, before: &Files) -> Self {
        let text = read_regular_file(path, MAX_WATCHED_CONFIG_BYTES)
            .and_then(|(_, bytes)| String::from_utf8(bytes).ok());
        Files::of(path, text.as_deref(), before)
    }

    fn of(path: &Path, text: Option<&str>, before: &Files) -> Self {
        let mut files = Files::default();
        let content = text.map(|text| Sha256::digest(text).into());
        let state = FileState { stamp: Stamp::default(), content, is_settled: true };
        files.0.insert(path.to_owned(), text.map(|_| state));
        let origin = Origin::File(path.to_owned());
        if let Some(lock) = lock::path(&origin) {
            files.add(&lock, before);
        }
        let base = base(&origin);
        for name in text.map(named_paths).unwrap_or_default() {
            let source = base.join(name);
            files.add(&source, before);
            if !source.is_dir() {
                continue;
            }
            let card = source.join("card.toml");
            files.add(&card, before);
            let paths = read_regular_file(&card, MAX_HASHED_BYTES).map(|(_, bytes)| card_paths(&bytes));
            for file in paths.unwrap_or_default() {
                files.add(&source.join(file), before);
            }
        }
        files
    }

    fn add(&mut self, path: &Path, before: &Files) {
        if self.0.len() < MAX_WATCHED_FILES && !self.0.contains_key(path) {
            let known = before.0.get(path).and_then(Option::as_ref);
            self.0.insert(path.to_owned(), FileState::at(path, known));
        }
    }

    /// Returns true if `now` would load the same content.
    pub fn is_same(&self, now: &Files) -> bool {
        self.0.len() == now.0.len()
            && self.0.iter().zip(&now.0).all(|((path, state), (other_path, now))| {
                path == other_path
                    && match (state, now) {
                        (None, None) => true,
                        (Some(state), Some(now)) => state.is_same(now),
                        _ => false,
                    }
            })
    }

    /// Returns true if nothing has been written since `before`, so that no file is read while it is
    /// being written.
    pub fn is_stable(&self, before: &Files) -> bool {
        before.is_same(self) && self.0.values().flatten().all(FileState::is_certain)
    }
}

impl FileState {
    fn at(path: &Path, known: Option<&FileState>) -> Option<FileState> {
        let metadata = fs::metadata(path).ok()?;
        let stamp = Stamp::of(&metadata);
        if let Some(known) = known
            && known.stamp == stamp
            && known.is_settled
        {
            return Some(known.clone());
        }
        if metadata.is_file()
            && metadata.len() <= MAX_HASHED_BYTES
            && let Some((metadata, bytes)) = read_regular_file(path, MAX_HASHED_BYTES)
        {
            let content = Some(Sha256::digest(bytes).into());
            return Some(FileState {
                stamp: Stamp::of(&metadata),
                content,
                is_settled: is_settled(&metadata),
            });
        }
        Some(FileState { stamp, content: None, is_settled: is_settled(&metadata) })
    }

    fn is_certain(&self) -> bool {
        self.content.is_some() || self.is_settled
    }

    fn is_same(&self, now: &FileState) -> bool {
        match (self.content, now.content) {
            (Some(content), Some(now)) => content == now,
            (None, None) => self.is_settled && self.stamp == now.stamp,
            _ => false,
        }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let identity = (metadata.dev(), metadata.ino());
        if metadata.is_dir() {
            // A folder's files are compared by their own names.
            return Stamp { identity, ..Stamp::default() };
        }
        Stamp {
            identity,
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Returns true if the last change is older than a tick. A time in the future comes from another
/// machine's clock and counts as old.
fn is_settled(metadata: &Metadata) -> bool {
    let changed =
        Duration::new(metadata.ctime().max(0) as u64, metadata.ctime_nsec().clamp(0, 999_999_999) as u32);
    let since = SystemTime::now().duration_since(UNIX_EPOCH + changed);
    metadata.is_dir() || since.map_or(true, |since| since > TICK)
}

/// Reads the regular file at `path`, at most `max` bytes, with its metadata. Opening does not
/// block, even on a FIFO.
fn read_regular_file(path: &Path, max: u64) -> Option<(Metadata, Vec<u8>)> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= max).then_some((metadata, bytes))
}

/// Returns the paths that a configuration names, even one with mistakes: the mistake may be a file
/// that is still missing.
fn named_paths(text: &str) -> Vec<String> {
    let Ok(file) = text.parse::<Table>() else { return Vec::new() };
    let sections = |key| file.get(key).and_then(Value::as_table).into_iter().flat_map(Table::values);
    let mut sources = Vec::new();
    for model in sections("models") {
        sources.extend(model.get("source"));
        sources.extend(model.get("heads").and_then(Value::as_array).into_iter().flatten());
        sources.extend(model.get("next").and_then(|next| next.get("source")));
    }
    for component in sections("components") {
        sources.extend(component.get("source"));
        sources.extend(component.get("thresholds"));
        let tests = component.get("tests").and_then(Value::as_array);
        sources.extend(tests.into_iter().flatten().filter_map(|test| test.get("image")));
    }
    for upstream in sections("upstreams") {
        sources.extend([upstream.get("key_file"), upstream.get("ca_file")].into_iter().flatten());
    }
    let paths = sources.into_iter().filter_map(Value::as_str);
    let is_path = |text: &&str| {
        !text.starts_with("builtin:") && !text.starts_with(HUB) && !crate::data_url::is_data(text)
    };
    paths.filter(is_path).map(str::to_owned).collect()
}

/// Returns the paths that a card lists.
fn card_paths(card: &[u8]) -> Vec<String> {
    let card = std::str::from_utf8(card).ok().and_then(|text| text.parse::<Table>().ok());
    let files = card.as_ref().and_then(|card| card.get("files")).and_then(Value::as_array);
    let paths = files.into_iter().flatten().filter_map(|file| file.get("path").and_then(Value::as_str));
    paths.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Creates a folder with a configuration, a model and its files.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir_all(folder.path().join("model/deep")).unwrap();
        write("infer.toml", b"[models.m]\nsource = \"model\"\n[components.c]\nsource = \"c.wasm\"\n");
        write("c.wasm", b"component");
        write("model/card.toml", b"[[files]]\npath = \"deep/model.onnx\"\n");
        write("model/deep/model.onnx", &vec![7; 2 * MAX_HASHED_BYTES as usize]);
        folder
    }

    fn read(folder: &tempfile::TempDir) -> Files {
        let path = folder.path().join("infer.toml");
        Files::read(&path, &fs::read_to_string(&path).unwrap())
    }

    fn look(folder: &tempfile::TempDir, before: &Files) -> Files {
        Files::current(&folder.path().join("infer.toml"), before)
    }

    /// Reads the files after all time stamps have settled.
    fn settled(folder: &tempfile::TempDir) -> Files {
        let mut files = read(folder);
        files.0.values_mut().flatten().for_each(|look| look.is_settled = true);
        files
    }

    #[test]
    fn edits_are_detected_and_touches_ignored() {
        type Edit = fn(&Path);
        let edits: [(&str, Edit, bool); 12] = [
            ("nothing", |_| {}, true),
            (
                "the configuration",
                |at| fs::write(at.join("infer.toml"), "[models.n]\nsource = \"model\"").unwrap(),
                false,
            ),
            (
                "a touch of it",
                |at| fs::write(at.join("infer.toml"), fs::read(at.join("infer.toml")).unwrap()).unwrap(),
                true,
            ),
            ("a component of the same size", |at| fs::write(at.join("c.wasm"), b"COMPONENT").unwrap(), false),
            (
                "a component replaced",
                |at| {
                    fs::write(at.join("new"), b"COMPONENT").unwrap();
                    fs::rename(at.join("new"), at.join("c.wasm")).unwrap();
                },
                false,
            ),
            ("a component gone", |at| fs::remove_file(at.join("c.wasm")).unwrap(), false),
            ("a card", |at| fs::write(at.join("model/card.toml"), "").unwrap(), false),
            (
                "weights in their place",
                |at| {
                    use std::os::unix::fs::FileExt as _;
                    // Past the tick of this file system's clock, so that the change is visible.
                    std::thread::sleep(Duration::from_millis(50));
                    let file = File::options().write(true).open(at.join("model/deep/model.onnx")).unwrap();
                    file.write_all_at(b"x", 99).unwrap();
                },
                false,
            ),
            ("a lock", |at| fs::write(at.join("infer.lock"), "").unwrap(), false),
            ("a file beside", |at| fs::write(at.join("notes.md"), "").unwrap(), true),
            ("a file in the model's folder", |at| fs::write(at.join("model/notes.md"), "").unwrap(), true),
            ("the configuration gone", |at| fs::remove_file(at.join("infer.toml")).unwrap(), false),
        ];
        for (name, edit, is_same) in edits {
            let folder = folder();
            let (served, before) = (settled(&folder), read(&folder));
            edit(folder.path());
            assert_eq!(served.is_same(&look(&folder, &Files::default())), is_same, "{name}");
            assert_eq!(
                served.is_same(&look(&folder, &before)),
                is_same,
                "{name}, with what was known before"
            );
        }
    }

    #[test]
    fn fresh_weights_count_as_changed_once() {
        let folder = folder();
        let served = read(&folder);
        let now = look(&folder, &served);
        assert!(
            !served.is_same(&now) && !now.is_stable(&served),
            "a write in the same tick would not be seen"
        );
        let now = settled(&folder);
        assert!(now.is_stable(&now) && now.is_same(&now));
    }

    #[test]
    fn swapped_link_is_an_edit() {
        // As Kubernetes mounts a ConfigMap: files are links into `..data`, a link that is replaced.
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["one", "two"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("infer.toml"), format!("# {version}")).unwrap();
        }
        symlink("one", at("..data")).unwrap();
        symlink("..data/infer.toml", at("infer.toml")).unwrap();
        let served = read(&folder);
        assert!(served.is_same(&look(&folder, &served)));
        symlink("two", at("..next")).unwrap();
        fs::rename(at("..next"), at("..data")).unwrap();
        assert!(!served.is_same(&look(&folder, &served)));
    }

    #[test]
    fn configuration_with_mistakes_still_names_files() {
        let text = "[server]\nmistake = 1\n[models.a]\nsource = \"a.gguf\"\nnext = { source = \"b.gguf\" }\n\
                    [models.b]\nsource = \"builtin:x\"\n[components.c]\nsource = \"c.wasm\"\n\
                    tests = [{ image = \"i.png\" }, { image = \"data:;base64,AA\" }]\n\
                    [upstreams.u]\nkey_file = \"k\"\n";
        assert_eq!(named_paths(text), ["a.gguf", "b.gguf", "c.wasm", "i.png", "k"]);
        assert!(named_paths("[models").is_empty());
    }

    #[test]
    fn pipe_does_not_block() {
        let folder = folder();
        let path = folder.path().join("c.wasm");
        fs::remove_file(&path).unwrap();
        let served = settled(&folder);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success() && !served.is_same(&look(&folder, &served)));
    }
}
