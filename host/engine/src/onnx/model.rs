//! A loaded ONNX model: its sessions and workers, and callers that compute short jobs themselves.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::oneshot;

use super::external::{self, Rejection};
use super::job::{Job, Joins};
use super::pace::Pace;
use super::queue::{Queue, Rejected};
use super::signature::{Arranged, Signature};
use super::summary::OnnxSummary;
use super::worker::Shared;
use crate::backend::{Backend, BackendError, Session, int8_saturates};
use crate::card::{Axis, Card};
use crate::dtype::DType;
use crate::model::{Capacity, Counters, LoadError, Reply, RunError, Stats, TokenUsage, panic_message};
use crate::tensor::Tensor;
use crate::weights::{Bytes, DataFile};

/// One window of a text: a row of each input, which may be padded and joined with other rows.
pub(crate) struct Row {
    /// Inputs in the order of the model's file, each with 1 row.
    pub(crate) inputs: Vec<Tensor>,
    /// Number of tokens.
    pub(crate) tokens: usize,
}

/// A loaded model. Dropping it stops its workers and waits for their computations.
pub(crate) struct OnnxModel {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl OnnxModel {
    /// Loads a file, with its external data, into sessions of `backend`, and starts one worker per
    /// session, except for that of a single job. `paddings` are the values with which shorter rows
    /// of tokens are padded, by the name of the input.
    ///
    /// # Errors
    ///
    /// When the backend cannot run the file, when the file disagrees with its card, or when it
    /// refers to data that the card does not list.
    pub(crate) fn load(
        backend: &dyn Backend,
        name: &str,
        (file, data): (Bytes, Vec<DataFile>),
        card: &Card,
        capacity: &Capacity,
        paddings: &[(&str, i64)],
    ) -> Result<Self, LoadError> {
        let inlined =
            match external::inline(&file, &data).map_err(|rejection| load_error(backend, name, rejection))? {
                Cow::Owned(inlined) => Some(inlined),
                Cow::Borrowed(_) => None,
            };
        drop(data);
        let bytes = inlined.map_or_else(|| file.into_cow(), Cow::Owned);
        let threads = capacity.session_threads();
        let sessions = sessions(backend, name, bytes, card, &threads)?;
        OnnxModel::start(name, card, capacity, sessions, paddings)
    }

    fn start(
        name: &str,
        card: &Card,
        capacity: &Capacity,
        sessions: Vec<Box<dyn Session>>,
        paddings: &[(&str, i64)],
    ) -> Result<Self, LoadError> {
        let first = sessions.first().map(|session| Signature::new(card, session.inputs(), session.outputs()));
        let mut signature = first
            .unwrap_or_else(|| Err("the backend created no session".to_owned()))
            .map_err(|message| LoadError::Disagreement { model: name.to_owned(), message })?;
        paddings.iter().for_each(|(input, value)| signature.set_padding(input, *value));
        let workers = capacity.sessions;
        let queue = Queue::new(capacity.queue_capacity, sessions, workers);
        let (counters, pace) = (Counters::default(), Pace::default());
        let (name, capacity) = (name.to_owned(), capacity.clone());
        let shared = Arc::new(Shared { name, capacity, signature, queue, counters, pace });
        // The model owns the workers from the start, so that a failure stops those already started.
        let mut model = OnnxModel { shared, workers: Vec::with_capacity(workers) };
        for index in 0..workers {
            let shared = model.shared.clone();
            let name = &model.shared.name;
            // The index comes first, because Linux shows 15 bytes. A name with a zero byte would
            // panic.
            let thread = std::thread::Builder::new().name(format!("{index}:{name}").replace('\0', " "));
            let started = thread.spawn(move || shared.serve());
            let started = started.map_err(|source| LoadError::Thread { model: name.clone(), source })?;
            model.workers.push(started);
        }
        Ok(model)
    }

    /// Implements [`crate::Model::run`].
    pub(crate) async fn run(
        &self,
        inputs: Vec<(String, Tensor)>,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let shared = &self.shared;
        let model = || shared.name.clone();
        let arranged = shared
            .signature
            .arrange(inputs)
            .map_err(|message| RunError::InvalidInput { model: model(), message })?;
        let queued = Instant::now();
        if queued >= deadline {
            return Err(RunError::Deadline { model: model() });
        }
        // Switching threads twice takes longer than a short computation.
        if let Some(_permit) = shared.pace.permit(shared.signature.work(&arranged.inputs))
            && let Some(mut session) = shared.queue.take_idle()
        {
            return shared.compute(&mut *session, &arranged.inputs, queued, deadline);
        }
        let (reply, answer) = oneshot::channel();
        let Arranged { inputs, joins } = arranged;
        self.push(vec![Job { inputs, joins, turn: queued, queued, deadline, reply }])?;
        self.receive(answer, deadline).await
    }

    /// Computes each of `rows`, in batches with those of other callers if `joined` is true. The
    /// replies have the order of the rows; an output may have padding on axis 1.
    ///
    /// # Errors
    ///
    /// As [`crate::Model::run`].
    pub(crate) async fn run_rows(
        &self,
        rows: Vec<Row>,
        joined: bool,
        deadline: Instant,
    ) -> Result<Vec<Reply>, RunError> {
        let shared = &self.shared;
        let queued = Instant::now();
        if queued >= deadline {
            return Err(RunError::Deadline { model: shared.name.clone() });
        }
        let work = rows.iter().map(|row| shared.signature.work(&row.inputs)).sum();
        if let Some(_permit) = shared.pace.permit(work)
            && let Some(mut session) = shared.queue.take_idle()
        {
            let compute = |row: Row| shared.compute(&mut *session, &row.inputs, queued, deadline);
            return rows.into_iter().map(compute).collect();
        }
        let (mut jobs, mut answers) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
        let mut turn = queued;
        for Row { inputs, tokens } in rows {
            let (reply, answer) = oneshot::channel();
            answers.push(answer);
            let work = shared.signature.work(&inputs);
            let joins = if joined { Joins::Padded(tokens) } else { Joins::Never };
            jobs.push(Job { inputs, joins, turn, queued, deadline, reply });
            turn += shared.pace.expect(work);
        }
        self.push(jobs)?;
        let mut replies = Vec::with_capacity(answers.len());
        for answer in answers {
            replies.push(self.receive(answer, deadline).await?);
        }
        Ok(replies)
    }

    /// Queues the jobs of one call.
    fn push(&self, jobs: Vec<Job>) -> Result<(), RunError> {
        let shared = &self.shared;
        shared.queue.push(jobs, |dead| shared.skip(dead)).map_err(|rejected| match rejected {
            Rejected::Full => {
                shared.counters.busy();
                RunError::Busy { model: shared.name.clone(), capacity: shared.capacity.queue_capacity }
            }
            Rejected::Closed => RunError::Closed { model: shared.name.clone() },
        })
    }

    /// Waits for the reply to a queued job.
    async fn receive(
        &self,
        answer: oneshot::Receiver<Result<Reply, RunError>>,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let model = || self.shared.name.clone();
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(RunError::Closed { model: model() }),
            Err(_) => Err(RunError::Deadline { model: model() }),
        }
    }

    /// Names, types and axes of the inputs, in the order of the file.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = (&str, DType, &[Axis])> {
        self.shared.signature.inputs()
    }

    /// Counts the tokens of a text.
    pub(crate) fn count(&self, usage: TokenUsage) {
        self.shared.counters.tokens(usage);
    }

    pub(crate) fn queue_depth(&self) -> usize {
        self.shared.queue.depth()
    }

    pub(crate) fn unbatched(&self) -> Option<&str> {
        self.shared.signature.unbatched()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.shared.counters.read()
    }
}

impl Drop for OnnxModel {
    fn drop(&mut self) {
        self.shared.queue.close();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!(model = self.shared.name, "a worker thread panicked");
            }
        }
    }
}

fn load_error(backend: &dyn Backend, name: &str, rejection: Rejection) -> LoadError {
    let model = name.to_owned();
    match rejection {
        Rejection::Malformed(message) => LoadError::Backend { model, backend: backend.name(), message },
        Rejection::Data(message) => LoadError::Data { model, message },
    }
}

fn sessions(
    backend: &dyn Backend,
    name: &str,
    bytes: Cow<'static, [u8]>,
    card: &Card,
    threads: &[usize],
) -> Result<Vec<Box<dyn Session>>, LoadError> {
    let may_saturate =
        int8_saturates() && OnnxSummary::read(&bytes).is_ok_and(|summary| summary.needs_wide_sums());
    // Unwind safety: everything that the closure builds is dropped with a panic.
    let loaded = catch_unwind(AssertUnwindSafe(|| backend.load(bytes, card, threads, may_saturate)));
    let loaded = loaded.unwrap_or_else(|panic| Err(BackendError::Failed(panic_message(&*panic))));
    let (model, backend) = (name.to_owned(), backend.name());
    loaded.map_err(|error| match error {
        BackendError::Unsupported(message) => LoadError::Unsupported { model, backend, message },
        BackendError::Failed(message) => LoadError::Backend { model, backend, message },
        BackendError::Deadline => LoadError::Backend { model, backend, message: "it was stopped".to_owned() },
    })
}
