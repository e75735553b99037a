//! Queue of jobs and pool of free sessions.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::job::{self, Job};
use crate::backend::Session;

/// A bounded queue between async callers and worker threads, with the sessions that both use.
pub(super) struct Queue {
    /// A mutex, because a worker inspects and takes several jobs atomically, which no channel
    /// supports. It is held for microseconds and never across an await or a computation.
    state: Mutex<State>,
    /// Notified when both a job and a session are available, and at the end.
    ready: Condvar,
    capacity: usize,
    /// Number of sessions, without that for a single job.
    sessions: usize,
}

struct State {
    jobs: VecDeque<Job>,
    idle: Vec<Box<dyn Session>>,
    /// Session for a single job while all others are idle, if there is one and it is idle as well.
    solo: Option<Box<dyn Session>>,
    closed: bool,
}

/// A session in use, which is returned to the queue on drop.
pub(super) struct SessionGuard<'q> {
    queue: &'q Queue,
    session: Option<Box<dyn Session>>,
    is_solo: bool,
}

impl SessionGuard<'_> {
    fn put_back(mut self, state: &mut State) {
        if let Some(session) = self.session.take() {
            state.put(session, self.is_solo);
        }
    }
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
        state.put(session, self.is_solo);
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

impl State {
    fn put(&mut self, session: Box<dyn Session>, is_solo: bool) {
        if is_solo {
            self.solo = Some(session);
        } else {
            self.idle.push(session);
        }
    }

    /// Takes a session for `jobs` jobs, the last of the queue if it is empty.
    fn session(&mut self, jobs: usize, sessions: usize) -> Option<(Box<dyn Session>, bool)> {
        let is_alone = jobs == 1 && self.jobs.is_empty() && self.idle.len() == sessions;
        if is_alone && let Some(solo) = self.solo.take() {
            return Some((solo, true));
        }
        self.idle.pop().map(|session| (session, false))
    }
}

impl Queue {
    /// The first `sessions` sessions serve the queue; a further one serves single jobs.
    pub(super) fn new(capacity: usize, mut all: Vec<Box<dyn Session>>, sessions: usize) -> Self {
        let solo = if all.len() > sessions { all.pop() } else { None };
        let state = State { jobs: VecDeque::new(), idle: all, solo, closed: false };
        Queue { state: Mutex::new(state), ready: Condvar::new(), capacity, sessions }
    }

    /// Adds the jobs of one call if there is room for at least one. If the queue is full, dead jobs
    /// are passed to `skip` first to make room.
    pub(super) fn push(&self, jobs: Vec<Job>, skip: impl FnMut(Job)) -> Result<(), Rejected> {
        let mut state = self.lock();
        if state.closed {
            return Err(Rejected::Closed);
        }
        if state.jobs.len() >= self.capacity {
            drop_dead(&mut state.jobs, skip);
        }
        if state.jobs.len() >= self.capacity {
            return Err(Rejected::Full);
        }
        let workers = state.idle.len().min(jobs.len());
        for job in jobs {
            let place = state.jobs.partition_point(|queued| queued.turn <= job.turn);
            state.jobs.insert(place, job);
        }
        drop(state);
        for _ in 0..workers {
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
        let (session, is_solo) = state.session(1, self.sessions)?;
        Some(SessionGuard { queue: self, session: Some(session), is_solo })
    }

    /// Waits for a session and for jobs, and takes one worker's share of them: the first job, and
    /// further ones that fit. The session that the worker used last is returned first.
    ///
    /// The share is the length of the queue divided by the number of sessions, rounded up, and at
    /// most `max_batch` rows, so that no worker is idle while another computes a batch. Dead jobs
    /// are passed to `skip`. Returns `None` once the queue is closed.
    pub(super) fn take<'q>(
        &'q self,
        last: Option<SessionGuard<'q>>,
        max_batch: usize,
        mut skip: impl FnMut(Job),
    ) -> Option<(SessionGuard<'q>, Vec<Job>)> {
        let mut state = self.lock();
        if let Some(last) = last {
            last.put_back(&mut state);
        }
        loop {
            if state.closed {
                return None;
            }
            if !state.idle.is_empty() {
                drop_dead(&mut state.jobs, &mut skip);
                let share = state.jobs.len().div_ceil(self.sessions);
                let taken = job::take_batch(&mut state.jobs, share, max_batch);
                if !taken.is_empty()
                    && let Some((session, is_solo)) = state.session(taken.len(), self.sessions)
                {
                    return Some((SessionGuard { queue: self, session: Some(session), is_solo }, taken));
                }
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

/// Moves jobs without a caller, or past their deadline, to `skip`.
fn drop_dead(jobs: &mut VecDeque<Job>, mut skip: impl FnMut(Job)) {
    let now = Instant::now();
    if jobs.iter().any(|job| job.is_dead(now)) {
        let (dead, live): (VecDeque<_>, VecDeque<_>) = jobs.drain(..).partition(|job| job.is_dead(now));
        *jobs = live;
        dead.into_iter().for_each(&mut skip);
    }
}
