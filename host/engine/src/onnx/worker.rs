//! Computation of jobs on a session, in batches where possible.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::job::Job;
use super::pace::Pace;
use super::queue::Queue;
use super::signature::Signature;
use crate::backend::{BackendError, Session};
use crate::model::{Capacity, Counters, Reply, RunError, panic_message};
use crate::tensor::Tensor;

/// State that callers and workers share.
pub(super) struct Shared {
    /// Name of the model in errors.
    pub(super) name: String,
    pub(super) capacity: Capacity,
    pub(super) signature: Signature,
    pub(super) queue: Queue,
    pub(super) counters: Counters,
    pub(super) pace: Pace,
}

impl Shared {
    /// Runs a worker: computes queued jobs until the queue is closed.
    pub(super) fn serve(&self) {
        let mut last = None;
        while let Some((mut session, jobs)) =
            self.queue.take(last.take(), self.capacity.max_batch, |dead| self.skip(dead))
        {
            if jobs.len() == 1 {
                jobs.into_iter().for_each(|job| self.answer_alone(&mut *session, job));
            } else {
                self.answer_together(&mut *session, jobs);
            }
            last = Some(session);
        }
    }

    /// Computes the inputs of one caller.
    pub(super) fn compute(
        &self,
        session: &mut dyn Session,
        inputs: &[Tensor],
        queued: Instant,
        deadline: Instant,
    ) -> Result<Reply, RunError> {
        let began = Instant::now();
        let rows = self.signature.rows(inputs);
        let answer = self.run(session, inputs, deadline);
        let compute = began.elapsed();
        if matches!(answer, Ok(_) | Err(BackendError::Deadline)) {
            self.pace.record(compute, self.signature.work(inputs));
        }
        match answer {
            Ok(outputs) => {
                self.counters.batch(1, rows);
                let outputs = self.signature.name(outputs);
                Ok(Reply { outputs, queue: began - queued, compute, batch: rows, usage: None })
            }
            Err(error) => {
                self.counters.failed();
                Err(self.explain(error))
            }
        }
    }

    /// Replies to a dead job without computing it.
    pub(super) fn skip(&self, job: Job) {
        self.counters.skipped();
        // The caller may not have noticed its deadline yet. If it is gone, the reply is dropped.
        let _ = job.reply.send(Err(RunError::Deadline { model: self.name.clone() }));
    }

    fn answer_alone(&self, session: &mut dyn Session, job: Job) {
        let answer = self.compute(session, &job.inputs, job.queued, job.deadline);
        answer_to(job, answer);
    }

    /// Computes jobs in one call of the backend. If that fails, they are computed one at a time, so
    /// that only the job that causes the error receives it. It may take until the last deadline of
    /// the jobs.
    fn answer_together(&self, session: &mut dyn Session, jobs: Vec<Job>) {
        let began = Instant::now();
        let rows = jobs.iter().map(Job::rows).sum();
        let deadline = jobs.iter().map(|job| job.deadline).max().unwrap_or(began);
        let split = self.signature.concatenate(&jobs).and_then(|inputs| {
            let outputs = self.run(session, &inputs, deadline)?;
            let rows: Vec<_> = jobs.iter().map(Job::rows).collect();
            Ok((split(&outputs, &rows)?, self.signature.work(&inputs)))
        });
        let compute = began.elapsed();
        match split {
            Ok((parts, work)) => {
                self.counters.batch(jobs.len(), rows);
                self.count_padding(&jobs);
                self.pace.record(compute, work);
                for (job, outputs) in jobs.into_iter().zip(parts) {
                    let outputs = self.signature.name(outputs);
                    let queue = began - job.queued;
                    answer_to(job, Ok(Reply { outputs, queue, compute, batch: rows, usage: None }));
                }
            }
            Err(error) => {
                tracing::debug!(
                    model = self.name,
                    jobs = jobs.len(),
                    ?error,
                    "batch failed, computing its jobs one at a time"
                );
                for job in jobs {
                    if job.is_dead(Instant::now()) {
                        self.skip(job);
                    } else {
                        self.answer_alone(session, job);
                    }
                }
            }
        }
    }

    /// Counts the tokens of texts that were computed together, with their padding.
    fn count_padding(&self, jobs: &[Job]) {
        let tokens = jobs.iter().filter_map(Job::padded_tokens);
        if let Some(longest) = tokens.clone().max() {
            self.counters.padding(jobs.len() * longest - tokens.sum::<usize>());
        }
    }

    fn run(
        &self,
        session: &mut dyn Session,
        inputs: &[Tensor],
        deadline: Instant,
    ) -> Result<Vec<Tensor>, BackendError> {
        // Unwind safety: a run does not modify rten's model, and ONNX Runtime's session is behind a
        // C interface, which no Rust panic crosses. The session therefore remains usable.
        let outputs = catch_unwind(AssertUnwindSafe(|| session.run(inputs, deadline)))
            .unwrap_or_else(|panic| Err(BackendError::Failed(panic_message(&*panic))))?;
        self.signature.check(&outputs).map_err(BackendError::Failed)?;
        Ok(outputs)
    }

    fn explain(&self, error: BackendError) -> RunError {
        let model = self.name.clone();
        match error {
            BackendError::Deadline => RunError::Deadline { model },
            BackendError::Unsupported(message) => RunError::Unsupported { model, message },
            BackendError::Failed(message) => RunError::Failed { model, message },
        }
    }
}

fn answer_to(job: Job, answer: Result<Reply, RunError>) {
    // The caller may be gone.
    let _ = job.reply.send(answer);
}

/// Splits each output into parts of `rows` rows of axis 0, and returns the parts of each job.
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
