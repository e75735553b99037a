//! A worker computes jobs on one session, together where it can, and answers each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use super::Shared;
use super::queue::Job;
use crate::backend::{BackendError, Session};
use crate::model::{Reply, RunError, panic_message};
use crate::tensor::Tensor;

/// A session and the queue that it serves, on a thread of its own.
pub(super) struct Worker {
    session: Box<dyn Session>,
    shared: Arc<Shared>,
}

impl Worker {
    pub(super) fn new(session: Box<dyn Session>, shared: Arc<Shared>) -> Self {
        Worker { session, shared }
    }

    /// Compute until the queue is closed.
    pub(super) fn serve(mut self) {
        let shared = self.shared.clone();
        let (sessions, max_batch) = (shared.capacity.sessions, shared.capacity.max_batch);
        while let Some(jobs) = shared.queue.take(sessions, max_batch, |dead| shared.skip(dead)) {
            if jobs.len() == 1 {
                jobs.into_iter().for_each(|job| self.compute_alone(job));
            } else {
                self.compute_together(jobs);
            }
        }
    }

    fn compute_alone(&mut self, job: Job) {
        let began = Instant::now();
        let rows = self.shared.signature.rows(&job.inputs);
        let answer = match self.run(&job.inputs) {
            Ok(outputs) => {
                self.shared.counters.batch(1, rows);
                Ok(Reply {
                    outputs: self.shared.signature.name(outputs),
                    queue: began - job.queued,
                    compute: began.elapsed(),
                    batch: rows,
                    usage: None,
                })
            }
            Err(error) => {
                self.shared.counters.failed();
                Err(self.explain(error))
            }
        };
        answer_to(job, answer);
    }

    /// Compute jobs in one call. Should that fail, one by one, so that the error reaches only the job that causes it.
    fn compute_together(&mut self, jobs: Vec<Job>) {
        let began = Instant::now();
        let rows = jobs.iter().map(Job::size).sum();
        let split = self.shared.signature.concatenate(&jobs).and_then(|inputs| self.run(&inputs)).and_then(
            |outputs| {
                let rows: Vec<_> = jobs.iter().map(Job::size).collect();
                split(&outputs, &rows)
            },
        );
        let compute = began.elapsed();
        match split {
            Ok(parts) => {
                self.shared.counters.batch(jobs.len(), rows);
                for (job, outputs) in jobs.into_iter().zip(parts) {
                    let outputs = self.shared.signature.name(outputs);
                    let queue = began - job.queued;
                    answer_to(job, Ok(Reply { outputs, queue, compute, batch: rows, usage: None }));
                }
            }
            Err(error) => {
                tracing::debug!(
                    model = self.shared.name,
                    jobs = jobs.len(),
                    ?error,
                    "a batch failed; one by one"
                );
                jobs.into_iter().for_each(|job| self.compute_alone(job));
            }
        }
    }

    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, BackendError> {
        // Unwind safety: rten's model is not changed by a run, and ONNX Runtime's session lives behind a C interface
        // through which no Rust panic passes; neither is left half-changed, and the session serves on.
        let outputs = catch_unwind(AssertUnwindSafe(|| self.session.run(inputs)))
            .unwrap_or_else(|panic| Err(BackendError::Failed(panic_message(&*panic))))?;
        self.shared.signature.check(&outputs).map_err(BackendError::Failed)?;
        Ok(outputs)
    }

    fn explain(&self, error: BackendError) -> RunError {
        let model = self.shared.name.clone();
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
