//! Content-addressed store of the files that `infer pull` has fetched.
//!
//! A file is stored once, as `blobs/sha256-HEX` in the cache folder, and appears there when it is
//! complete and verified. Its name is a symbolic link, `models/NAME/FILE`, so two models may share
//! a file, and a name is created or removed atomically. A plain file in place of the link works as
//! well: the next pull makes it a blob; otherwise it is left alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use infer_engine::files::Folder;
use infer_engine::{Card, CardFile, Format};

use crate::source::Source;
use crate::{builtin, weights};

/// Folder of blobs.
const BLOBS: &str = "blobs";

/// Folder of names.
const MODELS: &str = "models";

/// Prefix of a blob's name.
const PREFIX: &str = "sha256-";

/// Lock file, held while a blob is stored and named, and while unreferenced blobs are removed.
const LOCK: &str = ".lock";

/// Folder of packed weights.
const PACKED: &str = "packed";

/// Folder of partial downloads, inside a model's folder.
pub(crate) const SCRATCH: &str = ".pull";

/// Lock file in a model's folder, held by a running pull.
pub(crate) const PULL_LOCK: &str = ".pull.lock";

/// Maximum depth of folders in the scratch folder, which earlier versions nested.
pub(crate) const SCRATCH_LEVELS: usize = 6;

/// The store of a cache folder.
#[derive(Clone, Debug)]
pub struct Store {
    cache: PathBuf,
}

/// A model's file in the store.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Name of the model, as in `builtin:NAME` and on the command line.
    pub name: String,
    /// Entry of its card; `None` without a card of that name.
    pub file: Option<CardFile>,
    /// Path of its name.
    pub path: PathBuf,
    /// Size in bytes; `None` if the file is missing.
    pub bytes: Option<u64>,
    /// Bytes that interrupted pulls have left.
    pub partial_bytes: u64,
    /// Path of its blob; `None` for a plain file.
    pub blob: Option<PathBuf>,
}

/// A verified file that is synced to disk and may become a blob.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedFile<'f> {
    /// Its folder, on the same disk as the store.
    pub folder: &'f Folder,
    /// Its name in that folder.
    pub name: &'f str,
    /// The open file.
    pub file: &'f File,
}

/// Files and bytes that a removal has freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Number of files.
    pub files: usize,
    /// Total size of the files, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Opens the store in the cache folder.
    ///
    /// # Errors
    ///
    /// If there is no cache folder.
    pub fn open() -> anyhow::Result<Self> {
        Ok(Store { cache: builtin::cache_folder().context(builtin::NO_CACHE)? })
    }

    /// Path of the folder of the model `name`.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.cache.join(MODELS).join(name)
    }

    /// Opens the folder of the model `name`, and creates it if it is missing.
    ///
    /// # Errors
    ///
    /// If it cannot be created, or is a link.
    pub fn model(&self, name: &str) -> anyhow::Result<Folder> {
        let folder = self.create(MODELS)?.create_folder(name);
        folder.with_context(|| format!("cannot open `{}`", self.folder(name).display()))
    }

    /// Path of the blob with this hash.
    #[must_use]
    pub fn blob(&self, sha256: &str) -> PathBuf {
        self.cache.join(BLOBS).join(blob_name(sha256))
    }

    /// Stores `whole` as the blob of its hash, and links it in the model's folder `place`.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn insert(&self, file: &CardFile, whole: VerifiedFile<'_>, place: &Folder) -> anyhow::Result<()> {
        let (blobs, _lock) = self.lock()?;
        let blob = blob_name(&file.sha256);
        // Read-only, against accidental writes while it is mapped; it can still be replaced or
        // removed.
        let VerifiedFile { folder, name, file: opened } = whole;
        opened
            .set_permissions(fs::Permissions::from_mode(0o444))
            .and_then(|()| folder.rename(name, &blobs, &blob))
            .with_context(|| format!("cannot write `{}`", blobs.join(&blob).display()))?;
        // Makes the rename durable. A blob that a crash loses is fetched again.
        let _ = blobs.sync();
        link(&file.path, &blob, place)
    }

    /// Links the blob of `file` in the model's folder `place`, if it exists and matches the card.
    /// Removes a blob that does not match. Returns true if it was linked.
    ///
    /// # Errors
    ///
    /// If the folder cannot be written.
    pub fn link_existing(&self, file: &CardFile, place: &Folder) -> anyhow::Result<bool> {
        let (blobs, _lock) = self.lock()?;
        let blob = blob_name(&file.sha256);
        let path = blobs.join(&blob);
        if blobs.status(&blob)?.is_none() {
            return Ok(false);
        }
        let is_whole = blobs.open_file(&blob).is_ok_and(|opened| file.verify_opened(&path, &opened).is_ok());
        if !is_whole {
            blobs.remove_file(&blob).with_context(|| format!("cannot remove `{}`", path.display()))?;
            return Ok(false);
        }
        link(&file.path, &blob, place)?;
        Ok(true)
    }

    /// Lists files by model: complete, damaged, and partial ones.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn list(&self) -> anyhow::Result<Vec<Stored>> {
        let mut all = Vec::new();
        if let Some(models) = self.existing(MODELS)? {
            let mut names = names(&models)?;
            names.sort();
            for name in names {
                if let (Some(name), Ok(folder)) = (name.to_str(), models.folder(&name)) {
                    all.extend(stored(name, &folder));
                }
            }
        }
        Ok(all)
    }

    /// Lists blobs without a name.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub fn unreferenced(&self) -> anyhow::Result<Vec<PathBuf>> {
        let Some(blobs) = self.existing(BLOBS)? else { return Ok(Vec::new()) };
        Ok(self.unreferenced_in(&blobs)?.into_iter().map(|name| blobs.join(name)).collect())
    }

    fn unreferenced_in(&self, blobs: &Folder) -> anyhow::Result<Vec<OsString>> {
        let mut named = BTreeSet::new();
        if let Some(models) = self.existing(MODELS)? {
            for name in names(&models)? {
                let Ok(folder) = models.folder(&name) else { continue };
                let links = folder.names().unwrap_or_default().into_iter();
                let targets = links.filter_map(|name| folder.read_link(name).ok());
                named.extend(targets.filter_map(|target| target.file_name().map(ToOwned::to_owned)));
            }
        }
        let mut unreferenced = names(blobs)?;
        unreferenced.retain(|name| sha256(Path::new(name)).is_some() && !named.contains(name));
        Ok(unreferenced)
    }

    /// Removes the model `name`, and its blob unless another model shares it.
    ///
    /// # Errors
    ///
    /// If there is no such model, a pull of it is in progress, or it cannot be removed.
    pub fn remove(&self, name: &str) -> anyhow::Result<Freed> {
        let is_plain = !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', '\0']);
        let models = self.existing(MODELS)?;
        let folder = match &models {
            Some(models) if is_plain => models.folder(name).ok().map(|folder| (models, folder)),
            _ => None,
        };
        let Some((models, folder)) = folder else {
            let names: BTreeSet<_> = self.list()?.into_iter().map(|stored| stored.name).collect();
            let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
            let names = if names.is_empty() {
                "the store is empty".to_owned()
            } else {
                format!("expected one of {}", names.join(", "))
            };
            bail!(
                "no model `{}` is in `{}`; {names}",
                name.escape_debug(),
                self.cache.join(MODELS).display()
            );
        };
        let shown = folder.path().display();
        let pulling = folder.lock_file(PULL_LOCK).with_context(|| format!("cannot write into `{shown}`"))?;
        if pulling.try_lock().is_err() {
            bail!("an `infer pull` is running in `{shown}`; wait until it ends");
        }
        let (blobs, _lock) = self.lock()?;
        let mut freed = Freed::default();
        let mut hashes: BTreeSet<String> = BTreeSet::new();
        for stored in stored(name, &folder) {
            hashes.extend(stored.blob.as_deref().and_then(sha256).map(str::to_owned));
            hashes.extend(stored.file.map(|file| file.sha256));
            if stored.blob.is_none() {
                freed.files += usize::from(stored.bytes.is_some());
                freed.bytes += stored.bytes.unwrap_or(0);
            }
            freed.bytes += stored.partial_bytes;
        }
        models.remove_all(name).with_context(|| format!("cannot remove `{shown}`"))?;
        for blob in self.unreferenced_in(&blobs)? {
            freed.add(&blobs, &blob)?;
        }
        // Packed weights go with their blob; those of a blob that another model shares stay.
        if let Some(packed) = self.existing(PACKED)? {
            for name in names(&packed)? {
                let is_of_it =
                    name.to_str().and_then(|name| name.split_once("-v")).is_some_and(|(sha256, _)| {
                        hashes.contains(sha256) && matches!(blobs.status(blob_name(sha256)), Ok(None))
                    });
                if is_of_it {
                    freed.add(&packed, &name)?;
                }
            }
        }
        Ok(freed)
    }

    /// Opens the folder of blobs and locks it.
    fn lock(&self) -> anyhow::Result<(Folder, File)> {
        let blobs = self.create(BLOBS)?;
        let lock = blobs.lock_file(LOCK).and_then(|lock| {
            // Waits at most as long as another process hashes a file.
            lock.lock()?;
            Ok(lock)
        });
        let lock = lock.with_context(|| format!("cannot lock `{}`", blobs.join(LOCK).display()))?;
        Ok((blobs, lock))
    }

    fn create(&self, name: &str) -> anyhow::Result<Folder> {
        let folder = Folder::create(self.cache.join(name));
        folder.with_context(|| format!("cannot open `{}`", self.cache.join(name).display()))
    }

    /// Opens the folder `name` of the cache, if it exists.
    fn existing(&self, name: &str) -> anyhow::Result<Option<Folder>> {
        match Folder::existing(self.cache.join(name)) {
            Ok(folder) => Ok(Some(folder)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(error).with_context(|| format!("cannot open `{}`", self.cache.join(name).display()))
            }
        }
    }
}

impl Freed {
    fn add(&mut self, folder: &Folder, name: &OsString) -> anyhow::Result<()> {
        let context = || format!("cannot remove `{}`", folder.join(name).display());
        let bytes = folder.status(name).with_context(context)?.map_or(0, |found| found.bytes);
        folder.remove_file(name).with_context(context)?;
        self.files += 1;
        self.bytes += bytes;
        Ok(())
    }
}

/// Links the blob `blob` in `place`, a model's folder of the cache.
fn link(name: &str, blob: &str, place: &Folder) -> anyhow::Result<()> {
    // Relative to models/NAME, so that the cache folder may be moved.
    let target = Path::new("../..").join(BLOBS).join(blob);
    place
        .replace_with_link(name, &target)
        .with_context(|| format!("cannot write `{}`", place.join(name).display()))?;
    let _ = place.sync();
    Ok(())
}

/// Returns the files of the model `name` in its folder: those of its card, or without a card all
/// files.
fn stored(name: &str, folder: &Folder) -> Vec<Stored> {
    let scratch = folder.folder(SCRATCH).and_then(|scratch| scratch.bytes(SCRATCH_LEVELS));
    let partial_bytes = scratch.unwrap_or(0);
    let describe = |file: Option<CardFile>, name_there: &str| {
        let path = folder.join(name_there);
        let bytes = fs::metadata(&path).ok().map(|found| found.len());
        let is_link = folder.status(name_there).ok().flatten().is_some_and(|found| found.is_link());
        let blob = if is_link { fs::canonicalize(&path).ok() } else { None };
        Stored { name: name.to_owned(), file, path, bytes, partial_bytes, blob }
    };
    match card(name) {
        Some(card) => {
            let file = card.model_file().clone();
            let stored = describe(Some(file.clone()), &file.path);
            let is_there = stored.bytes.is_some() || partial_bytes > 0 || stored.path.is_symlink();
            if is_there { vec![stored] } else { Vec::new() }
        }
        None => {
            let names = folder.names().unwrap_or_default();
            let names = names.iter().filter_map(|name| name.to_str());
            let is_file = |name: &&str| !name.starts_with('.') && folder.join(name).is_file();
            names.filter(is_file).map(|name| describe(None, name)).collect()
        }
    }
}

/// Returns the card of the model `name`, carried by the program or written by it.
fn card(name: &str) -> Option<Card> {
    let source = Source::Builtin(name.to_owned());
    let listed = if weights::exists(name) { weights::list(&source).ok() } else { None };
    listed.map(|listed| listed.card).filter(|card| card.format == Format::Gguf)
}

/// Returns the hash in a blob's name.
#[must_use]
pub fn sha256(blob: &Path) -> Option<&str> {
    let digits = blob.file_name()?.to_str()?.strip_prefix(PREFIX)?;
    (digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(digits)
}

fn blob_name(sha256: &str) -> String {
    format!("{PREFIX}{sha256}")
}

fn names(folder: &Folder) -> anyhow::Result<Vec<OsString>> {
    folder.names().with_context(|| format!("cannot read `{}`", folder.path().display()))
}

#[cfg(test)]
mod tests {
    use infer_engine::Role;
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Creates a store in a temporary folder, and a file for it.
    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store { cache: folder.path().join("cache") };
        (folder, store)
    }

    fn file(content: &str) -> CardFile {
        let sha256 = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        CardFile { path: "m.gguf".to_owned(), role: Role::Model, bytes: content.len() as u64, sha256 }
    }

    /// Stores `content` as the model `name`, as `infer pull` would.
    fn keep(store: &Store, name: &str, content: &str) -> PathBuf {
        let folder = store.model(name).unwrap();
        folder.replace("fetched", content.as_bytes(), 0o600).unwrap();
        let opened = folder.open_file("fetched").unwrap();
        let whole = VerifiedFile { folder: &folder, name: "fetched", file: &opened };
        store.insert(&file(content), whole, &folder).unwrap();
        folder.join("m.gguf")
    }

    fn names(store: &Store) -> Vec<String> {
        store.list().unwrap().into_iter().map(|stored| stored.name).collect()
    }

    #[test]
    fn shared_blob_is_removed_with_its_last_model() {
        let (_folder, store) = store();
        let one = keep(&store, "one", "content");
        assert_eq!(fs::read_to_string(&one).unwrap(), "content");
        assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o444);
        let folder = store.model("two").unwrap();
        let two = folder.join("m.gguf");
        assert!(store.link_existing(&file("content"), &folder).unwrap());
        assert!(!store.link_existing(&file("other"), &folder).unwrap());
        assert_eq!(fs::canonicalize(&one).unwrap(), fs::canonicalize(&two).unwrap());
        assert_eq!(names(&store), ["one", "two"]);

        assert_eq!(store.remove("one").unwrap(), Freed::default(), "the other has it still");
        assert_eq!(fs::read_to_string(&two).unwrap(), "content");
        assert_eq!(store.remove("two").unwrap(), Freed { files: 1, bytes: 7 });
        assert!(!store.blob(&file("content").sha256).exists());
        assert_eq!(names(&store), [""; 0]);
    }

    #[test]
    fn cache_folder_may_be_moved() {
        let (folder, store) = store();
        keep(&store, "one", "content");
        let moved = Store { cache: folder.path().join("moved") };
        fs::rename(&store.cache, &moved.cache).unwrap();
        assert_eq!(fs::read_to_string(moved.folder("one").join("m.gguf")).unwrap(), "content");
        assert!(moved.unreferenced().unwrap().is_empty());
    }

    #[test]
    fn plain_files_become_blobs_in_their_place() {
        let (_folder, store) = store();
        let folder = store.model("one").unwrap();
        let place = folder.join("m.gguf");
        fs::write(&place, "content").unwrap();
        let opened = folder.open_file("m.gguf").unwrap();
        let whole = VerifiedFile { folder: &folder, name: "m.gguf", file: &opened };
        store.insert(&file("content"), whole, &folder).unwrap();
        assert!(place.is_symlink() && fs::read_to_string(&place).unwrap() == "content");
    }

    #[test]
    fn damaged_blob_is_not_linked() {
        let (_folder, store) = store();
        keep(&store, "one", "content");
        let blob = store.blob(&file("content").sha256);
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, "CONTENT").unwrap();
        assert!(!store.link_existing(&file("content"), &store.model("one").unwrap()).unwrap());
        assert!(!blob.exists(), "and is gone");
        // A FIFO does not block it either.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &blob,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert!(!store.link_existing(&file("content"), &store.model("one").unwrap()).unwrap());
    }

    #[test]
    fn unreferenced_blobs_are_listed_and_removed() {
        let (_folder, store) = store();
        keep(&store, "one", "content");
        keep(&store, "two", "other");
        // The state after a crash between renaming the blob and linking it.
        fs::remove_file(store.folder("two").join("m.gguf")).unwrap();
        assert_eq!(store.unreferenced().unwrap(), [store.blob(&file("other").sha256)]);
        let packed = store.cache.join("packed");
        fs::create_dir_all(&packed).unwrap();
        let sha256 = file("content").sha256;
        fs::write(packed.join(format!("{sha256}-v1.packed")), "packed").unwrap();
        fs::write(packed.join("hashes.json"), "{}").unwrap();
        assert_eq!(store.remove("one").unwrap(), Freed { files: 3, bytes: 7 + 5 + 6 });
        assert!(store.unreferenced().unwrap().is_empty());
        assert!(packed.join("hashes.json").exists());
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let (folder, store) = store();
        fs::create_dir_all(store.folder("one")).unwrap();
        fs::write(folder.path().join("mine"), "").unwrap();
        for name in ["", ".", "..", "../..", "one/..", "/", "nowhere", "a\0b"] {
            let message = store.remove(name).unwrap_err().to_string();
            assert!(message.starts_with("no model `"), "{name}: {message}");
        }
        assert!(folder.path().join("mine").exists() && store.folder("one").exists());
    }

    #[test]
    fn model_is_not_removed_during_its_pull() {
        let (_folder, store) = store();
        keep(&store, "one", "content");
        let pulling = File::create(store.folder("one").join(".pull.lock")).unwrap();
        pulling.try_lock().unwrap();
        let message = store.remove("one").unwrap_err().to_string();
        assert!(message.starts_with("an `infer pull` is running in"), "{message}");
    }

    #[test]
    fn links_in_the_cache_are_not_followed() {
        use std::os::unix::fs::symlink;
        let (folder, store) = store();
        let victim = folder.path().join("victim");
        fs::create_dir_all(victim.join("one")).unwrap();
        fs::write(victim.join("one/m.gguf"), "precious").unwrap();
        fs::write(victim.join("keys"), "precious").unwrap();
        fs::create_dir_all(store.cache.join(MODELS)).unwrap();
        fs::create_dir_all(store.cache.join(BLOBS)).unwrap();
        symlink(victim.join("one"), store.folder("one")).unwrap();
        symlink(victim.join("keys"), store.cache.join(BLOBS).join(LOCK)).unwrap();
        assert!(store.model("one").is_err() && store.list().unwrap().is_empty());
        assert!(store.remove("one").unwrap_err().to_string().starts_with("no model `one`"));
        let two = store.model("two").unwrap();
        let message = format!("{:#}", store.link_existing(&file("content"), &two).unwrap_err());
        assert!(message.ends_with(".lock`: it is a symbolic link, expected a regular file"), "{message}");
        // A link with the name of a pull's lock.
        symlink(victim.join("keys"), two.join(PULL_LOCK)).unwrap();
        assert!(store.remove("two").is_err());
        for name in [MODELS, BLOBS] {
            fs::rename(store.cache.join(name), store.cache.join(format!("{name}.old"))).unwrap();
            symlink(&victim, store.cache.join(name)).unwrap();
        }
        assert!(store.model("three").is_err() && store.list().is_err() && store.remove("one").is_err());
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 2);
        assert_eq!(fs::read_to_string(victim.join("one/m.gguf")).unwrap(), "precious");
        assert_eq!(fs::read_to_string(victim.join("keys")).unwrap(), "precious");
    }
}
