//! A model that is loaded: a queue, and workers that compute what is in it.

mod error;
mod queue;
mod signature;
mod stats;
#[cfg(test)]
mod tests;
mod worker;

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::backend::{Backend, BackendError, Session};
use crate::card::Card;
use crate::runtime::Runtime;
use crate::tensor::Tensor;
use crate::weights::Weights;

pub use error::{LoadError, RunError};
use queue::{Job, Queue, Refused};
use signature::Signature;
use stats::Counters;
pub use stats::Stats;
use worker::Worker;

/// The most rows of axis 0 in one job. A computation that has begun is not interrupted, so this bounds how long one
/// caller holds a session, and the memory that it takes there.
const MAX_ROWS: usize = 128;

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// How many calls are computed at once; each session is one worker thread.
    pub sessions: usize,
    /// Threads that one call is computed with.
    pub threads: usize,
    /// How many jobs may wait; one more is refused.
    pub queue_capacity: usize,
    /// How many rows of axis 0 are computed together. A single job may have more, up to 128.
    pub max_batch: usize,
}

impl Default for ModelOptions {
    /// As many sessions as the machine has cores, one thread each, 64 waiting jobs, batches of 8 rows.
    fn default() -> Self {
        let sessions = std::thread::available_parallelism().map_or(1, usize::from);
        ModelOptions { sessions, threads: 1, queue_capacity: 64, max_batch: 8 }
    }
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
}

/// A loaded model. Dropping it stops its workers and waits for what they are computing.
pub struct Model {
    name: String,
    card: Card,
    hash: String,
    options: ModelOptions,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// What callers and workers have in common.
struct Shared {
    /// The model's name, for errors.
    name: String,
    options: ModelOptions,
    signature: Signature,
    queue: Queue,
    counters: Counters,
}

impl Model {
    /// Load `weights` and start the workers. `name` is what errors and logs call the model.
    ///
    /// # Errors
    ///
    /// When an option is 0, when the backend cannot run the file, or when the file disagrees with its card.
    pub fn load(
        runtime: &Runtime,
        name: &str,
        weights: Weights,
        options: &ModelOptions,
    ) -> Result<Self, LoadError> {
        let (card, hash, bytes) = weights.into_parts();
        check(name, options)?;
        let sessions = sessions(runtime.implementation(), name, bytes.into_cow(), &card, options)?;
        Model::start(name, card, hash, options, sessions)
    }

    fn start(
        name: &str,
        card: Card,
        hash: String,
        options: &ModelOptions,
        sessions: Vec<Box<dyn Session>>,
    ) -> Result<Self, LoadError> {
        let first =
            sessions.first().map(|session| Signature::new(&card, session.inputs(), session.outputs()));
        let signature = first
            .unwrap_or_else(|| Err("the backend made no session".to_owned()))
            .map_err(|message| LoadError::Disagreement { model: name.to_owned(), message })?;
        let queue = Queue::new(options.queue_capacity);
        let counters = Counters::default();
        let shared =
            Arc::new(Shared { name: name.to_owned(), options: options.clone(), signature, queue, counters });
        // The workers belong to the model from the first, so that a failure half-way stops those already started.
        let mut model = Model {
            name: name.to_owned(),
            card,
            hash,
            options: options.clone(),
            shared,
            workers: Vec::with_capacity(sessions.len()),
        };
        for (index, session) in sessions.into_iter().enumerate() {
            let worker = Worker::new(session, model.shared.clone());
            // The number first: Linux shows 15 bytes. A name with a zero byte would be refused by a panic.
            let thread = std::thread::Builder::new().name(format!("{index}:{name}").replace('\0', " "));
            let started = thread.spawn(move || worker.serve());
            let started = started.map_err(|source| LoadError::Thread { model: name.to_owned(), source })?;
            model.workers.push(started);
        }
        Ok(model)
    }

    /// Compute the outputs for `inputs`, which are named tensors in any order.
    ///
    /// Dropping the future before computation has begun withdraws the job. Needs a tokio runtime with a timer.
    ///
    /// # Errors
    ///
    /// When the inputs are not what the card says, when the queue is full, at `deadline` even where the computation
    /// goes on, or when the backend refuses or fails.
    pub async fn run(&self, inputs: Vec<(String, Tensor)>, deadline: Instant) -> Result<Reply, RunError> {
        let model = || self.name.clone();
        let arranged = self
            .shared
            .signature
            .arrange(inputs)
            .map_err(|message| RunError::InvalidInput { model: model(), message })?;
        if let Some(rows) = arranged.rows.filter(|&rows| rows > MAX_ROWS) {
            let message = format!("{rows} rows in one job, expected at most {MAX_ROWS}; run them in several");
            return Err(RunError::InvalidInput { model: model(), message });
        }
        let queued = Instant::now();
        if queued >= deadline {
            return Err(RunError::Deadline { model: model() });
        }
        let (reply, answer) = oneshot::channel();
        let job = Job { inputs: arranged.inputs, rows: arranged.rows, queued, deadline, reply };
        self.shared.queue.push(job, |dead| self.shared.skip(dead)).map_err(|refused| match refused {
            Refused::Full => {
                self.shared.counters.busy();
                RunError::Busy { model: model(), capacity: self.options.queue_capacity }
            }
            Refused::Closed => RunError::Closed { model: model() },
        })?;
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RunError::Closed { model: model() }),
            Err(_) => Err(RunError::Deadline { model: model() }),
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
    pub fn options(&self) -> &ModelOptions {
        &self.options
    }

    /// Jobs that wait for a worker.
    pub fn queue_depth(&self) -> usize {
        self.shared.queue.depth()
    }

    /// Whether jobs are computed together: axis 0 of every input and output varies, by the card and by the file.
    pub fn batches(&self) -> bool {
        self.shared.signature.batches()
    }

    /// What the workers have done since the model was loaded.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read()
    }
}

impl Shared {
    /// Answer a job that nobody waits for any more, instead of computing it.
    fn skip(&self, job: Job) {
        self.counters.skipped();
        // Its caller may be just short of noticing the deadline; a caller that is gone does not mind.
        let _ = job.reply.send(Err(RunError::Deadline { model: self.name.clone() }));
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shared.queue.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!(model = self.name, "a worker had ended with a panic");
            }
        }
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.name).field("hash", &self.hash).finish_non_exhaustive()
    }
}

fn check(name: &str, options: &ModelOptions) -> Result<(), LoadError> {
    let named = [
        ("sessions", options.sessions),
        ("threads", options.threads),
        ("queue_capacity", options.queue_capacity),
        ("max_batch", options.max_batch),
    ];
    match named.into_iter().find(|(_, value)| *value == 0) {
        Some((option, _)) => Err(LoadError::Option { model: name.to_owned(), option }),
        None => Ok(()),
    }
}

fn sessions(
    backend: &dyn Backend,
    name: &str,
    bytes: Cow<'static, [u8]>,
    card: &Card,
    options: &ModelOptions,
) -> Result<Vec<Box<dyn Session>>, LoadError> {
    // Unwind safety: whatever a panic leaves half-made was made in there, and goes with it.
    let loaded = catch_unwind(AssertUnwindSafe(|| backend.load(bytes, card, options)));
    let loaded = loaded.unwrap_or_else(|panic| Err(BackendError::Failed(worker::panic_message(&*panic))));
    let (model, backend) = (name.to_owned(), backend.name());
    loaded.map_err(|error| match error {
        BackendError::Unsupported(message) => LoadError::Unsupported { model, backend, message },
        BackendError::Failed(message) => LoadError::Backend { model, backend, message },
    })
}
