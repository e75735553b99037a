//! A loaded model of either kind, and the version in its shadow.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::comparison::Comparison;
use super::error::{LoadError, RunError};
use super::options::{Capacity, ModelOptions};
use super::reply::Reply;
use super::resting::Resting;
use super::shadow::Shadow;
use super::stats::Stats;
use super::weights::{Parts, Weights};
use crate::card::{Card, Format};
use crate::language::{LanguageModel, Session};
use crate::onnx::OnnxModel;
use crate::runtime::Runtime;
use crate::tensor::Tensor;

/// A loaded model. Dropping it stops its threads and waits for what they are computing.
pub struct Model {
    name: String,
    card: Card,
    hash: String,
    capacity: Capacity,
    kind: Kind,
    /// Read by each call, written by a reload: nobody waits for anything else while holding it.
    mirror: RwLock<Option<Arc<Mirror>>>,
}

enum Kind {
    Onnx(OnnxModel),
    Language(LanguageModel),
    /// One of these, or nothing at the moment.
    Resting {
        place: Arc<Resting<Model>>,
        unbatched: Option<String>,
        dummy: bool,
    },
}

/// One caller's line of computations on a model. A language model's goes on where the last one
/// ended, if asked to; others keep nothing from one to the next.
pub struct Context {
    model: Arc<Model>,
    session: Session,
}

/// A next version that sees what the model is asked.
pub struct Mirror {
    next: Arc<Model>,
    shadow: Shadow,
}

impl Model {
    /// Load `weights` and start the threads that compute. `name` is what errors and logs call the
    /// model.
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
        let Parts { card, hash, model, data, packed } = weights.into_parts();
        let capacity = options.capacity(name, card.format)?;
        let kind = match card.format {
            Format::Onnx => {
                Kind::Onnx(OnnxModel::load(runtime.implementation(), name, (model, data), &card, &capacity)?)
            }
            Format::Gguf => Kind::Language(LanguageModel::load(name, model, packed, &capacity)?),
        };
        Ok(Model { name: name.to_owned(), card, hash, capacity, kind, mirror: RwLock::default() })
    }

    /// Compute the outputs for `inputs`, which are named tensors in any order.
    ///
    /// Dropping the future before computation has begun withdraws the job. Needs a tokio runtime
    /// with a timer.
    ///
    /// # Errors
    ///
    /// When the inputs are not what the card says, when the queue is full, at `deadline` even where
    /// the computation goes on, or when the backend refuses or fails.
    pub async fn run(&self, inputs: Vec<(String, Tensor)>, deadline: Instant) -> Result<Reply, RunError> {
        self.run_in(&mut Session::default(), inputs, deadline).await
    }

    async fn run_in(
        &self,
        session: &mut Session,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let mirror = self.mirror();
        let copied = mirror.as_ref().and_then(|mirror| mirror.shadow.copy(&inputs));
        let answered = match &self.kind {
            Kind::Onnx(model) => model.run(inputs, deadline).await,
            Kind::Language(model) => model.run_tensors(session, inputs, deadline).await,
            Kind::Resting { place, .. } => {
                let model = place.awake(deadline).await?;
                Box::pin(model.run_in(session, inputs, deadline)).await
            }
        };
        if let (Some(mirror), Some(copied), Ok(reply)) = (mirror, copied, &answered) {
            mirror.shadow.answered(copied, &reply.outputs);
        }
        answered
    }

    /// The next version in this one's shadow.
    pub fn mirror(&self) -> Option<Arc<Mirror>> {
        self.mirror.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on `mirror` sees what this is asked by its tensors, and answers; or nobody does.
    pub fn set_mirror(&self, mirror: Option<Arc<Mirror>>) {
        *self.mirror.write().unwrap_or_else(PoisonError::into_inner) = mirror;
    }

    /// A context in which `component` runs the model.
    pub fn context(self: &Arc<Self>, component: &Arc<str>) -> Context {
        Context { model: self.clone(), session: Session::new(component) }
    }

    /// The language model, if it is one that is always loaded; of one that [rests](Model::resting),
    /// ask the one that is [awake](Model::awake).
    pub fn language(&self) -> Option<&LanguageModel> {
        match &self.kind {
            Kind::Onnx(_) | Kind::Resting { .. } => None,
            Kind::Language(model) => Some(model),
        }
    }

    /// Whether it is a language model, loaded or not.
    pub fn is_language(&self) -> bool {
        self.card.format == Format::Gguf
    }

    /// Whether it can still answer: a language model's thread may have ended by a fault of the
    /// engine.
    pub fn is_serving(&self) -> bool {
        match &self.kind {
            Kind::Onnx(_) => true,
            Kind::Language(model) => model.is_serving(),
            Kind::Resting { place, .. } => place.loaded().is_none_or(|model| model.is_serving()),
        }
    }

    /// Whether its weights are random, for sizing a box: whatever it answers means nothing.
    pub fn is_dummy(&self) -> bool {
        match &self.kind {
            Kind::Onnx(_) => false,
            Kind::Language(model) => model.is_dummy(),
            Kind::Resting { dummy, .. } => *dummy,
        }
    }

    /// The name that it was loaded under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the model is.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// SHA-256 over the card and the files, in 64 hexadecimal digits.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// How it is run.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Jobs that wait to be computed.
    pub fn queue_depth(&self) -> usize {
        match &self.kind {
            Kind::Onnx(model) => model.queue_depth(),
            Kind::Language(model) => model.queue_depth(),
            Kind::Resting { place, .. } => {
                place.waiting() + place.loaded().map_or(0, |model| model.queue_depth())
            }
        }
    }

    /// Whether jobs are computed together: always by a language model, and otherwise where the card
    /// says `batch_axis`.
    pub fn batches(&self) -> bool {
        self.unbatched().is_none()
    }

    /// Why jobs are computed one by one; none where they are computed together.
    pub fn unbatched(&self) -> Option<&str> {
        match &self.kind {
            Kind::Onnx(model) => model.unbatched(),
            Kind::Language(_) => None,
            Kind::Resting { unbatched, .. } => unbatched.as_deref(),
        }
    }

    /// What was done since the model was loaded; of one that rests, since it last was.
    pub fn stats(&self) -> Stats {
        match &self.kind {
            Kind::Onnx(model) => model.stats(),
            Kind::Language(model) => model.stats(),
            Kind::Resting { place, .. } => place.loaded().map(|model| model.stats()).unwrap_or_default(),
        }
    }

    /// The same model, unloaded when nobody has asked it for `keep_alive`. `load` loads it again.
    #[must_use]
    pub fn resting(
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
                return Err("its files have changed since; reload the configuration".to_owned());
            }
            let took_ms = began.elapsed().as_millis() as u64;
            tracing::info!(model = model.name, took_ms, "loaded again");
            Ok(model)
        };
        let place = Resting::new(name.clone(), self, capacity.queue_capacity, keep_alive, load);
        let kind = Kind::Resting { place: Arc::new(place), unbatched, dummy };
        Model { name, card, hash, capacity, kind, mirror: RwLock::default() }
    }

    /// The model that computes: itself, or the one that it stands for, loaded by `deadline` if it
    /// is not.
    ///
    /// # Errors
    ///
    /// At `deadline`, when as many wait as may, or when it cannot be loaded any more.
    pub async fn awake(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Model>, RunError> {
        match &self.kind {
            Kind::Resting { place, .. } => place.awake(deadline).await,
            _ => Ok(self.clone()),
        }
    }

    /// The model that computes, where it is loaded.
    pub fn resident(self: &Arc<Self>) -> Option<Arc<Model>> {
        match &self.kind {
            Kind::Resting { place, .. } => place.loaded(),
            _ => Some(self.clone()),
        }
    }

    /// Unload it if nobody has asked it for its time, and say whether that was so. This waits for
    /// its threads.
    pub fn rest(&self) -> bool {
        match &self.kind {
            Kind::Resting { place, .. } => place.rest(),
            _ => false,
        }
    }
}

impl Mirror {
    /// Have `next` asked what a model is asked whose [mirror](Model::mirror) this is. Answers that
    /// differ by more than `tolerance` in any value disagree; so do those of which another choice
    /// is the likeliest, or whose texts differ.
    ///
    /// # Errors
    ///
    /// When no thread can be started, or the system has no random numbers.
    pub fn new(next: Arc<Model>, tolerance: f64) -> std::io::Result<Self> {
        let model = next.clone();
        let run = move |inputs, deadline| {
            let model = model.clone();
            async move { model.run(inputs, deadline).await }
        };
        let shadow = Shadow::new(run, next.is_language(), tolerance)?;
        Ok(Mirror { next, shadow })
    }

    /// The version in the shadow.
    pub fn next(&self) -> &Arc<Model> {
        &self.next
    }

    /// By how much two values may differ.
    pub fn tolerance(&self) -> f64 {
        self.shadow.tolerance()
    }

    /// What was found so far.
    pub fn comparison(&self) -> Comparison {
        self.shadow.comparison()
    }
}

impl Context {
    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// As [`Model::run`], in this context.
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
