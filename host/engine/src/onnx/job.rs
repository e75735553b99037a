//! Jobs of a model's queue, and the selection of those that are computed together.

use std::collections::VecDeque;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::limits::MAX_BATCH_TOKENS;
use crate::model::{Reply, RunError};
use crate::tensor::Tensor;

/// A queued job: a call, or one window of a text.
pub(super) struct Job {
    /// Inputs in the order of the model's file.
    pub(super) inputs: Vec<Tensor>,
    /// Joining with other jobs.
    pub(super) joins: Joins,
    /// Place in the queue: the time of the call. A later window of a long text is placed as if the
    /// call had come later, so that it does not delay other callers.
    pub(super) turn: Instant,
    pub(super) queued: Instant,
    pub(super) deadline: Instant,
    /// Closed when the caller drops its future.
    pub(super) reply: oneshot::Sender<Result<Reply, RunError>>,
}

/// Way in which a job is joined with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// It is computed alone.
    Never,
    /// Its rows of axis 0, with jobs whose other axes are equal.
    Rows(usize),
    /// One row of this many tokens on axis 1, with others of about the same length, which are
    /// padded to the longest.
    Padded(usize),
}

impl Job {
    /// True if the caller is gone or the deadline has passed.
    pub(super) fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_closed() || now >= self.deadline
    }

    /// Number of rows that the job adds to a batch.
    pub(super) fn rows(&self) -> usize {
        match self.joins {
            Joins::Never | Joins::Padded(_) => 1,
            Joins::Rows(rows) => rows,
        }
    }

    /// True if both jobs can be concatenated on axis 0. The signature has checked names and types.
    fn fits(&self, other: &Job) -> bool {
        match (self.joins, other.joins) {
            (Joins::Padded(_), Joins::Padded(_)) => true,
            (Joins::Rows(_), Joins::Rows(_)) => {
                let same = |(one, two): (&Tensor, &Tensor)| one.shape().get(1..) == two.shape().get(1..);
                self.inputs.iter().zip(&other.inputs).all(same)
            }
            _ => false,
        }
    }

    /// Number of tokens of a row that may be padded.
    pub(super) fn padded_tokens(&self) -> Option<usize> {
        if let Joins::Padded(tokens) = self.joins { Some(tokens) } else { None }
    }

    fn tokens(&self) -> usize {
        self.padded_tokens().unwrap_or(0)
    }
}

/// Takes the first of `jobs`, and up to `max_jobs` in all of those that fit, within `max_rows`
/// rows. Of texts, those of the most similar length are taken, as long as padding is at most a
/// fifth of the batch, and the batch at most [`MAX_BATCH_TOKENS`].
pub(super) fn take_batch(jobs: &mut VecDeque<Job>, max_jobs: usize, max_rows: usize) -> Vec<Job> {
    let Some(first) = jobs.front() else { return Vec::new() };
    let mut fitting: Vec<usize> = (1..jobs.len()).filter(|&index| first.fits(&jobs[index])).collect();
    fitting.sort_by_key(|&index| jobs[index].tokens().abs_diff(first.tokens()));
    let (mut rows, mut tokens, mut longest) = (first.rows(), first.tokens(), first.tokens());
    let mut chosen = vec![0];
    for index in fitting {
        if chosen.len() >= max_jobs {
            break;
        }
        let job = &jobs[index];
        let (more_rows, more_tokens) = (rows + job.rows(), tokens + job.tokens());
        let padded = more_rows * longest.max(job.tokens());
        let is_padded = matches!(job.joins, Joins::Padded(_));
        if more_rows > max_rows || is_padded && (padded > MAX_BATCH_TOKENS || padded * 4 > more_tokens * 5) {
            break;
        }
        (rows, tokens, longest) = (more_rows, more_tokens, longest.max(job.tokens()));
        chosen.push(index);
    }
    chosen.sort_unstable();
    let mut taken: Vec<_> = chosen.into_iter().rev().filter_map(|index| jobs.remove(index)).collect();
    taken.reverse();
    taken
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn job(joins: Joins, shape: &[usize]) -> Job {
        let values = vec![0u8; shape.iter().product()];
        let inputs = vec![Tensor::from_slice(shape, &values).unwrap()];
        let now = Instant::now();
        let (turn, queued, deadline) = (now, now, now + Duration::from_secs(60));
        Job { inputs, joins, turn, queued, deadline, reply: oneshot::channel().0 }
    }

    #[test]
    fn fitting_jobs_are_taken_in_order() {
        let one = || job(Joins::Rows(1), &[1, 2]);
        let wide = || job(Joins::Rows(1), &[1, 3]);
        let tall = || job(Joins::Rows(4), &[4, 2]);
        let alone = || job(Joins::Never, &[1, 2]);
        let five = || (0..5).map(|_| one()).collect::<Vec<_>>();
        let cases = [
            ("up to max_jobs", five(), 3, 8, 3),
            ("up to max_rows", five(), 5, 4, 4),
            ("not past max_rows by a tall one", vec![one(), tall(), one()], 3, 4, 1),
            ("a job taller than max_rows, alone", vec![tall(), one()], 2, 2, 1),
            ("those of the same shape", vec![one(), wide(), one()], 3, 8, 2),
            ("a job that cannot be batched, alone", vec![alone(), alone()], 2, 8, 1),
        ];
        for (what, jobs, max_jobs, max_rows, expected) in cases {
            let all = jobs.len();
            let mut queue = VecDeque::from(jobs);
            assert_eq!(take_batch(&mut queue, max_jobs, max_rows).len(), expected, "{what}");
            assert_eq!(queue.len(), all - expected, "{what}");
        }
    }

    #[test]
    fn texts_of_similar_length_are_joined() {
        let lengths = |jobs: &[Job]| jobs.iter().map(Job::tokens).collect::<Vec<_>>();
        let queue = |lengths: &[usize]| {
            lengths.iter().map(|&tokens| job(Joins::Padded(tokens), &[1, tokens])).collect::<VecDeque<_>>()
        };
        let mut jobs = queue(&[40, 10, 41, 500, 39, 11]);
        assert_eq!(lengths(&take_batch(&mut jobs, 6, 8)), [40, 41, 39]);
        assert_eq!(lengths(&take_batch(&mut jobs, 6, 8)), [10, 11]);
        assert_eq!(lengths(&take_batch(&mut jobs, 6, 8)), [500]);
        assert!(take_batch(&mut jobs, 6, 8).is_empty());
        let mut long = queue(&[100; 4]);
        assert_eq!(take_batch(&mut long, 4, 8).len(), 2, "at most MAX_BATCH_TOKENS");
    }
}
