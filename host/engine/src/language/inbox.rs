//! The queue of requests that wait for the model's thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::clock;
use super::job::Job;
use super::prefix::CacheOwner;

/// The data of a waiting job that the scheduler needs to choose the next one.
pub(super) struct Waiting {
    pub(super) owner: CacheOwner,
    pub(super) prompt: Arc<[u32]>,
    /// See [`Job::blocks`].
    pub(super) blocks: usize,
}

/// A bounded queue that callers push jobs into, and that the model's thread picks from.
pub(super) struct Inbox {
    /// A lock, because the thread inspects all jobs before it takes one. It is held while a few
    /// words of each job are copied, never while jobs are compared with cached prefixes or running
    /// tasks, and never across an await or a pass.
    state: Mutex<State>,
    /// Signalled for each job, and on close.
    ready: Condvar,
    capacity: usize,
}

struct State {
    jobs: Vec<Job>,
    closed: bool,
}

/// Reason that a job was not queued.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PushError {
    Full,
    Closed,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { jobs: Vec::new(), closed: false };
        Inbox { state: Mutex::new(state), ready: Condvar::new(), capacity }
    }

    /// Adds a job. If the queue is full, dead jobs are removed first, through `skip`; then the
    /// newest job of a component that has at least two more waiting than this one is displaced and
    /// returned; otherwise the job is rejected.
    pub(super) fn push(&self, job: Job, skip: impl FnMut(Job)) -> Result<Option<Job>, PushError> {
        let mut state = self.lock();
        if state.closed {
            return Err(PushError::Closed);
        }
        if state.jobs.len() >= self.capacity {
            state.remove_dead().for_each(skip);
        }
        let displaced = match state.jobs.len() >= self.capacity {
            true => Some(state.displace(&job.owner.component).ok_or(PushError::Full)?),
            false => None,
        };
        state.jobs.push(job);
        drop(state);
        self.ready.notify_one();
        Ok(displaced)
    }

    /// Removes dead jobs, through `skip`, and returns the waiting ones in order.
    pub(super) fn waiting(&self, skip: impl FnMut(Job)) -> Vec<Waiting> {
        let mut state = self.lock();
        state.remove_dead().for_each(skip);
        let waiting = |job: &Job| Waiting {
            owner: job.owner.clone(),
            prompt: job.prompt.clone(),
            blocks: job.blocks(),
        };
        state.jobs.iter().map(waiting).collect()
    }

    /// Takes the job that `waiting` describes, if it still waits.
    pub(super) fn take(&self, waiting: &Waiting) -> Option<Job> {
        let mut state = self.lock();
        let position = state.jobs.iter().position(|job| Arc::ptr_eq(&job.prompt, &waiting.prompt))?;
        Some(state.jobs.remove(position))
    }

    /// Blocks until a job is queued. Returns false once the inbox is closed.
    pub(super) fn wait(&self) -> bool {
        let state = self.lock();
        let empty = |state: &mut State| state.jobs.is_empty() && !state.closed;
        let state = self.ready.wait_while(state, empty).unwrap_or_else(PoisonError::into_inner);
        !state.closed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Rejects new jobs, wakes the thread, and drops waiting jobs, so that their callers see a
    /// closed reply.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.ready.notify_all();
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn depth(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Ignores poisoning: no code under the lock leaves the list half changed.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn displace(&mut self, component: &Arc<str>) -> Option<Job> {
        // Ordered, so that equal counts are decided the same way in each run.
        let mut waiting: BTreeMap<&str, usize> = BTreeMap::new();
        for job in &self.jobs {
            *waiting.entry(&job.owner.component).or_default() += 1;
        }
        let own = waiting.get(&**component).copied().unwrap_or(0);
        let (busiest, _) =
            waiting.into_iter().filter(|(_, count)| *count >= own + 2).max_by_key(|(_, count)| *count)?;
        let newest = self.jobs.iter().rposition(|job| *job.owner.component == *busiest)?;
        Some(self.jobs.remove(newest))
    }

    fn remove_dead(&mut self) -> impl Iterator<Item = Job> {
        let now = clock::now();
        self.jobs.extract_if(.., move |job| job.is_dead(now))
    }
}
