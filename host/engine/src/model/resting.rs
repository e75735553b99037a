//! A model that is unloaded while nobody asks it, and loaded again for the next who does.
//!
//! Around the loaded [`Model`] is another of the same name, card and hash, which callers hold: it
//! is there also while the inner one is not. Who asks meanwhile waits for the load, up to the
//! deadline, as in a queue of the same bound.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::timeout_at;

use super::error::RunError;

/// Loads the model again, the same one.
type Load<M> = Box<dyn Fn() -> Result<M, String> + Send + Sync>;

/// The place of a model, which may be empty.
pub(super) struct Resting<M> {
    /// The model's name, for errors.
    name: String,
    /// The most calls that may wait for the load.
    queue_capacity: usize,
    /// Read by each call, written when the model comes or goes: nobody waits for anything else
    /// while holding it.
    loaded: RwLock<Option<Arc<M>>>,
    /// Held while the model is loaded, so that it is loaded once; on threads that may block.
    turn: Mutex<()>,
    load: Load<M>,
    /// Calls that wait for the load.
    waiting: AtomicUsize,
    keep_alive: Duration,
    used: Mutex<Instant>,
}

/// A call that waits; it counts until its thread has given up too.
struct Waits<M>(Arc<Resting<M>>);

impl<M> Drop for Waits<M> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<M: Send + Sync + 'static> Resting<M> {
    /// The place of `model`, which is loaded. `load` loads it again.
    pub(super) fn new(
        name: String,
        model: M,
        queue_capacity: usize,
        keep_alive: Duration,
        load: impl Fn() -> Result<M, String> + Send + Sync + 'static,
    ) -> Self {
        Resting {
            name,
            queue_capacity,
            loaded: RwLock::new(Some(Arc::new(model))),
            turn: Mutex::new(()),
            load: Box::new(load),
            waiting: AtomicUsize::new(0),
            keep_alive,
            used: Mutex::new(Instant::now()),
        }
    }

    /// The model, loaded by `deadline` if it is not.
    pub(super) async fn awake(self: &Arc<Self>, deadline: Instant) -> Result<Arc<M>, RunError> {
        self.touch();
        if let Some(loaded) = self.loaded() {
            return Ok(loaded);
        }
        let (name, capacity) = (|| self.name.clone(), self.queue_capacity);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(self.clone());
        if before >= capacity {
            return Err(RunError::Busy { model: name(), capacity });
        }
        let load = spawn_blocking(move || waits.0.load_once());
        match timeout_at(deadline.into(), load).await {
            Ok(Ok(Ok(loaded))) => Ok(loaded),
            Ok(Ok(Err(message))) => {
                Err(RunError::Failed { model: name(), message: format!("cannot load it again: {message}") })
            }
            Ok(Err(_)) => Err(RunError::Failed { model: name(), message: "its load panicked".to_owned() }),
            Err(_) => Err(RunError::Deadline { model: name() }),
        }
    }

    fn load_once(&self) -> Result<Arc<M>, String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = self.loaded() {
            return Ok(loaded);
        }
        let model = Arc::new((self.load)()?);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(model.clone());
        self.touch();
        Ok(model)
    }

    /// Unloads the model if it was not used for its time; true if it did.
    pub(super) fn rest(&self) -> bool {
        if self.used.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < self.keep_alive {
            return false;
        }
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        match loaded.take().map(Arc::try_unwrap) {
            Some(Ok(model)) => {
                drop(loaded);
                drop(model);
                true
            }
            // A request has it: that is use.
            Some(Err(used)) => {
                *loaded = Some(used);
                self.touch();
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

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}
