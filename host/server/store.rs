//! Models' files by their content: what `infer pull` has fetched, each once, under its SHA-256.
//!
//! A file is `blobs/sha256-HEX` in the cache folder, and appears there when it is whole and verified. What it is called is a symbolic
//! link, `models/NAME/FILE`, so two models with one file hold it once, and a name is given and taken in one step. A plain file in
//! that place serves as well: it becomes a blob when it is pulled again, and is left alone otherwise.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use infer_engine::{Card, CardFile, Format};

use crate::builtin;
use crate::config::Source;
use crate::weights;

/// The folder of blobs.
const BLOBS: &str = "blobs";

/// The folder of names.
const MODELS: &str = "models";

/// What a blob's name begins with.
const PREFIX: &str = "sha256-";

/// Held while a blob is put in place and named, or while those without a name are removed.
const LOCK: &str = ".lock";

/// Where half-fetched files grow, in a model's folder.
const SCRATCH: &str = ".pull";

/// The store in a cache folder.
#[derive(Clone, Debug)]
pub struct Store {
    cache: PathBuf,
}

/// A model's file in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The model, as `builtin:NAME` and the commands call it.
    pub name: String,
    /// Its card's entry; none where there is no card of that name.
    pub file: Option<CardFile>,
    /// Where it is named.
    pub path: PathBuf,
    /// Its size; none where it is not there.
    pub bytes: Option<u64>,
    /// Bytes that an interrupted pull has left.
    pub partial_bytes: u64,
    /// The blob that it is; none for a plain file.
    pub blob: Option<PathBuf>,
}

/// What a removal freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// The store in the cache folder.
    ///
    /// # Errors
    ///
    /// When there is no cache folder.
    pub fn open() -> anyhow::Result<Self> {
        Ok(Store { cache: builtin::cache_folder().context(builtin::NO_CACHE)? })
    }

    /// Where `name`'s files are named.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.cache.join(MODELS).join(name)
    }

    /// Where a file with this hash is.
    #[must_use]
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.cache.join(BLOBS).join(format!("{PREFIX}{sha256}"))
    }

    /// Take the file at `path`, which was verified and reached the disk, as the blob of its hash, and name it `place`.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn keep(&self, file: &CardFile, path: &Path, place: &Path) -> anyhow::Result<()> {
        let _lock = self.lock()?;
        let blob = self.blob(&file.sha256);
        // Against being written by mistake while it is mapped; replacing and removing it stay possible.
        fs::set_permissions(path, fs::Permissions::from_mode(0o444))
            .and_then(|()| fs::rename(path, &blob))
            .with_context(|| format!("cannot write `{}`", blob.display()))?;
        sync(&self.cache.join(BLOBS));
        self.link(&blob, place)
    }

    /// Name the blob of `file` `place`, if there is one that is as the card says. One that is not is removed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn find(&self, file: &CardFile, place: &Path) -> anyhow::Result<bool> {
        let _lock = self.lock()?;
        let blob = self.blob(&file.sha256);
        if !blob.exists() {
            return Ok(false);
        }
        if file.verify(&blob).is_err() {
            fs::remove_file(&blob).with_context(|| format!("cannot remove `{}`", blob.display()))?;
            return Ok(false);
        }
        self.link(&blob, place)?;
        Ok(true)
    }

    fn link(&self, blob: &Path, place: &Path) -> anyhow::Result<()> {
        let context = || format!("cannot write `{}`", place.display());
        let folder = place.parent().with_context(context)?;
        let name = place.file_name().with_context(context)?.to_string_lossy();
        // From models/NAME, so that the cache folder may be moved.
        let target = Path::new("../..").join(blob.strip_prefix(&self.cache).with_context(context)?);
        let partial = folder.join(format!(".{name}.{}", std::process::id()));
        let _ = fs::remove_file(&partial);
        symlink(target, &partial).and_then(|()| fs::rename(&partial, place)).with_context(context)?;
        sync(folder);
        Ok(())
    }

    /// What is there, by name: whole files, damaged ones, and what interrupted pulls have left.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn list(&self) -> anyhow::Result<Vec<Stored>> {
        let mut names: Vec<String> = Vec::new();
        for entry in entries(&self.cache.join(MODELS))? {
            if entry.is_dir()
                && let Some(name) = entry.file_name().and_then(|name| name.to_str())
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names.iter().flat_map(|name| self.stored(name)).collect())
    }

    /// The files of one model: those of its card, or without one whatever is there.
    fn stored(&self, name: &str) -> Vec<Stored> {
        let folder = self.folder(name);
        let partial_bytes = size_of_folder(&folder.join(SCRATCH));
        let describe = |file: Option<CardFile>, path: PathBuf| {
            let bytes = fs::metadata(&path).ok().map(|found| found.len());
            let blob = fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink());
            let blob = if blob { fs::canonicalize(&path).ok() } else { None };
            Stored { name: name.to_owned(), file, path, bytes, partial_bytes, blob }
        };
        match card(name) {
            Some(card) => {
                let file = card.model_file().clone();
                let path = folder.join(&file.path);
                let stored = describe(Some(file), path);
                let is_there = stored.bytes.is_some() || partial_bytes > 0 || stored.path.is_symlink();
                if is_there { vec![stored] } else { Vec::new() }
            }
            None => entries(&folder)
                .unwrap_or_default()
                .into_iter()
                .filter(|path| path.is_file() && !is_hidden(path))
                .map(|path| describe(None, path))
                .collect(),
        }
    }

    /// Blobs that no name leads to.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn unnamed(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut named = BTreeSet::new();
        for folder in entries(&self.cache.join(MODELS))? {
            for path in entries(&folder).unwrap_or_default() {
                named.extend(fs::read_link(&path).ok().and_then(|to| to.file_name().map(ToOwned::to_owned)));
            }
        }
        let blobs = entries(&self.cache.join(BLOBS))?.into_iter().filter(|path| sha256(path).is_some());
        Ok(blobs.filter(|path| path.file_name().is_none_or(|name| !named.contains(name))).collect())
    }

    /// Remove the model `name`, and its file where no other model has it too.
    ///
    /// # Errors
    ///
    /// When nothing is called that, when a pull is at work on it, or when it cannot be removed.
    pub fn remove(&self, name: &str) -> anyhow::Result<Freed> {
        let is_plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0']);
        let folder = self.folder(name);
        if !is_plain || !folder.is_dir() {
            let names: BTreeSet<_> = self.list()?.into_iter().map(|stored| stored.name).collect();
            let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() {
                "nothing is there".to_owned()
            } else {
                format!("expected one of {}", names.join(", "))
            };
            bail!(
                "no model `{}` is in `{}`; {names}",
                name.escape_debug(),
                self.cache.join(MODELS).display()
            );
        }
        let pulling = File::create(folder.join(".pull.lock"))
            .with_context(|| format!("cannot write into `{}`", folder.display()))?;
        if pulling.try_lock().is_err() {
            bail!("an `infer pull` is at work in `{}`; wait for it", folder.display());
        }
        let _lock = self.lock()?;
        let mut freed = Freed::default();
        let mut hashes: BTreeSet<String> = BTreeSet::new();
        for stored in self.stored(name) {
            hashes.extend(stored.blob.as_deref().and_then(sha256).map(str::to_owned));
            hashes.extend(stored.file.map(|file| file.sha256));
            if stored.blob.is_none() {
                freed.files += usize::from(stored.bytes.is_some());
                freed.bytes += stored.bytes.unwrap_or(0);
            }
            freed.bytes += stored.partial_bytes;
        }
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove `{}`", folder.display()))?;
        for blob in self.unnamed()? {
            freed.add(&blob)?;
        }
        // What was packed of it; of a file that stays under another name, it stays as well.
        for path in entries(&self.cache.join("packed"))? {
            let packed =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once("-v"));
            if packed.is_some_and(|(sha256, _)| hashes.contains(sha256) && !self.blob(sha256).exists()) {
                freed.add(&path)?;
            }
        }
        Ok(freed)
    }

    fn lock(&self) -> anyhow::Result<File> {
        let folder = self.cache.join(BLOBS);
        let context = || format!("cannot write into `{}`", folder.display());
        fs::create_dir_all(&folder).with_context(context)?;
        let lock = File::create(folder.join(LOCK)).with_context(context)?;
        // Held for as long as a file is hashed, at most.
        lock.lock().with_context(context)?;
        Ok(lock)
    }
}

impl Freed {
    fn add(&mut self, path: &Path) -> anyhow::Result<()> {
        let bytes = fs::metadata(path).map_or(0, |found| found.len());
        fs::remove_file(path).with_context(|| format!("cannot remove `{}`", path.display()))?;
        self.files += 1;
        self.bytes += bytes;
        Ok(())
    }
}

/// The card of the model `name`: one that the program carries, or one that it has written.
fn card(name: &str) -> Option<Card> {
    let source = Source::Builtin(name.to_owned());
    let listed = if weights::exists(name) { weights::list(&source).ok() } else { None };
    listed.map(|listed| listed.card).filter(|card| card.format == Format::Gguf)
}

/// The hash that a blob is named by.
#[must_use]
pub fn sha256(blob: &Path) -> Option<&str> {
    let digits = blob.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'))
}

/// What is in `folder`; nothing where there is none.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let read = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("cannot read `{}`", folder.display()))?,
    };
    let mut paths = Vec::new();
    for entry in read {
        paths.push(entry.with_context(|| format!("cannot read `{}`", folder.display()))?.path());
    }
    Ok(paths)
}

/// Bytes of the files in `folder` and, as the hub's client nests them, a few levels below.
pub(crate) fn size_of_folder(folder: &Path) -> u64 {
    fn size(folder: &Path, levels: usize) -> u64 {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .map(|entry| match entry.metadata() {
                Ok(found) if found.is_dir() && levels > 0 => size(&entry.path(), levels - 1),
                Ok(found) if found.is_file() => found.len(),
                _ => 0,
            })
            .sum()
    }
    size(folder, 4)
}

/// A rename itself reaches the disk with its folder. A hint: what it loses is fetched again.
fn sync(folder: &Path) {
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

#[cfg(test)]
mod tests {
    use infer_engine::Role;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// A store in a folder of its own, and a file that it may keep.
    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { cache: folder.path().join("cache") };
        (folder, store)
    }

    fn file(content: &str) -> CardFile {
        let sha256 = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        CardFile { path: "m.gguf".to_owned(), role: Role::Model, bytes: content.len() as u64, sha256 }
    }

    /// Fetch `content` as the model `name`, as `infer pull` would.
    fn keep(store: &Store, name: &str, content: &str) -> PathBuf {
        let folder = store.folder(name);
        fs::create_dir_all(&folder).unwrap();
        let fetched = folder.join("fetched");
        fs::write(&fetched, content).unwrap();
        store.keep(&file(content), &fetched, &folder.join("m.gguf")).unwrap();
        folder.join("m.gguf")
    }

    fn names(store: &Store) -> Vec<String> {
        store.list().unwrap().into_iter().map(|stored| stored.name).collect()
    }

    #[test]
    fn models_with_one_file_hold_it_once_and_it_goes_with_the_last() {
        let (_folder, store) = store();
        let one = keep(&store, "one", "content");
        assert_eq!(fs::read_to_string(&one).unwrap(), "content");
        assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o444);
        fs::create_dir_all(store.folder("two")).unwrap();
        let two = store.folder("two").join("m.gguf");
        assert!(store.find(&file("content"), &two).unwrap());
        assert!(!store.find(&file("other"), &store.folder("two").join("o.gguf")).unwrap());
        assert_eq!(fs::canonicalize(&one).unwrap(), fs::canonicalize(&two).unwrap());
        assert_eq!(names(&store), ["one", "two"]);

        assert_eq!(store.remove("one").unwrap(), Freed::default(), "the other has it still");
        assert_eq!(fs::read_to_string(&two).unwrap(), "content");
        assert_eq!(store.remove("two").unwrap(), Freed { files: 1, bytes: 7 });
        assert!(!store.blob(&file("content").sha256).exists());
        assert_eq!(names(&store), [""; 0]);
    }

    #[test]
    fn the_cache_folder_may_be_moved() {
        let (folder, store) = store();
        keep(&store, "one", "content");
        let moved = Store { cache: folder.path().join("moved") };
        fs::rename(&store.cache, &moved.cache).unwrap();
        assert_eq!(fs::read_to_string(moved.folder("one").join("m.gguf")).unwrap(), "content");
        assert!(moved.unnamed().unwrap().is_empty());
    }

    #[test]
    fn plain_files_become_blobs_in_their_place() {
        let (_folder, store) = store();
        let place = store.folder("one").join("m.gguf");
        fs::create_dir_all(store.folder("one")).unwrap();
        fs::write(&place, "content").unwrap();
        store.keep(&file("content"), &place, &place).unwrap();
        assert!(place.is_symlink() && fs::read_to_string(&place).unwrap() == "content");
    }

    #[test]
    fn a_damaged_blob_is_not_named() {
        let (_folder, store) = store();
        keep(&store, "one", "content");
        let blob = store.blob(&file("content").sha256);
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, "CONTENT").unwrap();
        assert!(!store.find(&file("content"), &store.folder("one").join("m.gguf")).unwrap());
        assert!(!blob.exists(), "and is gone");
    }

    #[test]
    fn what_a_crash_has_left_without_a_name_is_found_and_removed() {
        let (_folder, store) = store();
        keep(&store, "one", "content");
        keep(&store, "two", "other");
        // As a crash between the blob's rename and its name would leave it.
        fs::remove_file(store.folder("two").join("m.gguf")).unwrap();
        assert_eq!(store.unnamed().unwrap(), [store.blob(&file("other").sha256)]);
        let packed = store.cache.join("packed");
        fs::create_dir_all(&packed).unwrap();
        let sha256 = file("content").sha256;
        fs::write(packed.join(format!("{sha256}-v1.packed")), "packed").unwrap();
        fs::write(packed.join("hashes.json"), "{}").unwrap();
        assert_eq!(store.remove("one").unwrap(), Freed { files: 3, bytes: 7 + 5 + 6 });
        assert!(store.unnamed().unwrap().is_empty());
        assert!(packed.join("hashes.json").exists());
    }

    #[test]
    fn names_do_not_lead_out_of_the_folder() {
        let (folder, store) = store();
        fs::create_dir_all(store.folder("one")).unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        for name in ["", ".", "..", "../..", "one/..", "/", "nowhere", "a\0b"] {
            let told = store.remove(name).unwrap_err().to_string();
            assert!(told.starts_with("no model `"), "{name}: {told}");
        }
        assert!(folder.path().join("mine").exists() && store.folder("one").exists());
    }

    #[test]
    fn a_model_that_is_being_pulled_is_not_removed() {
        let (_folder, store) = store();
        keep(&store, "one", "content");
        let pulling = File::create(store.folder("one").join(".pull.lock")).unwrap();
        pulling.try_lock().unwrap();
        let told = store.remove("one").unwrap_err().to_string();
        assert!(told.starts_with("an `infer pull` is at work in"), "{told}");
    }
}
