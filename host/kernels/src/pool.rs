//! A pool of threads that share the tasks of one call.
//!
//! Workers spin briefly after a call, since the next product usually follows within microseconds,
//! and then park. A call wakes parked workers but does not wait for them to start.

#[cfg(all(loom, test))]
mod explored;
#[cfg(test)]
#[cfg(loom)]
mod interleavings;
#[cfg(not(all(loom, test)))]
mod real;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, PoisonError};

#[cfg(all(loom, test))]
use explored::*;
#[cfg(not(all(loom, test)))]
use real::*;

/// The state holds the call's generation in its upper half, this bit while workers may join, and
/// the number of joined workers in the bits below.
const OPEN: u64 = 1 << 31;
const JOINED: u64 = OPEN - 1;

/// A small pool of threads. The caller of [`Pool::run`] is one of them.
pub struct Pool {
    inner: Arc<Inner>,
    workers: Vec<JoinHandle<()>>,
    /// Locked during a call. A second caller runs its tasks alone instead of waiting, which rules
    /// out deadlocks.
    call: Mutex<()>,
}

/// A counter that several threads write, on a cache line of its own.
#[repr(align(128))]
struct Padded<T>(T);

struct Inner {
    state: Padded<AtomicU64>,
    next: Padded<AtomicUsize>,
    job: UnsafeCell<Job>,
    parked: Vec<AtomicBool>,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `job` is written only by the holder of `Pool::call` while no worker has joined, and read
// only by workers that joined after the write was published through `state`.
unsafe impl Sync for Inner {}
// SAFETY: the pointer inside `job` is used only during the call that set it.
unsafe impl Send for Inner {}

#[derive(Clone, Copy)]
struct Job {
    task: *const (),
    call: unsafe fn(*const (), usize),
    tasks: usize,
}

impl Pool {
    /// Starts `threads - 1` workers.
    ///
    /// # Errors
    /// If `threads` is 0, or the system cannot start a thread.
    pub fn new(threads: usize) -> io::Result<Self> {
        if threads == 0 {
            let message = "`threads`: expected at least 1, found 0";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let inner = Arc::new(Inner {
            state: Padded(AtomicU64::new(0)),
            next: Padded(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { task: std::ptr::null(), call: |_, _| {}, tasks: 0 }),
            parked: (1..threads).map(|_| AtomicBool::new(false)).collect(),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self { inner, workers: Vec::new(), call: Mutex::new(()) };
        for index in 0..threads - 1 {
            let inner = Arc::clone(&pool.inner);
            let builder = Builder::new().name(format!("kernels-{}", index + 1));
            pool.workers.push(builder.spawn(move || inner.serve(index))?);
        }
        Ok(pool)
    }

    /// Number of threads, including the caller.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once for each number below `tasks`, on all threads, and returns when all tasks
    /// are done. A call inside a task, or during a call of another thread, runs its tasks on the
    /// calling thread alone.
    ///
    /// # Panics
    /// If a task panics. The panic is resumed on the caller when no task is running any more;
    /// remaining tasks are skipped.
    pub fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        let alone = tasks <= 1 || self.workers.is_empty();
        let guard = if alone { None } else { self.call.try_lock().ok() };
        if guard.is_none() {
            return (0..tasks).for_each(task);
        }
        let inner = &*self.inner;
        let job = job(&task, tasks);
        // SAFETY: this thread holds `call`, and the previous call waited until no worker was
        // joined.
        inner.job.with_mut(|own| unsafe { *own = job });
        inner.next.0.store(0, Ordering::Relaxed);
        let generation = (inner.state.0.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        inner.state.0.store((generation << 32) | OPEN, Ordering::SeqCst);
        store_load_fence();
        self.wake();
        inner.work(job);
        inner.state.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut turns = 0u32;
        while inner.state.0.load(Ordering::Acquire) & JOINED != 0 {
            turns += 1;
            if turns.is_multiple_of(1024) { yield_now() } else { spin_loop() }
        }
        let panic = inner.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(guard);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn wake(&self) {
        for (parked, worker) in self.inner.parked.iter().zip(&self.workers) {
            if parked.load(Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
    }
}

/// Erases the type of `task`. The result is valid during the call that created it.
fn job<F: Fn(usize) + Sync>(task: &F, tasks: usize) -> Job {
    unsafe fn call<F: Fn(usize) + Sync>(task: *const (), index: usize) {
        // SAFETY: `task` came from `&F` in `job`, and `Pool::run` has not returned.
        unsafe { (*task.cast::<F>())(index) }
    }
    Job { task: std::ptr::from_ref(task).cast(), call: call::<F>, tasks }
}

impl Inner {
    /// Runs tasks until all are taken.
    fn work(&self, job: Job) {
        loop {
            let index = self.next.0.fetch_add(1, Ordering::Relaxed);
            if index >= job.tasks {
                return;
            }
            // SAFETY: the job belongs to the running call, which waits for all joined workers.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.task, index) })) {
                self.next.0.store(job.tasks, Ordering::Relaxed);
                self.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
        }
    }

    fn serve(&self, index: usize) {
        let mut seen = 0;
        while let Some(generation) = self.wait(index, seen) {
            seen = generation;
            let mut state = self.state.0.load(Ordering::Acquire);
            while state >> 32 == seen && state & OPEN != 0 {
                match self.state.0.compare_exchange_weak(
                    state,
                    state + 1,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                ) {
                    Ok(_) => {
                        // SAFETY: this worker has joined, so the job stays valid until it leaves.
                        self.work(self.job.with(|job| unsafe { *job }));
                        self.state.0.fetch_sub(1, Ordering::Release);
                        break;
                    }
                    Err(now) => state = now,
                }
            }
        }
    }

    /// Waits for the next generation after `seen`; `None` when the pool is dropped.
    fn wait(&self, index: usize, seen: u64) -> Option<u64> {
        let spin = Spin::start();
        let mut spinning = true;
        loop {
            for _ in 0..SPINS_PER_CHECK {
                let generation = self.state.0.load(Ordering::SeqCst) >> 32;
                if generation != seen {
                    self.parked[index].store(false, Ordering::Relaxed);
                    return (!self.stop.load(Ordering::Acquire)).then_some(generation);
                }
                if !spinning {
                    break;
                }
                spin_loop();
            }
            if !spinning {
                park();
            } else if spin.is_over() {
                // The flag is set before the state is read again above: either the caller sees the
                // flag, or this worker sees the new state.
                self.parked[index].store(true, Ordering::SeqCst);
                store_load_fence();
                spinning = false;
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Release);
        let generation = (self.inner.state.0.load(Ordering::Relaxed) >> 32).wrapping_add(1);
        self.inner.state.0.store(generation << 32, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // The caller of `run` has already received a worker's panic.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for tasks in [0, 1, 2, 3, 100] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..200 {
                    pool.run(tasks, |task| {
                        counts[task].fetch_add(1, Ordering::Relaxed);
                    });
                }
                assert!(counts.iter().all(|count| count.load(Ordering::Relaxed) == 200));
            }
        }
    }

    #[test]
    fn panic_reaches_the_caller_and_workers_survive() {
        let pool = Pool::new(3).unwrap();
        for bad in 0..20 {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                pool.run(20, |task| assert_ne!(task, bad, "task {bad}"));
            }));
            assert!(caught.unwrap_err().downcast_ref::<String>().unwrap().contains("task"));
            let done = AtomicUsize::new(0);
            pool.run(20, |_| {
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), 20);
        }
    }

    #[test]
    fn nested_and_concurrent_calls_finish() {
        let pool = Pool::new(2).unwrap();
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        pool.run(4, |_| {
                            pool.run(3, |_| {
                                done.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    }
                });
            }
        });
        assert_eq!(done.into_inner(), 3 * 50 * 12);
    }

    #[test]
    fn zero_threads_are_rejected() {
        assert_eq!(Pool::new(0).err().unwrap().to_string(), "`threads`: expected at least 1, found 0");
    }
}
