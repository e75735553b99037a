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

use super::{Kind, Model, RunError};

/// Loads the model again, the same one.
type Load = Box<dyn Fn() -> Result<Model, String> + Send + Sync>;

/// The place of a model, which may be empty.
pub(super) struct Resting {
    /// Read by each call, written when the model comes or goes: nobody waits for anything else
    /// while holding it.
    loaded: RwLock<Option<Arc<Model>>>,
    /// Held while the model is loaded, so that it is loaded once; on threads that may block.
    turn: Mutex<()>,
    load: Load,
    /// Calls that wait for the load.
    waiting: AtomicUsize,
    keep_alive: Duration,
    used: Mutex<Instant>,
    unbatched: Option<String>,
    dummy: bool,
}

/// A call that waits; it counts until its thread has given up too.
struct Waits(Arc<Resting>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Model {
    /// The same model, unloaded when nobody has asked it for `keep_alive`. `load` loads it again.
    #[must_use]
    pub fn resting(
        self,
        keep_alive: Duration,
        load: impl Fn() -> Result<Model, String> + Send + Sync + 'static,
    ) -> Self {
        let (name, card, hash) = (self.name.clone(), self.card.clone(), self.hash.clone());
        let capacity = self.capacity.clone();
        let resting = Resting {
            unbatched: self.unbatched().map(str::to_owned),
            dummy: self.is_dummy(),
            loaded: RwLock::new(Some(Arc::new(self))),
            turn: Mutex::new(()),
            load: Box::new(load),
            waiting: AtomicUsize::new(0),
            keep_alive,
            used: Mutex::new(Instant::now()),
        };
        Model {
            name,
            card,
            hash,
            capacity,
            kind: Kind::Resting(Arc::new(resting)),
            mirror: RwLock::default(),
        }
    }

    /// The model that computes: itself, or the one that it stands for, loaded by `deadline` if it
    /// is not.
    ///
    /// # Errors
    ///
    /// At `deadline`, when as many wait as may, or when it cannot be loaded any more.
    pub async fn awake(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Model>, RunError> {
        match &self.kind {
            Kind::Resting(resting) => resting.awake(self, deadline).await,
            _ => Ok(self.clone()),
        }
    }

    /// The model that computes, where it is loaded.
    pub fn resident(self: &Arc<Self>) -> Option<Arc<Model>> {
        match &self.kind {
            Kind::Resting(resting) => resting.loaded(),
            _ => Some(self.clone()),
        }
    }

    /// Unload it if nobody has asked it for its time, and say whether that was so. This waits for
    /// its threads.
    pub fn rest(&self) -> bool {
        match &self.kind {
            Kind::Resting(resting) => resting.rest(),
            _ => false,
        }
    }
}

impl Resting {
    pub(super) async fn awake(
        self: &Arc<Self>,
        model: &Model,
        deadline: Instant,
    ) -> Result<Arc<Model>, RunError> {
        self.touch();
        if let Some(loaded) = self.loaded() {
            return Ok(loaded);
        }
        let (name, capacity) = (|| model.name.clone(), model.capacity.queue_capacity);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waits = Waits(self.clone());
        if before >= capacity {
            return Err(RunError::Busy { model: name(), capacity });
        }
        let hash = model.hash.clone();
        let load = spawn_blocking(move || waits.0.load_once(&hash));
        match timeout_at(deadline.into(), load).await {
            Ok(Ok(Ok(loaded))) => Ok(loaded),
            Ok(Ok(Err(message))) => {
                Err(RunError::Failed { model: name(), message: format!("cannot load it again: {message}") })
            }
            Ok(Err(_)) => Err(RunError::Failed { model: name(), message: "its load panicked".to_owned() }),
            Err(_) => Err(RunError::Deadline { model: name() }),
        }
    }

    fn load_once(&self, hash: &str) -> Result<Arc<Model>, String> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = self.loaded() {
            return Ok(loaded);
        }
        let began = Instant::now();
        let model = (self.load)()?;
        if model.hash != hash {
            return Err("its files have changed since; reload the configuration".to_owned());
        }
        tracing::info!(model = model.name, took_ms = began.elapsed().as_millis() as u64, "loaded again");
        let model = Arc::new(model);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Some(model.clone());
        self.touch();
        Ok(model)
    }

    fn rest(&self) -> bool {
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

    pub(super) fn loaded(&self) -> Option<Arc<Model>> {
        self.loaded.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn unbatched(&self) -> Option<&str> {
        self.unbatched.as_deref()
    }

    pub(super) fn is_dummy(&self) -> bool {
        self.dummy
    }

    fn touch(&self) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}
