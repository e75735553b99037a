//! Results that are derived from a language model's file and reused by later starts: its SHA-256,
//! and its packed matrices.
//!
//! An unchanged file is not hashed again. A file is unchanged if its path, device, inode, size,
//! modification time and change time are the same to the nanosecond, and if both times were at
//! least two seconds before the hash began, which exceeds the resolution of the clock. Every write
//! sets the change time (ctime), even if the modification time is reset afterwards. This trusts the
//! file system, the clock, and everyone who can write to the cache folder. It does not detect
//! corruption of the disk.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::hash::{hex, sha256};
use crate::files::Folder;
use crate::limits::{MAX_HASH_CACHE_BYTES, MAX_RECORDS, MIN_AGE_NS};

/// Name of the file that stores the hashes.
const HASHES: &str = "hashes.json";

/// Cache of results derived from the files of language models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightCache {
    /// The folder. It is created on first use, and only its operator may write to it.
    pub folder: PathBuf,
    /// Hash every file, even if it is unchanged.
    pub rehash: bool,
}

/// Location of the packed weights of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackedSlot {
    /// Folder of the cache.
    pub(crate) folder: PathBuf,
    /// SHA-256 of the model's first file, in 64 hexadecimal digits. It names the packed file.
    pub(crate) sha256: String,
    /// The same for a model in one file, otherwise the SHA-256 over the hashes of all its files.
    pub(crate) content: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Hashes {
    /// Keyed by the path of the file, with symbolic links resolved.
    files: BTreeMap<String, Record>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    sha256: String,
    /// Start of the hash, in nanoseconds since 1970.
    hashed_ns: i64,
    file: Identity,
}

/// Metadata that changes whenever the file does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    bytes: u64,
    device: u64,
    inode: u64,
    modified_ns: i64,
    pub(super) changed_ns: i64,
}

impl WeightCache {
    /// Returns the SHA-256 of `file`, which was opened at `path`: the stored one if the file is
    /// unchanged. Otherwise the hash is computed and stored.
    pub(super) fn sha256(&self, path: &Path, file: &mut File) -> io::Result<[u8; 32]> {
        let key = fs::canonicalize(path).ok().and_then(|path| path.to_str().map(str::to_owned));
        let before = Identity::of(&file.metadata()?);
        let (Some(key), Some(before)) = (key, before) else { return sha256(file) };
        let known = self.read().files.remove(&key).and_then(|record| record.trusted(&before));
        if let Some(known) = known.filter(|_| !self.rehash) {
            return Ok(known);
        }
        let hashed_ns = since_1970(SystemTime::now());
        let digest = sha256(file)?;
        // A file that changed while it was read has no consistent hash.
        if Identity::of(&file.metadata()?).as_ref() == Some(&before) {
            let record = Record { sha256: hex(&digest), hashed_ns, file: before };
            if let Err(error) = self.record(key, record) {
                let path = self.folder.join(HASHES);
                let shown = path.display();
                tracing::warn!(
                    "cannot write `{shown}`: {error}; the model's file will be hashed again at the next start"
                );
            }
        }
        Ok(digest)
    }

    /// Location of the packed weights for the model in files with hashes `digests`; `None` if there
    /// are none.
    pub(crate) fn slot(&self, digests: &[[u8; 32]]) -> Option<PackedSlot> {
        let sha256 = hex(digests.first()?);
        let content = match digests {
            [_] => sha256.clone(),
            _ => hex(&Sha256::digest(digests.as_flattened())),
        };
        Some(PackedSlot { folder: self.folder.clone(), sha256, content })
    }

    /// Reads the stored hashes. A missing or damaged file counts as empty.
    fn read(&self) -> Hashes {
        read(&self.folder)
    }

    /// Stores a hash. If two programs do so concurrently, one record may be lost; that file is
    /// hashed again at the next start.
    fn record(&self, key: String, record: Record) -> io::Result<()> {
        let mut hashes = self.read();
        hashes.files.insert(key, record);
        hashes.files.retain(|path, _| Path::new(path).is_file());
        while hashes.files.len() > MAX_RECORDS {
            let oldest = hashes.files.iter().min_by_key(|(_, record)| record.hashed_ns);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else { break };
            hashes.files.remove(&oldest);
        }
        Folder::create(&self.folder)?.replace(HASHES, &serde_json::to_vec_pretty(&hashes)?, 0o666)
    }
}

/// Hashes stored in `folder` for model files that still exist.
pub(crate) fn known(folder: &Path) -> Vec<String> {
    let files = read(folder).files;
    files.into_iter().filter(|(path, _)| Path::new(path).is_file()).map(|(_, record)| record.sha256).collect()
}

fn read(folder: &Path) -> Hashes {
    let text = Folder::existing(folder).and_then(|folder| folder.read(HASHES, MAX_HASH_CACHE_BYTES));
    text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

impl Record {
    /// Returns the hash if the record has identity `now` and the file was old enough.
    fn trusted(&self, now: &Identity) -> Option<[u8; 32]> {
        let is_old_enough =
            self.hashed_ns.saturating_sub(self.file.changed_ns.max(self.file.modified_ns)) >= MIN_AGE_NS;
        if self.file != *now || !is_old_enough || !self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 32];
        let pairs = self.sha256.as_bytes().chunks_exact(2);
        if self.sha256.len() != 2 * digest.len() {
            return None;
        }
        for (byte, pair) in digest.iter_mut().zip(pairs) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(digest)
    }
}

impl Identity {
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let ns = |seconds: i64, ns: i64| seconds.saturating_mul(1_000_000_000).saturating_add(ns);
        Some(Identity {
            bytes: metadata.size(),
            device: metadata.dev(),
            inode: metadata.ino(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    /// Other systems have no metadata that proves a file unchanged.
    #[cfg(not(unix))]
    pub(super) fn of(_: &Metadata) -> Option<Self> {
        None
    }
}

pub(super) fn since_1970(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn hash(cache: &WeightCache, path: &Path) -> String {
        hex(&cache.sha256(path, &mut File::open(path).unwrap()).unwrap())
    }

    /// A cache, a file `content` that has just been written, and its SHA-256.
    fn cached() -> (tempfile::TempDir, WeightCache, PathBuf, String) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        fs::write(&path, "content").unwrap();
        let cache = WeightCache { folder: folder.path().join("cache"), rehash: false };
        let right = hash(&cache, &path);
        (folder, cache, path, right)
    }

    /// Stores `sha256` as if it had been computed when the file had the age `age`.
    fn store(cache: &WeightCache, path: &Path, sha256: &str, age: Duration) {
        let file = Identity::of(&fs::metadata(path).unwrap()).unwrap();
        let hashed_ns = file.changed_ns.max(file.modified_ns) + age.as_nanos() as i64;
        let key = fs::canonicalize(path).unwrap().to_str().unwrap().to_owned();
        cache.record(key, Record { sha256: sha256.to_owned(), hashed_ns, file }).unwrap();
    }

    #[test]
    fn stored_hash_requires_old_unchanged_file() {
        let (_folder, cache, path, right) = cached();
        let other = "ab".repeat(32);
        store(&cache, &path, &other, Duration::from_secs(2));
        assert_eq!(hash(&cache, &path), other, "the stored hash is used");
        assert_eq!(
            hash(&WeightCache { rehash: true, ..cache.clone() }, &path),
            right,
            "`rehash` ignores the stored hash"
        );

        store(&cache, &path, &other, Duration::from_millis(1_999));
        assert_eq!(hash(&cache, &path), right, "written just before it was hashed");

        store(&cache, &path, &other, Duration::from_secs(9));
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, "CONTENT").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_ne!(hash(&cache, &path), other, "same size and modification time, other bytes");

        fs::write(&path, "content").unwrap();
        store(&cache, &path, &other, Duration::from_secs(9));
        let replacement = path.with_extension("new");
        fs::write(&replacement, "content").unwrap();
        fs::rename(&replacement, &path).unwrap();
        assert_eq!(hash(&cache, &path), right, "another file at the same path");
    }

    #[test]
    fn damaged_hashes_are_recomputed_and_stored() {
        let (_folder, cache, path, right) = cached();
        for damaged in ["", "{", "[]", r#"{"files": {"a": 1}}"#, "\0\0", "{\"files\": null}"] {
            fs::write(cache.folder.join(HASHES), damaged).unwrap();
            assert_eq!(hash(&cache, &path), right, "{damaged}");
            assert_eq!(known(&cache.folder), [right.as_str()]);
        }
        for sha256 in ["", "ab", "zz".repeat(32).as_str(), "é".repeat(32).as_str(), "+a".repeat(32).as_str()]
        {
            store(&cache, &path, sha256, Duration::from_secs(9));
            assert_eq!(hash(&cache, &path), right, "{sha256}");
        }
    }

    #[test]
    fn records_are_pruned_to_256_existing_files() {
        let (folder, cache, path, _) = cached();
        store(&cache, &path, "a", Duration::from_secs(1_000_000));
        let record = cache.read().files.into_values().next().unwrap();
        let mut hashes = Hashes::default();
        for index in 0..2 * MAX_RECORDS {
            let file = folder.path().join(format!("{index}"));
            if index % 2 == 0 {
                fs::write(&file, "").unwrap();
            }
            hashes.files.insert(file.to_str().unwrap().to_owned(), record.clone());
        }
        fs::write(cache.folder.join(HASHES), serde_json::to_vec(&hashes).unwrap()).unwrap();
        store(&cache, &path, "b", Duration::from_secs(1_000_001));
        let files = cache.read().files;
        assert_eq!(files.len(), MAX_RECORDS);
        assert!(files.values().any(|record| record.sha256 == "b"), "the newest remains");
        assert!(files.keys().all(|path| Path::new(path).is_file()));
        assert_eq!(fs::read_dir(&cache.folder).unwrap().count(), 1);
    }

    #[test]
    fn unwritable_cache_folder_is_not_fatal() {
        let (folder, _, path, right) = cached();
        let cache = WeightCache { folder: path.join("below-a-file"), rehash: false };
        assert_eq!(hash(&cache, &path), right);
        assert_eq!(known(folder.path()), [""; 0]);
    }
}
