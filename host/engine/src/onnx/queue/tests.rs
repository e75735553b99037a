//! Sessions, shares and rejections.

use std::time::Duration;

use tokio::sync::oneshot;

use super::super::job::Joins;
use super::*;
use crate::backend::{BackendError, Port};
use crate::model::{Reply, RunError};
use crate::tensor::Tensor;

/// A session that is never run.
struct Idle;

impl Session for Idle {
    fn inputs(&self) -> &[Port] {
        &[]
    }

    fn outputs(&self) -> &[Port] {
        &[]
    }

    fn run(&mut self, _: &[Tensor], _: Instant) -> Result<Vec<Tensor>, BackendError> {
        Ok(Vec::new())
    }
}

/// A queue of `sessions` sessions, with one for single jobs if `solo`.
fn queue(sessions: usize, solo: bool) -> Queue {
    let all = (0..sessions + usize::from(solo)).map(|_| Box::new(Idle) as Box<dyn Session>);
    Queue::new(8, all.collect(), sessions)
}

#[test]
fn free_session_is_exclusive_and_yields_to_queue() {
    let queue = queue(1, false);
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
    let deadline = queued + Duration::from_secs(60);
    let joins = rows.map_or(Joins::Never, Joins::Rows);
    (Job { inputs, joins, turn: queued, queued, deadline, reply }, answer)
}

fn fill(queue: &Queue, jobs: &[(Option<usize>, &[usize])]) -> Vec<Answer> {
    let push = |(rows, shape): &(Option<usize>, &[usize])| {
        let (job, answer) = job(*rows, shape);
        queue.push(vec![job], |_| panic!("nothing is dead")).unwrap();
        answer
    };
    jobs.iter().map(push).collect()
}

fn take(queue: &Queue, max_batch: usize) -> Vec<Vec<usize>> {
    let (_session, taken) = queue.take(None, max_batch, |_| panic!("nothing is dead")).unwrap();
    taken.iter().map(|job| job.inputs[0].shape().to_vec()).collect()
}

#[test]
fn solo_session_computes_single_jobs_only() {
    let one: (Option<usize>, &[usize]) = (Some(1), &[1, 2]);
    let queue = queue(2, true);
    let mut answers = Vec::new();
    let mut next = |jobs: &[(Option<usize>, &[usize])]| {
        answers.extend(fill(&queue, jobs));
        let taken = queue.take(None, 8, |_| panic!("nothing is dead"));
        taken.map(|(session, taken)| (session.is_solo, taken.len(), session)).unwrap()
    };
    let (is_solo, _, first) = next(&[one]);
    assert!(is_solo, "all are idle");
    let (is_solo, _, second) = next(&[one]);
    assert!(!is_solo, "it is in use");
    drop(first);
    let (is_solo, _, third) = next(&[one]);
    assert!(!is_solo, "another is in use");
    drop((second, third));
    let (is_solo, taken, fourth) = next(&[one; 2]);
    assert_eq!((is_solo, taken), (false, 1), "another job is queued");
    let (is_solo, taken, _fifth) = next(&[]);
    assert_eq!((is_solo, taken), (false, 1));
    drop(fourth);
}

#[test]
fn worker_takes_its_share() {
    let one: (Option<usize>, &[usize]) = (Some(1), &[1, 2]);
    for (sessions, max_batch, expected) in [(1, 8, 5), (2, 8, 3), (5, 8, 1), (1, 4, 4)] {
        let queue = queue(sessions, true);
        let _answers = fill(&queue, &[one; 5]);
        assert_eq!(take(&queue, max_batch).len(), expected, "{sessions} sessions, {max_batch} rows");
        assert_eq!(queue.depth(), 5 - expected);
    }
}

#[test]
fn later_windows_wait_for_calls_that_came_meanwhile() {
    let queue = queue(8, false);
    let now = Instant::now();
    let at = |ms: u64, shape: &[usize]| {
        let (job, answer) = job(None, shape);
        (Job { turn: now + Duration::from_millis(ms), ..job }, answer)
    };
    let (long, _answers): (Vec<_>, Vec<_>) = [at(0, &[1]), at(10, &[2])].into_iter().unzip();
    let (short, _answer) = at(5, &[3]);
    queue.push(long, |_| panic!("nothing is dead")).unwrap();
    queue.push(vec![short], |_| panic!("nothing is dead")).unwrap();
    let order: Vec<_> = (0..3).flat_map(|_| take(&queue, 8)).collect();
    assert_eq!(order, [[1], [3], [2]]);
}

#[test]
fn dead_jobs_are_skipped() {
    let queue = queue(1, false);
    let mut answers = fill(&queue, &[(Some(1), &[1, 1]), (Some(1), &[1, 2]), (Some(1), &[1, 1])]);
    drop(answers.remove(1));
    let mut dead = 0;
    let (_session, taken) = queue.take(None, 8, |_| dead += 1).unwrap();
    // The dead job has another shape but does not separate its neighbours.
    assert_eq!((taken.len(), dead), (2, 1));
}

#[test]
fn closed_queue_accepts_and_returns_nothing() {
    let queue = queue(1, false);
    let mut answers = fill(&queue, &[(Some(1), &[1, 1])]);
    queue.close();
    assert!(queue.take(None, 8, |_| ()).is_none());
    assert!(answers[0].try_recv().is_err());
    assert_eq!(queue.push(vec![job(Some(1), &[1, 1]).0], |_| ()), Err(Rejected::Closed));
}
