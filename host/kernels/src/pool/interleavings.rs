//! The pool under every order of its threads' operations, up to a number of preemptions: `make
//! loom`.

use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;

use super::{Arc, Pool};

/// One cell for each task. loom reports two accesses that are not ordered.
struct Cells(Vec<UnsafeCell<usize>>);

// SAFETY: loom checks each access.
unsafe impl Sync for Cells {}
// SAFETY: as above.
unsafe impl Send for Cells {}

impl Cells {
    fn new(count: usize) -> Cells {
        Cells((0..count).map(|_| UnsafeCell::new(0)).collect())
    }

    fn add(&self, task: usize) {
        // SAFETY: loom checks the access.
        self.0[task].with_mut(|count| unsafe { *count += 1 });
    }

    fn assert_all(&self, expected: usize) {
        for cell in &self.0 {
            // SAFETY: loom checks the access.
            cell.with(|count| assert_eq!(unsafe { *count }, expected));
        }
    }
}

fn explore(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

#[test]
fn tasks_of_one_call_run_once() {
    explore(3, || {
        let (pool, cells) = (Pool::new(2).unwrap(), Cells::new(2));
        pool.run(2, |task| cells.add(task));
        cells.assert_all(1);
    });
}

#[test]
fn later_call_wakes_parked_worker() {
    explore(2, || {
        let pool = Pool::new(2).unwrap();
        for _ in 0..2 {
            // Each call has cells of its own, which must not be used after it.
            let cells = Cells::new(2);
            pool.run(2, |task| cells.add(task));
            cells.assert_all(1);
        }
    });
}

/// A call does not wait for a worker that never wakes, unless its own task does.
#[test]
fn parked_worker_notices_every_call() {
    explore(2, || {
        let (pool, begun) = (Pool::new(2).unwrap(), AtomicUsize::new(0));
        pool.run(2, |_| {
            begun.fetch_add(1, Ordering::Relaxed);
            while begun.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
        });
    });
}

#[test]
fn two_workers_share_tasks() {
    explore(2, || {
        let (pool, cells) = (Pool::new(3).unwrap(), Cells::new(3));
        pool.run(3, |task| cells.add(task));
        cells.assert_all(1);
    });
}

#[test]
fn concurrent_callers_do_not_mix() {
    explore(2, || {
        let pool = Arc::new(Pool::new(2).unwrap());
        let other = pool.clone();
        let caller = thread::spawn(move || {
            let cells = Cells::new(2);
            other.run(2, |task| cells.add(task));
            cells.assert_all(1);
        });
        let cells = Cells::new(2);
        pool.run(2, |task| cells.add(task));
        cells.assert_all(1);
        caller.join().unwrap();
    });
}

#[test]
fn dropped_pool_stops_its_workers() {
    explore(3, || drop(Pool::new(2).unwrap()));
}
