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
use std::time::Instant;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use infer_config::keys::KeyHash;
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use crate::error::ApiError;
use crate::limits::{MAX_STORED_BYTES, MAX_STORED_RESPONSE_BYTES, MAX_STORED_RESPONSES, MAX_STORED_TIME};

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The judging component, identified by its address: a reload keeps components that it does not
/// change.
pub(super) type Version = Arc<dyn Any + Send + Sync>;

/// A SHA-256 digest.
pub(super) type Digest = [u8; 32];

/// A response in the form in which it is stored.
#[derive(Clone, Debug)]
pub(super) struct StoredResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// A response, and whether it may be stored: only if everything was judged, by all models that
/// should judge it.
pub(super) struct JudgedResponse {
    pub(super) response: StoredResponse,
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

/// Identity of a request with an `Idempotency-Key`.
pub(super) struct StoreKey {
    pub(super) tenant: Tenant,
    /// Hash of the `Idempotency-Key`.
    pub(super) key: Digest,
    /// Hash of path, query and body.
    pub(super) request: Digest,
    /// The component that judges the request, in the live snapshot.
    pub(super) version: Version,
}

/// The stores of all tenants.
#[derive(Default)]
pub(crate) struct ResponseStore(Mutex<State>);

#[derive(Default)]
struct State {
    tenants: HashMap<Tenant, TenantStore>,
    entries: usize,
    bytes: usize,
    /// Sequence number of the next entry.
    next: u64,
}

/// The stored responses of one tenant.
#[derive(Default)]
struct TenantStore {
    by_key: HashMap<Digest, Entry>,
    /// The keys, oldest first.
    order: BTreeMap<u64, Digest>,
    bytes: usize,
}

struct Entry {
    number: u64,
    started: Instant,
    request: Digest,
    version: Weak<dyn Any + Send + Sync>,
    /// Filled by the first request that is judged; others with the same key wait for it.
    response: Cell,
    bytes: usize,
}

type Cell = Arc<OnceCell<StoredResponse>>;

/// Hashes `pieces` with their boundaries.
pub(super) fn hash(pieces: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update((piece.len() as u64).to_le_bytes());
        hasher.update(piece);
    }
    hasher.finalize().into()
}

impl ResponseStore {
    /// Returns the response stored for `key`, otherwise the one that `judge` returns, which is
    /// stored if it is complete.
    ///
    /// # Errors
    ///
    /// 422 if the key was used with another request; errors of `judge`.
    pub(super) async fn get_or_judge(
        &self,
        key: &StoreKey,
        judge: impl Future<Output = Result<JudgedResponse, ApiError>>,
    ) -> Result<StoredResponse, ApiError> {
        let cell = self.cell(key)?;
        let fill = async {
            match judge.await {
                Ok(JudgedResponse { response, is_complete: true })
                    if response.bytes() <= MAX_STORED_RESPONSE_BYTES =>
                {
                    self.state().store_bytes(key, &cell, response.bytes());
                    Ok(response)
                }
                Ok(JudgedResponse { response, .. }) => Err(Ok(response)),
                Err(error) => Err(Err(error)),
            }
        };
        match cell.get_or_try_init(|| fill).await {
            Ok(stored) => Ok(stored.clone()),
            Err(not_stored) => not_stored,
        }
    }

    fn cell(&self, key: &StoreKey) -> Result<Cell, ApiError> {
        let mut state = self.state();
        state.remove_expired(Instant::now());
        state.cell(key)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoredResponse {
    fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.body.len() + headers.sum::<usize>()
    }
}

impl State {
    fn cell(&mut self, key: &StoreKey) -> Result<Cell, ApiError> {
        let version = Arc::downgrade(&key.version);
        if let Some(entry) = self.tenants.get(&key.tenant).and_then(|store| store.by_key.get(&key.key)) {
            if entry.request != key.request {
                return Err(ApiError::key_reused());
            }
            if Weak::ptr_eq(&entry.version, &version) {
                return Ok(entry.response.clone());
            }
            // A response of another version is stale.
            let number = entry.number;
            self.remove(key.tenant, number);
        }
        let (number, response) = (self.next, Cell::default());
        self.next += 1;
        let entry = Entry {
            number,
            started: Instant::now(),
            request: key.request,
            version,
            response: response.clone(),
            bytes: 0,
        };
        let store = self.tenants.entry(key.tenant).or_default();
        store.order.insert(number, key.key);
        store.by_key.insert(key.key, entry);
        self.entries += 1;
        self.evict();
        Ok(response)
    }

    /// Counts the bytes of a finished response, if its entry still exists.
    fn store_bytes(&mut self, key: &StoreKey, cell: &Cell, bytes: usize) {
        let Some(store) = self.tenants.get_mut(&key.tenant) else { return };
        let Some(entry) = store.by_key.get_mut(&key.key) else { return };
        if Arc::ptr_eq(&entry.response, cell) {
            entry.bytes = bytes;
            store.bytes += bytes;
            self.bytes += bytes;
            self.evict();
        }
    }

    /// Evicts the oldest entries of the tenant with the largest store until all limits are met: a
    /// tenant within its fair share loses nothing to others.
    fn evict(&mut self) {
        while self.entries > MAX_STORED_RESPONSES || self.bytes > MAX_STORED_BYTES {
            let by_bytes = self.entries <= MAX_STORED_RESPONSES;
            let size = |store: &TenantStore| if by_bytes { store.bytes } else { store.by_key.len() };
            let oldest = |store: &TenantStore| store.order.keys().next().copied().unwrap_or(u64::MAX);
            let largest =
                self.tenants.iter().max_by_key(|(_, store)| (size(store), u64::MAX - oldest(store)));
            let Some((&tenant, store)) = largest else { return };
            let number = oldest(store);
            self.remove(tenant, number);
        }
    }

    fn remove_expired(&mut self, now: Instant) {
        let is_old = |entry: &Entry| now.duration_since(entry.started) >= MAX_STORED_TIME;
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
