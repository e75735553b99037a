//! Compiled components, kept in a folder for later starts.
//!
//! Machine code is run as it is read, so an entry is read only after its MAC has been verified with a key that this machine
//! made and that only its user can read: whoever can write the folder and not read the key can cost a compilation, and no more.
//!
//! # Format
//!
//! | bytes | |
//! |---|---|
//! | 16 | [`MAGIC`], which names the format's version |
//! | 32 | keyed BLAKE3 of all that follows |
//! | 32 | BLAKE3 of the component |
//! | 32 | BLAKE3 of what wasmtime says of its version, its settings and the processor |
//! | the rest | machine code, as wasmtime serialises it |
//!
//! An entry is named by the second and the third hash, so another component's, another version's or another setting's is not
//! found. It appears under its name when it is whole. One that is damaged, or that another key has signed, is written anew.

mod key;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use wasmtime::Engine;
use wasmtime::component::Component;

const MAGIC: &[u8; 16] = b"infer compiled 2";

const TAG_BYTES: usize = 32;

/// Magic, tag and both hashes.
const HEADER_BYTES: usize = MAGIC.len() + TAG_BYTES + 32 + 32;

/// A larger entry is not read: the compiler makes a few times a component's size.
const MOST_BYTES: u64 = 512 << 20;

/// Entries that are kept: the newest.
const MOST_ENTRIES: usize = 64;

/// Whose lock allows to write entries and to remove them. It stays there, empty.
const LOCK: &str = ".lock";

/// What an entry is called until it is whole.
const PARTIAL: &str = "partial";

const EXTENSION: &str = "compiled";

/// Where a component's machine code is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The entry.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Whether it was there before, and good.
    pub reused: bool,
}

/// One component's place in the folder, for one engine.
pub(crate) struct Entry<'f> {
    folder: &'f Path,
    path: PathBuf,
    /// The hashes of the component and of the engine.
    identity: [u8; 64],
}

impl<'f> Entry<'f> {
    pub(crate) fn new(folder: &'f Path, engine: &Engine, component: &[u8]) -> Self {
        let component: [u8; 32] = blake3::hash(component).into();
        let mut settings = Settings(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut settings);
        let settings: [u8; 32] = settings.0.finalize().into();
        let mut identity = [0; 64];
        identity[..32].copy_from_slice(&component);
        identity[32..].copy_from_slice(&settings);
        let path = folder.join(format!("{}-{}.{EXTENSION}", hex(&component), hex(&settings[..8])));
        Entry { folder, path, identity }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The component, if it is kept; and the size of its entry.
    ///
    /// # Errors
    ///
    /// Why the entry that is there is of no use.
    pub(crate) fn open(&self, engine: &Engine) -> Result<Option<(Component, u64)>, String> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot be opened: {error}")),
        };
        // Read, not mapped: what was verified is what is used, whatever becomes of the file.
        let size = file.metadata().map_or(0, |found| found.len()).min(MOST_BYTES);
        let mut bytes = Vec::with_capacity(size as usize + 1);
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(format!("is larger than {MOST_BYTES} bytes"));
        }
        let code = self.verified(&bytes)?;
        // SAFETY: the bytes are what `Component::serialize` gave: their MAC says that they were written by a program that
        // has this machine's key, which only this user's do; and the hashes under the MAC, that they are of this component
        // and for an engine of this version and these settings. wasmtime compares both settings once more.
        let component = unsafe { Component::deserialize(engine, code) };
        let component = component.map_err(|error| format!("cannot be used: {error:#}"))?;
        Ok(Some((component, bytes.len() as u64)))
    }

    /// The machine code in `bytes`, if the MAC is right and the entry is this one.
    fn verified<'b>(&self, bytes: &'b [u8]) -> Result<&'b [u8], String> {
        if bytes.len() < HEADER_BYTES {
            return Err(format!("ends at byte {}, within its header", bytes.len()));
        }
        let (magic, rest) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err("is no compiled component of this format".to_owned());
        }
        let (tag, message) = rest.split_at(TAG_BYTES);
        let key = key::of(self.folder).map_err(|error| format!("cannot be verified: {error}"))?;
        // Compared in constant time.
        if blake3::keyed_hash(&key, message) != *tag {
            return Err("is damaged, or was signed with another key: its MAC differs".to_owned());
        }
        let (identity, code) = message.split_at(self.identity.len());
        if identity != self.identity {
            return Err("is of another component or for another engine".to_owned());
        }
        Ok(code)
    }

    /// Keep `component`; the size of its entry.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written, or another process is writing there.
    pub(crate) fn keep(&self, component: &Component) -> io::Result<u64> {
        let code = component.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
        fs::create_dir_all(self.folder)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(LOCK))?;
        // Held until `lock` is dropped. The system lets go of it when the process ends, however it does.
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is writing there"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let key = key::of(self.folder)?;
        let mut signing = blake3::Hasher::new_keyed(&key);
        signing.update(&self.identity);
        signing.update(&code);
        let partial = self.path.with_extension(PARTIAL);
        let _ = fs::remove_file(&partial);
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
            for part in [&MAGIC[..], signing.finalize().as_bytes(), &self.identity, &code] {
                file.write_all(part)?;
            }
            file.sync_all()?;
            fs::rename(&partial, &self.path)
        };
        write().inspect_err(|_| {
            let _ = fs::remove_file(&partial);
        })?;
        remove_old(self.folder, &self.path)?;
        Ok((HEADER_BYTES + code.len()) as u64)
    }
}

/// Remove what a crash has left, and all but the newest entries. Called with the lock; only names that this program gives are touched.
fn remove_old(folder: &Path, keep: &Path) -> io::Result<()> {
    let mut entries: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(PARTIAL) => {
                let _ = fs::remove_file(&path);
            }
            Some(EXTENSION) if path != keep => {
                let written = fs::metadata(&path).and_then(|found| found.modified());
                entries.push((written.unwrap_or(SystemTime::UNIX_EPOCH), path));
            }
            _ => {}
        }
    }
    entries.sort();
    let surplus = (entries.len() + 1).saturating_sub(MOST_ENTRIES);
    for (_, path) in entries.drain(..surplus.min(entries.len())) {
        let _ = fs::remove_file(path);
    }
    Ok(())
}

/// Collects what a value hashes of itself.
struct Settings(blake3::Hasher);

impl Hasher for Settings {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
