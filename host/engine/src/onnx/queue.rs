//! Jobs that wait, sessions that are free, and which jobs are computed together.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::backend::Session;
use crate::model::{Reply, RunError};
use crate::tensor::Tensor;

/// A call that waits to be computed.
pub(super) struct Job {
    /// In the order of the model's file.
    pub(super) inputs: Vec<Tensor>,
    /// The size of axis 0 of every input, where the job may be computed together with others.
    pub(super) rows: Option<usize>,
    pub(super) queued: Instant,
    pub(super) deadline: Instant,
    /// Closed once the caller is gone.
    pub(super) reply: oneshot::Sender<Result<Reply, RunError>>,
}

impl Job {
    /// Whether nobody waits for the answer any more.
    fn is_dead(&self, now: Instant) -> bool {
        self.reply.is_closed() || now >= self.deadline
    }

    /// Rows, as a batch counts them.
    pub(super) fn size(&self) -> usize {
        self.rows.unwrap_or(1)
    }

    /// Whether the two can be concatenated on axis 0: the same shapes after it. Names and types are
    /// the signature's.
    fn fits(&self, other: &Job) -> bool {
        let same = |(one, two): (&Tensor, &Tensor)| one.shape().get(1..) == two.shape().get(1..);
        self.rows.is_some() && other.rows.is_some() && self.inputs.iter().zip(&other.inputs).all(same)
    }
}

/// A bounded queue between async callers and worker threads, and the sessions that both compute
/// with.
pub(super) struct Queue {
    /// A lock, since a worker takes several jobs at once and looks at them first, which no channel
    /// allows. It is held for microseconds and never across an await or a computation.
    state: Mutex<State>,
    /// Rung when there are both a job and a session, and for all at the end.
    ready: Condvar,
    capacity: usize,
}

struct State {
    jobs: VecDeque<Job>,
    idle: Vec<Box<dyn Session>>,
    closed: bool,
}

/// A session that computes; free again on drop.
pub(super) struct Held<'q> {
    queue: &'q Queue,
    session: Option<Box<dyn Session>>,
}

impl Deref for Held<'_> {
    type Target = dyn Session;

    fn deref(&self) -> &Self::Target {
        self.session.as_deref().expect("it is held until it is dropped")
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        self.session.as_deref_mut().expect("it is held until it is dropped")
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Some(session) = self.session.take() else { return };
        let mut state = self.queue.lock();
        state.idle.push(session);
        let waited_for = !state.jobs.is_empty();
        drop(state);
        if waited_for {
            self.queue.ready.notify_one();
        }
    }
}

/// Why a job was not taken in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

impl Queue {
    pub(super) fn new(capacity: usize, sessions: Vec<Box<dyn Session>>) -> Self {
        let state = State { jobs: VecDeque::new(), idle: sessions, closed: false };
        Queue { state: Mutex::new(state), ready: Condvar::new(), capacity }
    }

    /// Add a job. Dead ones make room for it, through `skip`, before it is refused.
    pub(super) fn push(&self, job: Job, skip: impl FnMut(Job)) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.jobs.len() >= self.capacity {
            let now = Instant::now();
            let (dead, live): (VecDeque<_>, VecDeque<_>) =
                state.jobs.drain(..).partition(|job| job.is_dead(now));
            state.jobs = live;
            dead.into_iter().for_each(skip);
        }
        if state.jobs.len() >= self.capacity {
            return Err(Refused::Full);
        }
        state.jobs.push_back(job);
        let served = !state.idle.is_empty();
        drop(state);
        if served {
            self.ready.notify_one();
        }
        Ok(())
    }

    /// A free session, unless jobs wait for one.
    pub(super) fn hold(&self) -> Option<Held<'_>> {
        let mut state = self.lock();
        if state.closed || !state.jobs.is_empty() {
            return None;
        }
        let session = state.idle.pop();
        session.map(|session| Held { queue: self, session: Some(session) })
    }

    /// Wait for a session and for jobs, and take one worker's share of them: at least one, that fit
    /// together, in the order of arrival. A worker goes on with the session that it `held`.
    ///
    /// The share is the queue's length over `sessions`, rounded up, and at most `max_batch` rows,
    /// so that no worker idles while another batches. Dead jobs are passed to `skip`. None once the
    /// queue is closed.
    pub(super) fn take<'q>(
        &'q self,
        held: Option<Held<'q>>,
        sessions: usize,
        max_batch: usize,
        mut skip: impl FnMut(Job),
    ) -> Option<(Held<'q>, Vec<Job>)> {
        let mut state = self.lock();
        state.idle.extend(held.and_then(|mut held| held.session.take()));
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
                return Some((Held { queue: self, session }, taken));
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Turn callers away and send the workers home. Waiting jobs are dropped, which their callers
    /// see.
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

    /// No code under the lock leaves the queue half-changed, so a panic there, were there one, does
    /// no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::{BackendError, Port};

    /// A session that is never asked.
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
    fn free_session_is_held_by_one_and_only_while_nobody_waits() {
        let queue = Queue::new(8, one_session());
        let held = queue.hold();
        assert!(held.is_some() && queue.hold().is_none());
        drop(held);
        assert!(queue.hold().is_some());
        let _answers = fill(&queue, &[(Some(1), &[1, 1])]);
        assert!(queue.hold().is_none());
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
    fn worker_takes_its_share_of_what_fits() {
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
    fn dead_jobs_are_passed_over() {
        let queue = Queue::new(8, one_session());
        let mut answers = fill(&queue, &[(Some(1), &[1, 1]), (Some(1), &[1, 2]), (Some(1), &[1, 1])]);
        drop(answers.remove(1));
        let mut dead = 0;
        let (_session, taken) = queue.take(None, 1, 8, |_| dead += 1).unwrap();
        // The dead one's other shape does not part the two around it.
        assert_eq!((taken.len(), dead), (2, 1));
    }

    #[test]
    fn closed_queue_takes_nothing_and_gives_nothing() {
        let queue = Queue::new(8, one_session());
        let mut answers = fill(&queue, &[(Some(1), &[1, 1])]);
        queue.close();
        assert!(queue.take(None, 1, 8, |_| ()).is_none());
        assert!(answers[0].try_recv().is_err());
        assert_eq!(queue.push(job(Some(1), &[1, 1]).0, |_| ()), Err(Refused::Closed));
    }
}
