//! Responses stored for an `Idempotency-Key`: a client that repeats a request, because the first
//! response was lost, gets the same bytes.
//!
//! A stored response is looked up after all checks that a new request passes, and is valid only for
//! the version of the component that produced it. Each tenant has its own store: an API key, or an
//! address if no keys are configured. The stores share a limit, and the tenant with the largest
//! store is evicted from first.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use infer_config::keys::KeyHash;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use crate::error::ApiError;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Time to live of a stored response.
const KEPT: Duration = Duration::from_secs(600);

/// Maximum number of stored responses, over all tenants.
const MAX: usize = 1_024;

/// Maximum size of all stored responses, in bytes.
const MAX_BYTES: usize = 8 << 20;

/// Maximum size of a stored response, in bytes.
const LONGEST: usize = 64 << 10;

/// The judging component, identified by its address: a reload keeps components that it does not
/// change.
pub(super) type Version = Arc<dyn Any + Send + Sync>;

/// A SHA-256 digest.
pub(super) type Digest = [u8; 32];

/// A response as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A response, and whether it may be stored: only if everything was judged, by all models that
/// should judge it.
pub(super) struct Judged {
    pub(super) answer: Answer,
    pub(super) is_complete: bool,
}

/// The tenant that stored responses belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Tenant {
    /// The owner of an API key.
    Key(KeyHash),
    /// Without configured keys: the client's IPv4 address, or its /64 network.
    Address(IpAddr),
    /// Without configured keys: programs on the Unix socket.
    Socket,
}

/// A request with an `Idempotency-Key`.
pub(super) struct Asked {
    pub(super) tenant: Tenant,
    /// Hash of the `Idempotency-Key`.
    pub(super) key: Digest,
    /// Hash of path, query and body.
    pub(super) request: Digest,
    /// The component that judges the request, as it is served now.
    pub(super) version: Version,
}

/// The stores of all tenants.
#[derive(Default)]
pub(crate) struct Answers(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    tenants: HashMap<Tenant, Store>,
    entries: usize,
    bytes: usize,
    /// Sequence number of the next entry.
    next: u64,
}

/// The stored responses of one tenant.
#[derive(Default)]
struct Store {
    by_key: HashMap<Digest, Entry>,
    /// The keys, oldest first.
    order: BTreeMap<u64, Digest>,
    bytes: usize,
}

struct Entry {
    number: u64,
    began: Instant,
    request: Digest,
    version: Weak<dyn Any + Send + Sync>,
    /// Filled by the first request that is judged; others with the same key wait for it.
    answer: Cell,
    bytes: usize,
}

type Cell = Arc<OnceCell<Answer>>;

/// Hashes `pieces` with their boundaries.
pub(super) fn hash(pieces: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update((piece.len() as u64).to_le_bytes());
        hasher.update(piece);
    }
    hasher.finalize().into()
}

impl Answers {
    /// Returns the response stored for `asked`, otherwise the one that `judge` returns, which is
    /// stored if it is complete.
    ///
    /// # Errors
    ///
    /// 422 if the key was used with another request; errors of `judge`.
    pub(super) async fn keep(
        &self,
        asked: &Asked,
        judge: impl Future<Output = Result<Judged, ApiError>>,
    ) -> Result<Answer, ApiError> {
        let cell = self.place(asked)?;
        let fill = async {
            match judge.await {
                Ok(Judged { answer, is_complete: true }) if answer.bytes() <= LONGEST => {
                    self.kept().filled(asked, &cell, answer.bytes());
                    Ok(answer)
                }
                Ok(Judged { answer, .. }) => Err(Ok(answer)),
                Err(error) => Err(Err(error)),
            }
        };
        match cell.get_or_try_init(|| fill).await {
            Ok(kept) => Ok(kept.clone()),
            Err(not_kept) => not_kept,
        }
    }

    fn place(&self, asked: &Asked) -> Result<Cell, ApiError> {
        let mut kept = self.kept();
        kept.forget(Instant::now());
        kept.place(asked)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.body.len() + headers.sum::<usize>()
    }
}

impl Kept {
    fn place(&mut self, asked: &Asked) -> Result<Cell, ApiError> {
        let version = Arc::downgrade(&asked.version);
        if let Some(entry) = self.tenants.get(&asked.tenant).and_then(|store| store.by_key.get(&asked.key)) {
            if entry.request != asked.request {
                return Err(ApiError::key_reused());
            }
            if Weak::ptr_eq(&entry.version, &version) {
                return Ok(entry.answer.clone());
            }
            // A response of another version is stale.
            let number = entry.number;
            self.remove(asked.tenant, number);
        }
        let (number, answer) = (self.next, Cell::default());
        self.next += 1;
        let entry = Entry {
            number,
            began: Instant::now(),
            request: asked.request,
            version,
            answer: answer.clone(),
            bytes: 0,
        };
        let store = self.tenants.entry(asked.tenant).or_default();
        store.order.insert(number, asked.key);
        store.by_key.insert(asked.key, entry);
        self.entries += 1;
        self.fit();
        Ok(answer)
    }

    /// Counts the bytes of a finished response, if its entry still exists.
    fn filled(&mut self, asked: &Asked, cell: &Cell, bytes: usize) {
        let Some(store) = self.tenants.get_mut(&asked.tenant) else { return };
        let Some(entry) = store.by_key.get_mut(&asked.key) else { return };
        if Arc::ptr_eq(&entry.answer, cell) {
            entry.bytes = bytes;
            store.bytes += bytes;
            self.bytes += bytes;
            self.fit();
        }
    }

    /// Evicts the oldest entries of the tenant with the largest store until all limits are met: a
    /// tenant within its fair share loses nothing to others.
    fn fit(&mut self) {
        while self.entries > MAX || self.bytes > MAX_BYTES {
            let by_bytes = self.entries <= MAX;
            let held = |store: &Store| if by_bytes { store.bytes } else { store.by_key.len() };
            let oldest = |store: &Store| store.order.keys().next().copied().unwrap_or(u64::MAX);
            let most = self.tenants.iter().max_by_key(|(_, store)| (held(store), u64::MAX - oldest(store)));
            let Some((&tenant, store)) = most else { return };
            let number = oldest(store);
            self.remove(tenant, number);
        }
    }

    fn forget(&mut self, now: Instant) {
        let is_old = |entry: &Entry| now.duration_since(entry.began) >= KEPT;
        let old = self.tenants.iter().flat_map(|(tenant, store)| {
            let entries =
                store.order.iter().filter_map(|(number, key)| Some((*number, store.by_key.get(key)?)));
            entries.take_while(|(_, entry)| is_old(entry)).map(|(number, _)| (*tenant, number))
        });
        for (tenant, number) in old.collect::<Vec<_>>() {
            self.remove(tenant, number);
        }
    }

    fn remove(&mut self, tenant: Tenant, number: u64) {
        let Some(store) = self.tenants.get_mut(&tenant) else { return };
        let entry = store.order.remove(&number).and_then(|key| store.by_key.remove(&key));
        if let Some(entry) = entry {
            store.bytes -= entry.bytes;
            self.bytes -= entry.bytes;
            self.entries -= 1;
        }
        if store.by_key.is_empty() {
            self.tenants.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests;
