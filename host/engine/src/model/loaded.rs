//! A loaded model of any kind, and the shadow version that is compared with it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::comparison::Comparison;
use super::error::{LoadError, RunError};
use super::options::{Capacity, ModelOptions};
use super::reply::Reply;
use super::shadow::ShadowQueue;
use super::stats::Stats;
use super::unloadable::Unloadable;
use super::weights::{Parts, Weights};
use crate::card::{Card, Format, Task};
use crate::encoder::Encoder;
use crate::guard::Guard;
use crate::language::{LanguageModel, Session};
use crate::onnx::OnnxModel;
use crate::runtime::Runtime;
use crate::tensor::Tensor;

/// A loaded model. Dropping it stops its threads and waits for the computations in flight.
pub struct Model {
    name: String,
    card: Card,
    hash: String,
    capacity: Capacity,
    kind: Kind,
    /// Read by each call and written by a reload; held only to clone or to replace the `Arc`.
    shadow: RwLock<Option<Arc<Shadow>>>,
}

enum Kind {
    Onnx(OnnxModel),
    Encoder(Box<Encoder>),
    Language(LanguageModel),
    Guard(Guard),
    /// A model that is unloaded while idle.
    Unloadable {
        inner: Arc<Unloadable<Model>>,
        unbatched: Option<String>,
        dummy: bool,
    },
}

/// State of one caller's calls to a model. A session of a language model can continue the text of
/// the preceding call; ONNX models keep no state.
pub struct Context {
    model: Arc<Model>,
    session: Session,
}

/// A shadow version of a model, which receives the same inputs for comparison.
pub struct Shadow {
    next: Arc<Model>,
    queue: ShadowQueue,
}

impl Model {
    /// Loads `weights` and starts the worker threads. `name` identifies the model in errors and
    /// logs.
    ///
    /// # Errors
    ///
    /// When an option is 0, when the file cannot be run, or when it disagrees with its card.
    pub fn load(
        runtime: &Runtime,
        name: &str,
        weights: Weights,
        options: &ModelOptions,
    ) -> Result<Self, LoadError> {
        let Parts { card, hash, model, data, tokenizer, packed } = weights.into_parts();
        let capacity = options.capacity(name, card.format)?;
        let backend = runtime.implementation();
        let kind =
            match (card.format, tokenizer) {
                (Format::Onnx, Some(tokenizer)) if card.text.is_some() => Kind::Encoder(Box::new(
                    Encoder::load(backend, name, (model, data), &tokenizer, &card, &capacity)?,
                )),
                (Format::Onnx, _) => {
                    Kind::Onnx(OnnxModel::load(backend, name, (model, data), &card, &capacity, &[])?)
                }
                (Format::Gguf, _) => {
                    let files =
                        std::iter::once(model).chain(data.into_iter().map(|part| part.bytes)).collect();
                    let language = LanguageModel::load(name, files, packed, &capacity)?;
                    if card.questions.is_empty() {
                        Kind::Language(language)
                    } else {
                        Kind::Guard(Guard::new(name, language, &card.questions)?)
                    }
                }
            };
        Ok(Model { name: name.to_owned(), card, hash, capacity, kind, shadow: RwLock::default() })
    }

    /// Computes the outputs for `inputs`, named tensors in any order.
    ///
    /// Dropping the future cancels a job that is still queued. Requires a tokio runtime with a
    /// timer.
    ///
    /// # Errors
    ///
    /// When the inputs do not match the card, when the queue is full, when `deadline` passes (the
    /// computation may continue), or when the backend fails.
    pub async fn run(&self, inputs: Vec<(String, Tensor)>, deadline: Instant) -> Result<Reply, RunError> {
        self.run_in(&mut Session::default(), inputs, deadline).await
    }

    async fn run_in(
        &self,
        session: &mut Session,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let shadow = self.shadow();
        let copied = shadow.as_ref().and_then(|shadow| shadow.queue.copy(&inputs));
        let result = match &self.kind {
            Kind::Onnx(model) => model.run(inputs, deadline).await,
            Kind::Encoder(model) => model.run(inputs, deadline).await,
            Kind::Language(model) => model.run_tensors(session, inputs, deadline).await,
            Kind::Guard(guard) => guard.run(session, inputs, deadline).await,
            Kind::Unloadable { inner, .. } => {
                let model = inner.ensure_loaded(deadline).await?;
                Box::pin(model.run_in(session, inputs, deadline)).await
            }
        };
        if let (Some(shadow), Some(copied), Ok(reply)) = (shadow, copied, &result) {
            shadow.queue.finished(copied, &reply.outputs);
        }
        result
    }

    /// The current shadow version.
    pub fn shadow(&self) -> Option<Arc<Shadow>> {
        self.shadow.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the shadow version, which receives the tensors of all further calls of
    /// [`Model::run`].
    pub fn set_shadow(&self, shadow: Option<Arc<Shadow>>) {
        *self.shadow.write().unwrap_or_else(PoisonError::into_inner) = shadow;
    }

    /// Creates a context in which `component` runs the model.
    pub fn context(self: &Arc<Self>, component: &Arc<str>) -> Context {
        Context { model: self.clone(), session: Session::new(component) }
    }

    /// The language model, or that of a guard, if it is always loaded. For an
    /// [unloadable](Model::unload_when_idle) model, call [`Model::ensure_loaded`] first.
    pub fn language(&self) -> Option<&LanguageModel> {
        match &self.kind {
            Kind::Onnx(_) | Kind::Encoder(_) | Kind::Unloadable { .. } => None,
            Kind::Language(model) | Kind::Guard(Guard { model, .. }) => Some(model),
        }
    }

    /// True for a language model that is not a guard, loaded or not.
    pub fn is_language(&self) -> bool {
        self.card.task == Task::TextGeneration
    }

    /// True for a model that labels spans of texts.
    pub fn labels_spans(&self) -> bool {
        self.card.task == Task::TokenClassification
    }

    /// True while the model can reply. The thread of a language model may have ended because of a
    /// defect in the engine.
    pub fn is_serving(&self) -> bool {
        match &self.kind {
            Kind::Onnx(_) | Kind::Encoder(_) => true,
            Kind::Language(model) | Kind::Guard(Guard { model, .. }) => model.is_serving(),
            Kind::Unloadable { inner, .. } => inner.loaded().is_none_or(|model| model.is_serving()),
        }
    }

    /// True if the weights are random, for capacity tests; the outputs are then meaningless.
    pub fn is_dummy(&self) -> bool {
        match &self.kind {
            Kind::Onnx(_) | Kind::Encoder(_) => false,
            Kind::Language(model) | Kind::Guard(Guard { model, .. }) => model.is_dummy(),
            Kind::Unloadable { dummy, .. } => *dummy,
        }
    }

    /// Name under which the model was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Card of the model.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// SHA-256 over the card and the files, in 64 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Limits with which the model was loaded.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Number of queued jobs.
    pub fn queue_depth(&self) -> usize {
        match &self.kind {
            Kind::Onnx(model) => model.queue_depth(),
            Kind::Encoder(model) => model.queue_depth(),
            Kind::Language(model) | Kind::Guard(Guard { model, .. }) => model.queue_depth(),
            Kind::Unloadable { inner, .. } => {
                inner.waiting() + inner.loaded().map_or(0, |model| model.queue_depth())
            }
        }
    }

    /// True if jobs are computed in batches: always for a language model, otherwise if the card has
    /// `batch_axis`.
    pub fn batches(&self) -> bool {
        self.unbatched().is_none()
    }

    /// Reason why jobs are computed one at a time; `None` if they are computed in batches.
    pub fn unbatched(&self) -> Option<&str> {
        match &self.kind {
            Kind::Onnx(model) => model.unbatched(),
            Kind::Encoder(model) => model.unbatched(),
            Kind::Language(_) | Kind::Guard(_) => None,
            Kind::Unloadable { unbatched, .. } => unbatched.as_deref(),
        }
    }

    /// Totals since the model was loaded. For an unloadable model, since it was last loaded.
    pub fn stats(&self) -> Stats {
        match &self.kind {
            Kind::Onnx(model) => model.stats(),
            Kind::Encoder(model) => model.stats(),
            Kind::Language(model) | Kind::Guard(Guard { model, .. }) => model.stats(),
            Kind::Unloadable { inner, .. } => inner.loaded().map(|model| model.stats()).unwrap_or_default(),
        }
    }

    /// Returns the model in a form that is unloaded after it was idle for `keep_alive`, and loaded
    /// again by `load` on the next call.
    #[must_use]
    pub fn unload_when_idle(
        self,
        keep_alive: Duration,
        load: impl Fn() -> Result<Model, String> + Send + Sync + 'static,
    ) -> Self {
        let (name, card, hash) = (self.name.clone(), self.card.clone(), self.hash.clone());
        let capacity = self.capacity.clone();
        let (unbatched, dummy) = (self.unbatched().map(str::to_owned), self.is_dummy());
        let expected = hash.clone();
        let load = move || {
            let began = Instant::now();
            let model = load()?;
            if model.hash != expected {
                return Err(
                    "its files have changed since it was first loaded; reload the configuration".to_owned()
                );
            }
            let took_ms = began.elapsed().as_millis() as u64;
            tracing::info!(model = model.name, took_ms, "model reloaded");
            Ok(model)
        };
        let inner = Unloadable::new(name.clone(), self, capacity.queue_capacity, keep_alive, load);
        let kind = Kind::Unloadable { inner: Arc::new(inner), unbatched, dummy };
        Model { name, card, hash, capacity, kind, shadow: RwLock::default() }
    }

    /// Returns the loaded model: this one, or its inner model, loaded by `deadline` if
    /// necessary.
    ///
    /// # Errors
    ///
    /// When `deadline` passes, when too many calls wait for the load, or when the model cannot be
    /// loaded.
    pub async fn ensure_loaded(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Model>, RunError> {
        match &self.kind {
            Kind::Unloadable { inner, .. } => inner.ensure_loaded(deadline).await,
            _ => Ok(self.clone()),
        }
    }

    /// The loaded model; `None` while it is unloaded.
    pub fn loaded(self: &Arc<Self>) -> Option<Arc<Model>> {
        match &self.kind {
            Kind::Unloadable { inner, .. } => inner.loaded(),
            _ => Some(self.clone()),
        }
    }

    /// Unloads the model if it was idle for its keep-alive time, and waits for its threads. Returns
    /// true if it was unloaded.
    pub fn unload_if_idle(&self) -> bool {
        match &self.kind {
            Kind::Unloadable { inner, .. } => inner.unload_if_idle(),
            _ => false,
        }
    }
}

impl Shadow {
    /// Starts a thread that runs `next` on copies of the inputs of another model. Outputs disagree
    /// if any value differs by more than `tolerance`, if another choice is the likeliest, or if the
    /// texts differ.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started, or the system provides no random numbers.
    pub fn new(next: Arc<Model>, tolerance: f64) -> std::io::Result<Self> {
        let model = next.clone();
        let run = move |inputs, deadline| {
            let model = model.clone();
            async move { model.run(inputs, deadline).await }
        };
        let queue = ShadowQueue::new(run, next.is_language(), tolerance)?;
        Ok(Shadow { next, queue })
    }

    /// The shadow version.
    pub fn next(&self) -> &Arc<Model> {
        &self.next
    }

    /// Maximum difference of two values that agree.
    pub fn tolerance(&self) -> f64 {
        self.queue.tolerance()
    }

    /// Result of the comparison so far.
    pub fn comparison(&self) -> Comparison {
        self.queue.comparison()
    }
}

impl Context {
    /// The model of this context.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Runs the model as [`Model::run`] does, with the state of this context.
    ///
    /// # Errors
    ///
    /// As [`Model::run`].
    pub async fn run(&mut self, inputs: Vec<(String, Tensor)>, deadline: Instant) -> Result<Reply, RunError> {
        self.model.run_in(&mut self.session, inputs, deadline).await
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("hash", &self.hash).finish_non_exhaustive()
    }
}
