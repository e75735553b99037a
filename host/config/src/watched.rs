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

use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use crate::place::base;
use crate::{Origin, lock};

/// Maximum size of a file that is compared by content, in bytes.
const SMALL: u64 = 1 << 20;

/// Maximum size of a configuration that is compared, in bytes.
const MAX_TEXT: u64 = 16 << 20;

/// Longest tick of a file system's clock: that of FAT.
const TICK: Duration = Duration::from_secs(2);

/// Maximum number of files that are compared.
const MAX: usize = 4_096;

/// States of files by path; `None` for a missing file.
#[derive(Clone, Debug, Default)]
pub struct Files(BTreeMap<PathBuf, Option<Look>>);

/// State of a file.
#[derive(Clone, Debug)]
struct Look {
    facts: Facts,
    /// SHA-256 of a small file.
    content: Option<[u8; 32]>,
    /// True if a later change cannot have the same time stamp.
    is_settled: bool,
}

/// Metadata of a file: device and inode, size, and the seconds and nanoseconds of its last
/// modification and status change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Facts {
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
    pub fn look(path: &Path, before: &Files) -> Self {
        let text = whole(path, MAX_TEXT).and_then(|(_, bytes)| String::from_utf8(bytes).ok());
        Files::of(path, text.as_deref(), before)
    }

    fn of(path: &Path, text: Option<&str>, before: &Files) -> Self {
        let mut files = Files::default();
        let content = text.map(|text| Sha256::digest(text).into());
        let look = Look { facts: Facts::default(), content, is_settled: true };
        files.0.insert(path.to_owned(), text.map(|_| look));
        let origin = Origin::File(path.to_owned());
        if let Some(lock) = lock::path(&origin) {
            files.add(&lock, before);
        }
        let base = base(&origin);
        for name in text.map(named).unwrap_or_default() {
            let source = base.join(name);
            files.add(&source, before);
            if !source.is_dir() {
                continue;
            }
            let card = source.join("card.toml");
            files.add(&card, before);
            for file in whole(&card, SMALL).map(|(_, bytes)| listed(&bytes)).unwrap_or_default() {
                files.add(&source.join(file), before);
            }
        }
        files
    }

    fn add(&mut self, path: &Path, before: &Files) {
        if self.0.len() < MAX && !self.0.contains_key(path) {
            let known = before.0.get(path).and_then(Option::as_ref);
            self.0.insert(path.to_owned(), Look::at(path, known));
        }
    }

    /// Returns true if `now` would load the same content.
    pub fn is_same(&self, now: &Files) -> bool {
        self.0.len() == now.0.len()
            && self.0.iter().zip(&now.0).all(|((path, look), (other, now))| {
                path == other
                    && match (look, now) {
                        (None, None) => true,
                        (Some(look), Some(now)) => look.is_same(now),
                        _ => false,
                    }
            })
    }

    /// Returns true if nothing has been written since `before`, so that no file is read while it is
    /// being written.
    pub fn is_still(&self, before: &Files) -> bool {
        before.is_same(self) && self.0.values().flatten().all(Look::is_certain)
    }
}

impl Look {
    fn at(path: &Path, known: Option<&Look>) -> Option<Look> {
        let found = fs::metadata(path).ok()?;
        let facts = Facts::of(&found);
        if let Some(known) = known
            && known.facts == facts
            && known.is_settled
        {
            return Some(known.clone());
        }
        if found.is_file()
            && found.len() <= SMALL
            && let Some((found, bytes)) = whole(path, SMALL)
        {
            let content = Some(Sha256::digest(bytes).into());
            return Some(Look { facts: Facts::of(&found), content, is_settled: is_settled(&found) });
        }
        Some(Look { facts, content: None, is_settled: is_settled(&found) })
    }

    fn is_certain(&self) -> bool {
        self.content.is_some() || self.is_settled
    }

    fn is_same(&self, now: &Look) -> bool {
        match (self.content, now.content) {
            (Some(content), Some(now)) => content == now,
            (None, None) => self.is_settled && self.facts == now.facts,
            _ => false,
        }
    }
}

impl Facts {
    fn of(found: &Metadata) -> Self {
        let identity = (found.dev(), found.ino());
        if found.is_dir() {
            // A folder's files are compared by their own names.
            return Facts { identity, ..Facts::default() };
        }
        Facts {
            identity,
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// Returns true if the last change is older than a tick. A time in the future comes from another
/// machine's clock and counts as old.
fn is_settled(found: &Metadata) -> bool {
    let changed = Duration::new(found.ctime().max(0) as u64, found.ctime_nsec().clamp(0, 999_999_999) as u32);
    let since = SystemTime::now().duration_since(UNIX_EPOCH + changed);
    found.is_dir() || since.map_or(true, |since| since > TICK)
}

/// Reads the regular file at `path`, at most `most` bytes, with its metadata. Opening does not
/// block, even on a FIFO.
fn whole(path: &Path, most: u64) -> Option<(Metadata, Vec<u8>)> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let found = file.metadata().ok().filter(Metadata::is_file)?;
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some((found, bytes))
}

/// Returns the paths that a configuration names, even one with mistakes: the mistake may be a file
/// that is still missing.
fn named(text: &str) -> Vec<String> {
    let Ok(file) = text.parse::<Table>() else { return Vec::new() };
    let sections = |key| file.get(key).and_then(Value::as_table).into_iter().flat_map(Table::values);
    let mut named = Vec::new();
    for model in sections("models") {
        named.extend(model.get("source"));
        named.extend(model.get("next").and_then(|next| next.get("source")));
    }
    for component in sections("components") {
        named.extend(component.get("source"));
        let tests = component.get("tests").and_then(Value::as_array);
        named.extend(tests.into_iter().flatten().filter_map(|test| test.get("image")));
    }
    let paths = named.into_iter().filter_map(Value::as_str);
    let is_path = |text: &&str| !text.starts_with("builtin:") && !crate::data_url::is_data(text);
    paths.filter(is_path).map(str::to_owned).collect()
}

/// Returns the paths that a card lists.
fn listed(card: &[u8]) -> Vec<String> {
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
        write("model/deep/model.onnx", &vec![7; 2 * SMALL as usize]);
        folder
    }

    fn read(folder: &tempfile::TempDir) -> Files {
        let path = folder.path().join("infer.toml");
        Files::read(&path, &fs::read_to_string(&path).unwrap())
    }

    fn look(folder: &tempfile::TempDir, before: &Files) -> Files {
        Files::look(&folder.path().join("infer.toml"), before)
    }

    /// Reads the files after all time stamps have settled.
    fn settled(folder: &tempfile::TempDir) -> Files {
        let mut files = read(folder);
        files.0.values_mut().flatten().for_each(|look| look.is_settled = true);
        files
    }

    #[test]
    fn edits_are_seen_and_touches_ignored() {
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
            !served.is_same(&now) && !now.is_still(&served),
            "a write in the same tick would not be seen"
        );
        let now = settled(&folder);
        assert!(now.is_still(&now) && now.is_same(&now));
    }

    #[test]
    fn a_swapped_link_is_an_edit() {
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
    fn wrong_configuration_still_names_its_files() {
        let text = "[server]\nmistake = 1\n[models.a]\nsource = \"a.gguf\"\nnext = { source = \"b.gguf\" }\n\
                    [models.b]\nsource = \"builtin:x\"\n[components.c]\nsource = \"c.wasm\"\n\
                    tests = [{ image = \"i.png\" }, { image = \"data:;base64,AA\" }]\n";
        assert_eq!(named(text), ["a.gguf", "b.gguf", "c.wasm", "i.png"]);
        assert!(named("[models").is_empty());
    }

    #[test]
    fn pipe_is_not_waited_for() {
        let folder = folder();
        let path = folder.path().join("c.wasm");
        fs::remove_file(&path).unwrap();
        let served = settled(&folder);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success() && !served.is_same(&look(&folder, &served)));
    }
}
