//! A model that is unloaded while idle and loaded again by the next call.
//!
//! Callers hold an outer model with the same name, card and hash, which exists while the inner one
//! is unloaded. Calls that arrive meanwhile wait for the load until their deadline, up to the
//! capacity of the queue.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::error::RunError;

/// Loads the same model again.
type Load<M> = Box<dyn Fn() -> Result<M, String> + Send + Sync>;

/// A model that may be unloaded.
pub(super) struct Unloadable<M> {
    /// Name of the model in errors.
    name: String,
    /// Maximum number of calls that wait for the load.
    queue_capacity: usize,
    /// Read by each call and written when the model is loaded or unloaded; held only to clone or to
    /// replace the `Arc`.
    loaded: RwLock<Option<Arc<M>>>,
    /// Locked during a load, so that concurrent calls load once. Only threads that may block lock
    /// it.
    load_lock: Mutex<()>,
    load: Load<M>,
    /// Number of calls that wait for the load.
    waiting: AtomicUsize,
    keep_alive: Duration,
    last_used: Mutex<Instant>,
}

/// A call that waits for the load. It is counted until its blocking thread ends.
struct WaitingCall<M>(Arc<Unloadable<M>>);

impl<M> Drop for WaitingCall<M> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<M: Send + Sync + 'static> Unloadable<M> {
    /// Creates the state for `model`, which is loaded. `load` loads it again.
    pub(super) fn new(
        name: String,
        model: M,
        queue_capacity: usize,
        keep_alive: Duration,
        load: impl Fn() -> Result<M, String> + Send + Sync + 'static,
    ) -> Self {
        Unloadable {
            name,
            queue_capacity,
            loaded: RwLock::new(Some(Arc::new(model))),
            load_lock: Mutex::new(()),
            load: Box::new(load),
            waiting: AtomicUsize::new(0),
            keep_alive,
            last_used: Mutex::new(Instant::now()),
        }
    }

    /// Returns the model, loaded by `deadline` if necessary.
    pub(super) async fn ensure_loaded(self: &Arc<Self>, deadline: Instant) -> Result<Arc<M>, RunError> {
        self.mark_used();
        if let Some(loaded) = self.loaded() {
            return Ok(loaded);
        }
        let (name, capacity) = (|| self.name.clone(), self.queue_capacity);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting_call = WaitingCall(self.clone());
        if before >= capacity {
            return Err(RunError::Busy { model: name(), capacity });
        }
        let load = spawn_blocking(move || waiting_call.0.load_once());
        match timeout_at(deadline.into(), load).await {
            Ok(Ok(Ok(loaded))) => Ok(loaded),
            Ok(Ok(Err(message))) => {
                Err(RunError::Failed { model: name(), message: format!("cannot reload it: {message}") })
            }
            Ok(Err(_)) => Err(RunError::Failed { model: name(), message: "the reload panicked".to_owned() }),
            Err(_) => Err(RunError::Deadline { model: name() }),
        }
    }

    fn load_once(&self) -> Result<Arc<M>, String> {
        let _guard = self.load_lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = self.loaded() {
            return Ok(loaded);
        }
        let model = Arc::new((self.load)()?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(model.clone());
        self.mark_used();
        Ok(model)
    }

    /// Unloads the model if it was idle for its keep-alive time. Returns true if it was unloaded.
    pub(super) fn unload_if_idle(&self) -> bool {
        if self.last_used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.keep_alive {
            return false;
        }
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        match loaded.take().map(Arc::try_unwrap) {
            Some(Ok(model)) => {
                drop(loaded);
                drop(model);
                true
            }
            // A request in flight holds the model, which counts as use.
            Some(Err(shared)) => {
                *loaded = Some(shared);
                self.mark_used();
                false
            }
            None => false,
        }
    }

    pub(super) fn loaded(&self) -> Option<Arc<M>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn mark_used(&self) {
        *self.last_used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}
