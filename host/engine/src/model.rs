//! A model that is loaded, of either kind: what the host knows of it, and how it is run.

mod error;
mod mirror;
mod options;
mod resting;
mod self_test;
mod stats;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crate::card::{Card, Format};
use crate::language::{LanguageModel, Session, TokenUsage};
use crate::onnx::OnnxModel;
use crate::runtime::Runtime;
use crate::tensor::Tensor;
use crate::weights::{Parts, Weights};

pub use error::{LoadError, RunError};
pub use mirror::{Comparison, Example, MIRROR_BYTES, Mirror};
pub use options::{Capacity, ModelOptions};
use resting::Resting;
pub use self_test::SelfTestError;
pub(crate) use stats::Counters;
pub use stats::Stats;

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
    Resting(Arc<Resting>),
}

/// One caller's line of computations on a model. A language model's goes on where the last one
/// ended, if asked to; others keep nothing from one to the next.
pub struct Context {
    model: Arc<Model>,
    session: Session,
}

/// What a model answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Every output of the card, in the order of the model's file.
    pub outputs: Vec<(String, Tensor)>,
    /// From `run` until the computation that gave this reply began.
    pub queue: Duration,
    /// How long that computation took, for the whole batch.
    pub compute: Duration,
    /// Rows of axis 0 that were computed together, those of other jobs included.
    pub batch: usize,
    /// Tokens, where the model is a language model.
    pub usage: Option<TokenUsage>,
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
            Format::Onnx => Kind::Onnx(OnnxModel::load(runtime, name, (model, data), &card, &capacity)?),
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
        let copied = mirror.as_ref().and_then(|mirror| mirror.copy(&inputs));
        let answered = match &self.kind {
            Kind::Onnx(model) => model.run(inputs, deadline).await,
            Kind::Language(model) => model.run_tensors(session, inputs, deadline).await,
            Kind::Resting(resting) => {
                let model = resting.awake(self, deadline).await?;
                Box::pin(model.run_in(session, inputs, deadline)).await
            }
        };
        if let (Some(mirror), Some(copied), Ok(reply)) = (mirror, copied, &answered) {
            mirror.answered(copied, &reply.outputs);
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
            Kind::Onnx(_) | Kind::Resting(_) => None,
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
            Kind::Resting(resting) => resting.loaded().is_none_or(|model| model.is_serving()),
        }
    }

    /// Whether its weights are random, for sizing a box: whatever it answers means nothing.
    pub fn is_dummy(&self) -> bool {
        match &self.kind {
            Kind::Onnx(_) => false,
            Kind::Language(model) => model.is_dummy(),
            Kind::Resting(resting) => resting.is_dummy(),
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
            Kind::Resting(resting) => {
                resting.waiting() + resting.loaded().map_or(0, |model| model.queue_depth())
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
            Kind::Resting(resting) => resting.unbatched(),
        }
    }

    /// What was done since the model was loaded; of one that rests, since it last was.
    pub fn stats(&self) -> Stats {
        match &self.kind {
            Kind::Onnx(model) => model.stats(),
            Kind::Language(model) => model.stats(),
            Kind::Resting(resting) => resting.loaded().map(|model| model.stats()).unwrap_or_default(),
        }
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

/// What a panic said, for an error.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the backend panicked: {}", said.unwrap_or("without a message"))
}
