//! Queue of jobs and pool of free sessions, and the selection of jobs for a batch.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::backend::Session;
use crate::model::{Reply, RunError};
use crate::tensor::Tensor;

/// A queued call.
pub(super) struct Job {
    /// Inputs in the order of the model's file.
    pub(super) inputs: Vec<Tensor>,
    /// Size of axis 0 of all inputs; `None` if the job cannot join a batch.
    pub(super) rows: Option<usize>,
    pub(super) queued: Instant,
    pub(super) deadline: Instant,
    /// Closed when the caller drops its future.
    pub(super) reply: oneshot::Sender<Result<Reply, RunError>>,
}

impl Job {
    /// True if the caller is gone or the deadline has passed.
    fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_closed() || now >= self.deadline
    }

    /// Number of rows that the job adds to a batch.
    pub(super) fn size(&self) -> usize {
        self.rows.unwrap_or(1)
    }

    /// True if both jobs can be concatenated on axis 0: all other axes are equal. The signature has
    /// checked names and types.
    fn fits(&self, other: &Job) -> bool {
        let same = |(one, two): (&Tensor, &Tensor)| one.shape().get(1..) == two.shape().get(1..);
        self.rows.is_some() && other.rows.is_some() && self.inputs.iter().zip(&other.inputs).all(same)
    }
}

/// A bounded queue between async callers and worker threads, with the sessions that both use.
pub(super) struct Queue {
    /// A mutex, because a worker inspects and takes several jobs atomically, which no channel
    /// supports. It is held for microseconds and never across an await or a computation.
    state: Mutex<State>,
    /// Notified when both a job and a session are available, and at the end.
    ready: Condvar,
    capacity: usize,
}

struct State {
    jobs: VecDeque<Job>,
    idle: Vec<Box<dyn Session>>,
    closed: bool,
}

/// A session in use, which is returned to the queue on drop.
pub(super) struct SessionGuard<'q> {
    queue: &'q Queue,
    session: Option<Box<dyn Session>>,
}

impl Deref for SessionGuard<'_> {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        self.session.as_deref().expect("a guard has a session until it is dropped")
    }
}

impl DerefMut for SessionGuard<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.session.as_deref_mut().expect("a guard has a session until it is dropped")
    }
}

impl Drop for SessionGuard<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut state = self.queue.lock();
        state.idle.push(session);
        let has_jobs = !state.jobs.is_empty();
        drop(state);
        if has_jobs {
            self.queue.ready.notify_one();
        }
    }
}

/// Reason why a job was rejected.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    Full,
    Closed,
}

impl Queue {
    pub(super) fn new(capacity: usize, sessions: Vec<Box<dyn Session>>) -> Self {
        let state = State { jobs: VecDeque::new(), idle: sessions, closed: false };
        Queue { state: Mutex::new(state), ready: Condvar::new(), capacity }
    }

    /// Adds a job. If the queue is full, dead jobs are passed to `skip` first to make room.
    pub(super) fn push(&self, job: Job, skip: impl FnMut(Job)) -> Result<(), Rejected> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        if state.jobs.len() >= self.capacity {
            let now = Instant::now();
            let (dead, live): (VecDeque<_>, VecDeque<_>) =
                state.jobs.drain(..).partition(|job| job.is_dead(now));
            state.jobs = live;
            dead.into_iter().for_each(skip);
        }
        if state.jobs.len() >= self.capacity {
            return Err(Rejected::Full);
        }
        state.jobs.push_back(job);
        let has_idle = !state.idle.is_empty();
        drop(state);
        if has_idle {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// Takes a free session if no jobs are queued.
    pub(super) fn take_idle(&self) -> Option<SessionGuard<'_>> {
        let mut state = self.lock();
        if state.closed || !state.jobs.is_empty() {
            return None;
        }
        let session = state.idle.pop();
        session.map(|session| SessionGuard { queue: self, session: Some(session) })
    }

    /// Waits for a session and for jobs, and takes one worker's share of them: at least one job,
    /// and further ones that fit, in order of arrival. The session that the worker used last is
    /// returned first.
    ///
    /// The share is the length of the queue divided by `sessions`, rounded up, and at most
    /// `max_batch` rows, so that no worker is idle while another computes a batch. Dead jobs are
    /// passed to `skip`. Returns `None` once the queue is closed.
    pub(super) fn take<'q>(
        &'q self,
        last: Option<SessionGuard<'q>>,
        sessions: usize,
        max_batch: usize,
        mut skip: impl FnMut(Job),
    ) -> Option<(SessionGuard<'q>, Vec<Job>)> {
        let mut state = self.lock();
        state.idle.extend(last.and_then(|mut guard| guard.session.take()));
        loop {
            if state.closed {
                return None;
            }
            if state.idle.is_empty() {
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let share = state.jobs.len().div_ceil(sessions);
            let (mut taken, mut rows) = (Vec::<Job>::new(), 0);
            let now = Instant::now();
            while taken.len() < share {
                let joins = |next: &mut Job| {
                    let fits = |first: &Job| next.fits(first) && rows + next.size() <= max_batch;
                    next.is_dead(now) || taken.first().is_none_or(fits)
                };
                let Some(next) = state.jobs.pop_front_if(joins) else { break };
                if next.is_dead(now) {
                    skip(next);
                } else {
                    rows += next.size();
                    taken.push(next);
                }
            }
            if !taken.is_empty() {
                let session = state.idle.pop();
                return Some((SessionGuard { queue: self, session }, taken));
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Closes the queue: callers are rejected, workers end, and queued jobs are dropped, which
    /// their callers notice.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.ready.notify_all();
    }

    pub(super) fn depth(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Ignores poisoning: no code under the lock leaves the queue in an inconsistent state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::{BackendError, Port};

    /// A session that is never run.
    struct Idle;

    impl Session for Idle {
        fn inputs(&self) -> &[Port] {
            &[]
        }

        fn outputs(&self) -> &[Port] {
            &[]
        }

        fn run(&mut self, _: &[Tensor]) -> Result<Vec<Tensor>, BackendError> {
            Ok(Vec::new())
        }
    }

    fn one_session() -> Vec<Box<dyn Session>> {
        vec![Box::new(Idle)]
    }

    #[test]
    fn free_session_is_exclusive_and_yields_to_queue() {
        let queue = Queue::new(8, one_session());
        let session = queue.take_idle();
        assert!(session.is_some() && queue.take_idle().is_none());
        drop(session);
        assert!(queue.take_idle().is_some());
        let _answers = fill(&queue, &[(Some(1), &[1, 1])]);
        assert!(queue.take_idle().is_none());
    }

    type Answer = oneshot::Receiver<Result<Reply, RunError>>;

    fn job(rows: Option<usize>, shape: &[usize]) -> (Job, Answer) {
        let (reply, answer) = oneshot::channel();
        let values = vec![0u8; shape.iter().product()];
        let inputs = vec![Tensor::from_slice(shape, &values).unwrap()];
        let queued = Instant::now();
        (Job { inputs, rows, queued, deadline: queued + Duration::from_secs(60), reply }, answer)
    }

    fn fill(queue: &Queue, jobs: &[(Option<usize>, &[usize])]) -> Vec<Answer> {
        let push = |(rows, shape): &(Option<usize>, &[usize])| {
            let (job, answer) = job(*rows, shape);
            queue.push(job, |_| panic!("nothing is dead")).unwrap();
            answer
        };
        jobs.iter().map(push).collect()
    }

    fn take(queue: &Queue, sessions: usize, max_batch: usize) -> Vec<Vec<usize>> {
        let (_session, taken) = queue.take(None, sessions, max_batch, |_| panic!("nothing is dead")).unwrap();
        taken.iter().map(|job| job.inputs[0].shape().to_vec()).collect()
    }

    #[test]
    fn worker_takes_share_of_fitting_jobs() {
        let one: (Option<usize>, &[usize]) = (Some(1), &[1, 2]);
        let wide: (Option<usize>, &[usize]) = (Some(1), &[1, 3]);
        let tall: (Option<usize>, &[usize]) = (Some(4), &[4, 2]);
        let alone: (Option<usize>, &[usize]) = (None, &[1, 2]);
        struct Case(&'static str, Vec<(Option<usize>, &'static [usize])>, usize, usize, usize);
        let cases = [
            Case("all of it, with one session", vec![one; 5], 1, 8, 5),
            Case("half of it rounded up, with two", vec![one; 5], 2, 8, 3),
            Case("one each, with as many sessions", vec![one; 5], 5, 8, 1),
            Case("up to max_batch rows", vec![one; 5], 1, 4, 4),
            Case("not past max_batch by a tall one", vec![one, tall, one], 1, 4, 1),
            Case("a job taller than max_batch, alone", vec![tall, one], 1, 2, 1),
            Case("up to the first of another shape", vec![one, wide, one], 1, 8, 1),
            Case("a job that cannot be batched, alone", vec![alone, alone], 1, 8, 1),
        ];
        for Case(what, jobs, sessions, max_batch, expected) in cases {
            let queue = Queue::new(8, one_session());
            let _answers = fill(&queue, &jobs);
            assert_eq!(take(&queue, sessions, max_batch).len(), expected, "{what}");
            assert_eq!(queue.depth(), jobs.len() - expected, "{what}");
        }
    }

    #[test]
    fn dead_jobs_are_skipped() {
        let queue = Queue::new(8, one_session());
        let mut answers = fill(&queue, &[(Some(1), &[1, 1]), (Some(1), &[1, 2]), (Some(1), &[1, 1])]);
        drop(answers.remove(1));
        let mut dead = 0;
        let (_session, taken) = queue.take(None, 1, 8, |_| dead += 1).unwrap();
        // The dead job has another shape but does not separate its neighbours.
        assert_eq!((taken.len(), dead), (2, 1));
    }

    #[test]
    fn closed_queue_accepts_and_returns_nothing() {
        let queue = Queue::new(8, one_session());
        let mut answers = fill(&queue, &[(Some(1), &[1, 1])]);
        queue.close();
        assert!(queue.take(None, 1, 8, |_| ()).is_none());
        assert!(answers[0].try_recv().is_err());
        assert_eq!(queue.push(job(Some(1), &[1, 1]).0, |_| ()), Err(Rejected::Closed));
    }
}
