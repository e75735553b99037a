//! Keys and values of policies on disk: a later start answers as if it had computed them already.
//!
//! Only a prefix that a request declares and pins is stored, never the text after it. A file is
//! valid for one model, type of keys and values, and context, and for the component that computed
//! it: other components do not find it, as in the prefix cache. Files are read before the first
//! request, on the model's thread, and written on a thread of their own. Together they have at most
//! the configured size; the oldest are removed first.

mod format;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::fs::TryLockError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use infer_kernels::AttentionShape;

use super::config::DecoderConfig;
use super::kv::{KvPool, Sequence};
use super::prefix::{CacheOwner, Prefixes};
use crate::files::{Folder, RESERVED_BYTES, free_bytes};
use crate::limits::{MAX_SAVED_PREFIXES, MIN_SAVED_TOKENS};
use crate::model::Capacity;
use crate::weights::PackedSlot;
use format::{
    Header, LAYOUT, Origin, file_bytes, is_ours, is_partial, prefix, read_blocks, read_header, write,
};

/// Name of the folder, in the cache folder.
const FOLDER: &str = "prefixes";

/// Name of the lock file for writing to and removing from the folder.
const LOCK: &str = ".lock";

/// Stored prefixes of a model.
pub(super) struct SavedPrefixes {
    origin: Origin,
    store: Arc<Store>,
    /// Names of the files that exist, or were passed to the writer.
    known: HashSet<String>,
    /// `None` only while this is dropped.
    sender: Option<SyncSender<Offer>>,
    writer: Option<JoinHandle<()>>,
}

struct Store {
    folder: PathBuf,
    /// Maximum bytes of all files in the folder.
    max_bytes: u64,
    shape: AttentionShape,
}

/// A prefix to be written. Its sequence keeps the blocks as they are.
struct Offer {
    name: String,
    header: Vec<u8>,
    bytes: u64,
    sequence: Sequence,
}

impl SavedPrefixes {
    /// The prefixes of the model `name` beside its packed weights in `slot`; `None` if `capacity`
    /// permits none, or there is no slot.
    ///
    /// # Errors
    ///
    /// If no thread can be started.
    pub(super) fn open(
        name: &str,
        slot: Option<&PackedSlot>,
        capacity: &Capacity,
        config: &DecoderConfig,
    ) -> io::Result<Option<Self>> {
        let max_bytes = capacity.prefix_cache_bytes as u64;
        if max_bytes == 0 {
            return Ok(None);
        }
        let Some(slot) = slot else {
            tracing::warn!(
                model = name,
                "`prefix_cache_bytes` has no effect without `packed_cache` and a cache folder"
            );
            return Ok(None);
        };
        let DecoderConfig { attention: shape, layers, context, .. } = *config;
        let origin = Origin {
            layout: LAYOUT,
            model: slot.content.clone(),
            kv_type: shape.kv_type.name().to_owned(),
            context,
            layers,
            layer_bytes: shape.layer_bytes(),
        };
        let folder = slot.folder.with_file_name(FOLDER);
        let store = Arc::new(Store { folder, max_bytes, shape });
        // One prefix waits while another is written. A further one is offered again by the next
        // request that uses it.
        let (sender, receiver) = sync_channel(1);
        let own = store.clone();
        let builder = std::thread::Builder::new().name("prefixes".to_owned());
        let writer = builder.spawn(move || own.write_all(&receiver))?;
        let (known, sender, writer) = (HashSet::new(), Some(sender), Some(writer));
        Ok(Some(SavedPrefixes { origin, store, known, sender, writer }))
    }

    /// Reads the prefixes into the cache, latest first, into at most half of the blocks. Invalid
    /// files are removed.
    pub(super) fn restore(&mut self, pool: &KvPool, vocabulary: usize, prefixes: &mut Prefixes) {
        let store = self.store.clone();
        let shown = store.folder.display();
        let files = match store.files() {
            Ok(files) => files,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return tracing::warn!("cannot read `{shown}`: {error}"),
        };
        let beginning = prefix(&self.origin.model);
        let mut tokens = 0;
        for file in files.into_iter().rev().filter(|file| file.name.starts_with(&beginning)) {
            match self.read(&file.name, pool, vocabulary) {
                Ok(Some((component, sequence))) => {
                    let (owner, len) = (CacheOwner::new(&Arc::from(component)), sequence.len());
                    prefixes.insert(&owner, &sequence, len, len, 0);
                    tokens += len;
                }
                Ok(None) => {}
                Err(reason) => {
                    let path = store.folder.join(&file.name);
                    tracing::warn!("`{}` {reason}; the prefix is computed again", path.display());
                    let removed = Folder::existing(&store.folder);
                    let _ = removed.and_then(|folder| folder.remove_file(&file.name));
                }
            }
        }
        if tokens > 0 {
            tracing::info!(tokens, "read keys and values of prefixes from `{shown}`");
        }
    }

    /// Component and sequence of the file `name`; `None` if it does not fit, or is for another
    /// configuration of the model.
    fn read(
        &mut self,
        name: &str,
        pool: &KvPool,
        vocabulary: usize,
    ) -> Result<Option<(String, Sequence)>, String> {
        let opened = Folder::existing(&self.store.folder).and_then(|folder| folder.open_file(name));
        let mut file = opened.map_err(|error| format!("cannot be opened: {error}"))?;
        let (header, checksum) = read_header(&mut file, name)?;
        if header.origin != self.origin {
            return Ok(None);
        }
        if header.tokens.len() >= self.origin.context {
            return Err(format!("has {} tokens, more than the context", header.tokens.len()));
        }
        if let Some(token) = header.tokens.iter().find(|token| **token as usize >= vocabulary) {
            return Err(format!("has token {token}, which is not below the vocabulary size, {vocabulary}"));
        }
        let mut sequence = None;
        if pool.used() + header.blocks() <= pool.capacity() / 2 {
            sequence = read_blocks(&mut file, &header.tokens, checksum, pool)?;
        }
        self.remember(name.to_owned());
        Ok(sequence.map(|sequence| (header.component, sequence)))
    }

    /// Stores the first `declared` tokens of a sequence of `owner`, unless they are stored.
    pub(super) fn offer(&mut self, owner: &CacheOwner, sequence: &Sequence, declared: usize) {
        if declared < MIN_SAVED_TOKENS || declared > sequence.len() {
            return;
        }
        let header = Header {
            origin: self.origin.clone(),
            component: owner.component.to_string(),
            tokens: sequence.tokens()[..declared].to_vec(),
        };
        let Ok((text, name)) = header.encoded() else { return };
        if self.known.contains(&name) {
            return;
        }
        let bytes = file_bytes(text.len(), header.blocks(), &self.origin);
        let sequence = sequence.fork_at(declared);
        let offer = Offer { name: name.clone(), header: text, bytes, sequence };
        if self.sender.as_ref().is_some_and(|sender| sender.try_send(offer).is_ok()) {
            self.remember(name);
        }
    }

    fn remember(&mut self, name: String) {
        // Guests may pin any number of prefixes.
        if self.known.len() >= MAX_SAVED_PREFIXES {
            self.known.clear();
        }
        self.known.insert(name);
    }
}

impl Drop for SavedPrefixes {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// A file in the folder.
struct Found {
    modified: (i64, u32),
    name: String,
    bytes: u64,
}

impl Store {
    fn write_all(&self, offers: &Receiver<Offer>) {
        for offer in offers {
            let path = self.folder.join(&offer.name);
            match self.write(&offer) {
                Ok(true) => tracing::info!(
                    tokens = offer.sequence.len(),
                    bytes = offer.bytes,
                    "wrote keys and values of a prefix to `{}`",
                    path.display()
                ),
                Ok(false) => {}
                Err(error) => tracing::warn!("cannot write `{}`: {error}", path.display()),
            }
        }
    }

    /// Writes the file, unless another process writes to the folder or it exceeds the limit.
    fn write(&self, offer: &Offer) -> io::Result<bool> {
        let folder = Folder::create(&self.folder)?;
        let lock = folder.lock_file(LOCK)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(false),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let Some(max_others) = self.max_bytes.checked_sub(offer.bytes) else {
            let (bytes, max) = (offer.bytes, self.max_bytes);
            return Err(io::Error::other(format!(
                "it takes {bytes} bytes, but `prefix_cache_bytes` is {max}; raise it"
            )));
        };
        self.remove_oldest(&folder, max_others)?;
        let free = free_bytes(&folder)?;
        if free < offer.bytes.saturating_add(RESERVED_BYTES) {
            let needed = offer.bytes;
            return Err(io::Error::other(format!(
                "it takes {needed} bytes, but {free} are free, of which {RESERVED_BYTES} are reserved"
            )));
        }
        let mut file = folder.temporary(&offer.name, 0o600)?;
        write(&mut file, &offer.header, &offer.sequence, &self.shape)?;
        file.persist()?;
        Ok(true)
    }

    /// Removes the oldest files until the others have at most `max_bytes`, and the remains of
    /// crashes. The caller holds the lock.
    fn remove_oldest(&self, folder: &Folder, max_bytes: u64) -> io::Result<()> {
        for name in folder.names()? {
            if name.to_str().is_some_and(is_partial) {
                folder.remove_file(&name)?;
            }
        }
        let files = self.files()?;
        let mut total: u64 = files.iter().map(|file| file.bytes).sum();
        for file in files {
            if total <= max_bytes {
                break;
            }
            folder.remove_file(&file.name)?;
            total -= file.bytes;
        }
        Ok(())
    }

    /// The files of all models, oldest first.
    fn files(&self) -> io::Result<Vec<Found>> {
        let folder = Folder::existing(&self.folder)?;
        let mut files = Vec::new();
        for name in folder.names()? {
            let Some(name) = name.to_str().filter(|name| is_ours(name)).map(str::to_owned) else { continue };
            if let Some(status) = folder.status(&name)? {
                files.push(Found { modified: status.modified, name, bytes: status.bytes });
            }
        }
        files.sort_by(|one, other| (one.modified, &one.name).cmp(&(other.modified, &other.name)));
        Ok(files)
    }
}
