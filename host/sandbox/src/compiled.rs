//! Compiled components, kept in a folder for later starts.
//!
//! Machine code is run as it is read, so an entry is read only after its MAC has been verified with
//! a key that this machine made and that only its user can read: whoever can write the folder and
//! not read the key can cost a compilation, and no more.
//!
//! # Format
//!
//! | bytes | |
//! |---|---|
//! | 16 | [`MAGIC`], which names the format's version |
//! | 32 | keyed BLAKE3 of all that follows |
//! | 32 | BLAKE3 of the component |
//! | 32 | BLAKE3 of what wasmtime says of its version, its settings and the processor, and of the version of `interruptible` |
//! | the rest | machine code, as wasmtime serialises it |
//!
//! An entry is named by the second and the third hash, so another component's, another version's or
//! another setting's is not found. It appears under its name when it is whole. One that is damaged,
//! that another key has signed, or that is not a regular file, is written anew. No link in the
//! folder is followed.

mod key;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::TryLockError;
use std::hash::{Hash as _, Hasher};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use infer_engine::files::Folder;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::interruptible;

const MAGIC: &[u8; 16] = b"infer compiled 2";

const TAG_BYTES: usize = 32;

/// Magic, tag and both hashes.
const HEADER_BYTES: usize = MAGIC.len() + TAG_BYTES + 32 + 32;

/// A larger entry is not read: the compiler makes a few times a component's size.
const MAX_BYTES: u64 = 512 << 20;

/// Entries that are kept: the newest.
const MAX_ENTRIES: usize = 64;

/// Whose lock allows to write entries and to remove them. It stays there, empty.
const LOCK: &str = ".lock";

/// What an entry is called until it is whole.
const PARTIAL: &str = "partial";

const EXTENSION: &str = "compiled";

/// Where a component's machine code is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedCode {
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
    name: String,
    path: PathBuf,
    /// The hashes of the component and of the engine.
    identity: [u8; 64],
}

impl<'f> Entry<'f> {
    pub(crate) fn new(folder: &'f Path, engine: &Engine, component: &[u8]) -> Self {
        let component: [u8; 32] = blake3::hash(component).into();
        let mut settings = Settings(blake3::Hasher::new());
        engine.precompile_compatibility_hash().hash(&mut settings);
        settings.write(&[interruptible::VERSION]);
        let settings: [u8; 32] = settings.0.finalize().into();
        let mut identity = [0; 64];
        identity[..32].copy_from_slice(&component);
        identity[32..].copy_from_slice(&settings);
        let name = format!("{}-{}.{EXTENSION}", hex(&component), hex(&settings[..8]));
        let path = folder.join(&name);
        Entry { folder, name, path, identity }
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
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let folder = match Folder::existing(self.folder) {
            Ok(folder) => folder,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(format!("cannot be opened, because of its folder: {error}")),
        };
        // Read, not mapped: what was verified is what is used, whatever becomes of the file.
        let bytes = match folder.read(&self.name, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let code = self.verified(&folder, &bytes)?;
        // SAFETY: the bytes are what `Component::serialize` gave: their MAC says that they were
        // written by a program that has this machine's key, which only this user's do; and the
        // hashes under the MAC, that they are of this component and for an engine of this version
        // and these settings. wasmtime compares both settings once more.
        let component = unsafe { Component::deserialize(engine, code) };
        let component = component.map_err(|error| format!("cannot be used: {error:#}"))?;
        Ok(Some((component, bytes.len() as u64)))
    }

    /// The machine code in `bytes`, if the MAC is right and the entry is this one.
    fn verified<'b>(&self, folder: &Folder, bytes: &'b [u8]) -> Result<&'b [u8], String> {
        if bytes.len() < HEADER_BYTES {
            return Err(format!("ends at byte {}, within its header", bytes.len()));
        }
        let (magic, rest) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err("is no compiled component of this format".to_owned());
        }
        let (tag, message) = rest.split_at(TAG_BYTES);
        let key = key::of(folder).map_err(|error| format!("cannot be verified: {error}"))?;
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
        let folder = Folder::create(self.folder)?;
        let lock = folder.lock_file(LOCK)?;
        // Held until `lock` is dropped. The system lets go of it when the process ends, however it
        // does.
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another process is writing there"));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let key = key::of(&folder)?;
        let mut signing = blake3::Hasher::new_keyed(&key);
        signing.update(&self.identity);
        signing.update(&code);
        let mut file = folder.temporary(&self.name, 0o600)?;
        for part in [&MAGIC[..], signing.finalize().as_bytes(), &self.identity, &code] {
            file.write_all(part)?;
        }
        file.persist()?;
        remove_old(&folder, &self.name)?;
        Ok((HEADER_BYTES + code.len()) as u64)
    }
}

/// Remove what a crash has left, and all but the newest entries. Called with the lock; only names
/// that this program gives are touched.
fn remove_old(folder: &Folder, keep: &str) -> io::Result<()> {
    let mut entries: Vec<((i64, u32), OsString)> = Vec::new();
    for name in folder.names()? {
        match Path::new(&name).extension().and_then(|extension| extension.to_str()) {
            Some(PARTIAL) => {
                let _ = folder.remove_file(&name);
            }
            Some(EXTENSION) if name != *keep => {
                let found = folder.status(&name).ok().flatten();
                entries.push((found.map_or((0, 0), |found| found.modified), name));
            }
            _ => {}
        }
    }
    entries.sort();
    let surplus = (entries.len() + 1).saturating_sub(MAX_ENTRIES);
    for (_, name) in entries.drain(..surplus.min(entries.len())) {
        let _ = folder.remove_file(name);
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
