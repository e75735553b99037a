//! Jobs are computed on a session, together where they can be, and each is answered.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::pace::Pace;
use super::queue::{Job, Queue};
use super::signature::Signature;
use crate::backend::{BackendError, Session};
use crate::model::{Capacity, Counters, Reply, RunError, panic_message};
use crate::tensor::Tensor;

/// What callers and workers have in common.
pub(super) struct Shared {
    /// The model's name, for errors.
    pub(super) name: String,
    pub(super) capacity: Capacity,
    pub(super) signature: Signature,
    pub(super) queue: Queue,
    pub(super) counters: Counters,
    pub(super) pace: Pace,
}

impl Shared {
    /// Compute what is in the queue until it is closed.
    pub(super) fn serve(&self) {
        let (sessions, max_batch) = (self.capacity.sessions, self.capacity.max_batch);
        let mut held = None;
        while let Some((mut session, jobs)) =
            self.queue.take(held.take(), sessions, max_batch, |dead| self.skip(dead))
        {
            if jobs.len() == 1 {
                jobs.into_iter().for_each(|job| self.answer_alone(&mut *session, job));
            } else {
                self.answer_together(&mut *session, jobs);
            }
            held = Some(session);
        }
    }

    /// Compute one caller's inputs.
    pub(super) fn compute(
        &self,
        session: &mut dyn Session,
        inputs: &[Tensor],
        queued: Instant,
    ) -> Result<Reply, RunError> {
        let began = Instant::now();
        let rows = self.signature.rows(inputs);
        match self.run(session, inputs) {
            Ok(outputs) => {
                let compute = began.elapsed();
                self.counters.batch(1, rows);
                self.pace.record(compute, self.signature.work(inputs));
                let outputs = self.signature.name(outputs);
                Ok(Reply { outputs, queue: began - queued, compute, batch: rows, usage: None })
            }
            Err(error) => {
                self.counters.failed();
                Err(self.explain(error))
            }
        }
    }

    /// Answer a job that nobody waits for any more, instead of computing it.
    pub(super) fn skip(&self, job: Job) {
        self.counters.skipped();
        // Its caller may be just short of noticing the deadline; a caller that is gone does not
        // mind.
        let _ = job.reply.send(Err(RunError::Deadline { model: self.name.clone() }));
    }

    fn answer_alone(&self, session: &mut dyn Session, job: Job) {
        let answer = self.compute(session, &job.inputs, job.queued);
        answer_to(job, answer);
    }

    /// Compute jobs in one call. Should that fail, one by one, so that the error reaches only the
    /// job that causes it.
    fn answer_together(&self, session: &mut dyn Session, jobs: Vec<Job>) {
        let began = Instant::now();
        let rows = jobs.iter().map(Job::size).sum();
        let split = self.signature.concatenate(&jobs).and_then(|inputs| {
            let outputs = self.run(session, &inputs)?;
            let rows: Vec<_> = jobs.iter().map(Job::size).collect();
            Ok((split(&outputs, &rows)?, self.signature.work(&inputs)))
        });
        let compute = began.elapsed();
        match split {
            Ok((parts, work)) => {
                self.counters.batch(jobs.len(), rows);
                self.pace.record(compute, work);
                for (job, outputs) in jobs.into_iter().zip(parts) {
                    let outputs = self.signature.name(outputs);
                    let queue = began - job.queued;
                    answer_to(job, Ok(Reply { outputs, queue, compute, batch: rows, usage: None }));
                }
            }
            Err(error) => {
                tracing::debug!(model = self.name, jobs = jobs.len(), ?error, "a batch failed; one by one");
                jobs.into_iter().for_each(|job| self.answer_alone(session, job));
            }
        }
    }

    fn run(&self, session: &mut dyn Session, inputs: &[Tensor]) -> Result<Vec<Tensor>, BackendError> {
        // Unwind safety: rten's model is not changed by a run, and ONNX Runtime's session lives
        // behind a C interface through which no Rust panic passes; neither is left half-changed,
        // and the session serves on.
        let outputs = catch_unwind(AssertUnwindSafe(|| session.run(inputs)))
            .unwrap_or_else(|panic| Err(BackendError::Failed(panic_message(&*panic))))?;
        self.signature.check(&outputs).map_err(BackendError::Failed)?;
        Ok(outputs)
    }

    fn explain(&self, error: BackendError) -> RunError {
        let model = self.name.clone();
        match error {
            BackendError::Unsupported(message) => RunError::Unsupported { model, message },
            BackendError::Failed(message) => RunError::Failed { model, message },
        }
    }
}

fn answer_to(job: Job, answer: Result<Reply, RunError>) {
    // A caller that has left meanwhile does not want it.
    let _ = job.reply.send(answer);
}

/// Cut each output into parts of `rows` of axis 0, and give each job its parts.
fn split(outputs: &[Tensor], rows: &[usize]) -> Result<Vec<Vec<Tensor>>, BackendError> {
    let total: usize = rows.iter().sum();
    let mut parts: Vec<Vec<Tensor>> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for output in outputs {
        if output.shape().first() != Some(&total) {
            let shape = output.shape();
            return Err(BackendError::Failed(format!("an output has shape {shape:?} for {total} rows")));
        }
        let row_bytes = output.data().len() / total;
        let mut data = output.data();
        for (part, &rows) in parts.iter_mut().zip(rows) {
            let (own, others) = data.split_at(rows * row_bytes);
            data = others;
            let mut shape = output.shape().to_vec();
            shape[0] = rows;
            let tensor = Tensor::new(output.dtype(), shape, own.to_vec());
            part.push(tensor.map_err(|error| BackendError::Failed(error.to_string()))?);
        }
    }
    Ok(parts)
}
