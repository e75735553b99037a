//! A cache of compiled components: a folder of signed files.
//!
//! Machine code runs as it is read, so an entry is used only after its MAC is verified with a key
//! that this machine made and that only its user can read. An attacker who can write the folder but
//! not read the key can only force a recompilation.
//!
//! # Format
//!
//! | bytes | |
//! |---|---|
//! | 16 | [`MAGIC`], which identifies the version of the format |
//! | 32 | keyed BLAKE3 of everything after it |
//! | 32 | BLAKE3 of the component |
//! | 32 | BLAKE3 of wasmtime's compatibility hash and of the version of `interruptible` |
//! | the rest | machine code, serialised by wasmtime |
//!
//! The second and the third hash name an entry, so an entry of another component, version or
//! setting is never found. An entry gets its name when it is complete. A damaged entry, an entry
//! signed with another key, or a file that is not regular is replaced. Links in the folder are not
//! followed.

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
use crate::limits::{MAX_CACHE_ENTRIES, MAX_MACHINE_CODE_BYTES};

const MAGIC: &[u8; 16] = b"infer compiled 2";

const TAG_BYTES: usize = 32;

/// Magic, tag and both hashes.
const HEADER_BYTES: usize = MAGIC.len() + TAG_BYTES + 32 + 32;

/// Lock file of writers. It stays in the folder, empty.
const LOCK: &str = ".lock";

/// Extension of an incomplete entry.
const PARTIAL: &str = "partial";

const EXTENSION: &str = "compiled";

/// A cache entry of a component's machine code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedCode {
    /// Path of the entry.
    pub path: PathBuf,
    /// Size of the entry.
    pub bytes: u64,
    /// True if a valid entry existed before.
    pub reused: bool,
}

/// The entry of one component for one engine.
pub(crate) struct Entry<'f> {
    folder: &'f Path,
    name: String,
    path: PathBuf,
    /// Hashes of the component and of the engine.
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

    /// Reads the component, if it is cached. Returns it with the size of its entry.
    ///
    /// # Errors
    ///
    /// The reason why the existing entry cannot be used.
    pub(crate) fn open(&self, engine: &Engine) -> Result<Option<(Component, u64)>, String> {
        let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let folder = match Folder::existing(self.folder) {
            Ok(folder) => folder,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(format!("cannot be opened, because of its folder: {error}")),
        };
        // Read, not mapped: later changes of the file cannot affect verified bytes.
        let bytes = match folder.read(&self.name, MAX_MACHINE_CODE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let code = self.verified(&folder, &bytes)?;
        // SAFETY: the bytes come from `Component::serialize`: their MAC proves that they were
        // written by a program with this machine's key, which only this user's programs have. The
        // hashes under the MAC prove that they belong to this component and to an engine of this
        // version and these settings. wasmtime compares the latter once more.
        let component = unsafe { Component::deserialize(engine, code) };
        let component = component.map_err(|error| format!("cannot be used: {error:#}"))?;
        Ok(Some((component, bytes.len() as u64)))
    }

    /// Returns the machine code in `bytes` if the MAC is right and the entry matches.
    fn verified<'b>(&self, folder: &Folder, bytes: &'b [u8]) -> Result<&'b [u8], String> {
        if bytes.len() < HEADER_BYTES {
            return Err(format!("ends at byte {}, within its header", bytes.len()));
        }
        let (magic, rest) = bytes.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err("is not a compiled component of this format".to_owned());
        }
        let (tag, message) = rest.split_at(TAG_BYTES);
        let key = key::of(folder).map_err(|error| format!("cannot be verified: {error}"))?;
        // `blake3::Hash` compares in constant time.
        if blake3::keyed_hash(&key, message) != *tag {
            return Err("is damaged, or was signed with another key: its MAC differs".to_owned());
        }
        let (identity, code) = message.split_at(self.identity.len());
        if identity != self.identity {
            return Err("belongs to another component or to another engine".to_owned());
        }
        Ok(code)
    }

    /// Writes `component` to the cache. Returns the size of its entry.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written, or another process is writing there.
    pub(crate) fn write(&self, component: &Component) -> io::Result<u64> {
        let code = component.serialize().map_err(|error| io::Error::other(format!("{error:#}")))?;
        let folder = Folder::create(self.folder)?;
        let lock = folder.lock_file(LOCK)?;
        // Held until `lock` is dropped. The system releases it when the process ends in any way.
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

/// Removes incomplete entries of crashed writers, and all but the newest entries. Called under the
/// lock; touches only names that this program gives.
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
    let surplus = (entries.len() + 1).saturating_sub(MAX_CACHE_ENTRIES);
    for (_, name) in entries.drain(..surplus.min(entries.len())) {
        let _ = folder.remove_file(name);
    }
    Ok(())
}

/// Collects the bytes that a value passes to its hasher.
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
