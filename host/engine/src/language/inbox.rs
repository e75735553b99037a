//! Requests that wait for the model's thread.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::job::Job;
use super::prefix::CacheOwner;

/// What there is to know of a job that waits, to choose the next.
pub(super) struct Waiting {
    pub(super) owner: CacheOwner,
    pub(super) prompt: Arc<[u32]>,
    /// See [`Job::blocks`].
    pub(super) blocks: usize,
}

/// A bounded list that callers put jobs into, and from which the model's thread picks.
pub(super) struct Inbox {
    /// A lock, since the thread looks at all jobs before it takes one. It is held to copy a few
    /// words of each, never while they are compared with what is known or running, nor across an
    /// await or a pass.
    state: Mutex<State>,
    /// Rung for each job, and at the end.
    ready: Condvar,
    capacity: usize,
}

struct State {
    jobs: Vec<Job>,
    closed: bool,
}

/// Why a job was not taken in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Full,
    Closed,
}

impl Inbox {
    pub(super) fn new(capacity: usize) -> Self {
        let state = State { jobs: Vec::new(), closed: false };
        Inbox { state: Mutex::new(state), ready: Condvar::new(), capacity }
    }

    /// Add a job. Dead ones make room for it, through `skip`, and then the last of a component that
    /// has at least two more waiting than this one's, before it is refused. Gives the job that was
    /// displaced.
    pub(super) fn push(&self, job: Job, skip: impl FnMut(Job)) -> Result<Option<Job>, Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.jobs.len() >= self.capacity {
            state.remove_dead().for_each(skip);
        }
        let displaced = match state.jobs.len() >= self.capacity {
            true => Some(state.displace(&job.owner.component).ok_or(Refused::Full)?),
            false => None,
        };
        state.jobs.push(job);
        drop(state);
        self.ready.notify_one();
        Ok(displaced)
    }

    /// Remove the dead, through `skip`, and say what waits, in order.
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

    /// The job that `waiting` is, if it still waits.
    pub(super) fn take(&self, waiting: &Waiting) -> Option<Job> {
        let mut state = self.lock();
        let position = state.jobs.iter().position(|job| Arc::ptr_eq(&job.prompt, &waiting.prompt))?;
        Some(state.jobs.remove(position))
    }

    /// Wait until there is a job. False once the inbox is closed.
    pub(super) fn wait(&self) -> bool {
        let state = self.lock();
        let empty = |state: &mut State| state.jobs.is_empty() && !state.closed;
        let state = self.ready.wait_while(state, empty).unwrap_or_else(PoisonError::into_inner);
        !state.closed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Turn callers away and send the thread home. Waiting jobs are dropped, which their callers
    /// see.
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

    /// No code under the lock leaves the list half-changed, so a panic there, were there one, does
    /// no harm.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn displace(&mut self, component: &Arc<str>) -> Option<Job> {
        let mut waiting: HashMap<&str, usize> = HashMap::new();
        for job in &self.jobs {
            *waiting.entry(&job.owner.component).or_default() += 1;
        }
        let own = waiting.get(&**component).copied().unwrap_or(0);
        let (most, _) =
            waiting.into_iter().filter(|(_, count)| *count >= own + 2).max_by_key(|(_, count)| *count)?;
        let newest = self.jobs.iter().rposition(|job| *job.owner.component == *most)?;
        Some(self.jobs.remove(newest))
    }

    fn remove_dead(&mut self) -> impl Iterator<Item = Job> {
        let now = Instant::now();
        self.jobs.extract_if(.., move |job| job.is_dead(now))
    }
}
