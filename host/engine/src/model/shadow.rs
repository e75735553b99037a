//! The queue and the thread of a shadow version, which receives copies of the inputs of the live
//! version. Its outputs are compared and discarded.
//!
//! The queue is limited in number and bytes. What exceeds the limits is skipped and counted, so
//! that a request neither waits for a comparison nor fails because of one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use super::comparison::{Comparison, Example, Tensors, compare, compare_language, hash, size};
use super::error::RunError;
use super::reply::Reply;
use crate::limits::{MAX_SHADOW_BYTES, MAX_SHADOW_CALLS, MAX_SHADOW_EXAMPLES, MAX_SHADOW_TIME};

/// The queue and the thread of a shadow version.
pub(super) struct ShadowQueue {
    state: Arc<State>,
    /// `None` once the shadow ends.
    queue: Option<SyncSender<QueuedCall>>,
    thread: Option<JoinHandle<()>>,
}

/// State that callers and the thread share.
struct State {
    /// Key of the input hashes.
    key: [u8; 32],
    tolerance: f64,
    is_language: bool,
    skipped: AtomicU64,
    waiting_bytes: AtomicUsize,
    found: Mutex<Comparison>,
}

/// Inputs and outputs of a call of the live version.
struct QueuedCall {
    copied: Copied,
    outputs: Tensors,
}

/// Copied inputs. Their bytes, and later those of the outputs, count against the limit until this
/// is dropped.
pub(super) struct Copied {
    inputs: Tensors,
    bytes: usize,
    state: Arc<State>,
}

impl Copied {
    /// Reserves `bytes` more. Returns false, and counts a skip, if they exceed the limit.
    fn grow(&mut self, bytes: usize) -> bool {
        let reserve = |total: usize| total.checked_add(bytes).filter(|total| *total <= MAX_SHADOW_BYTES);
        let grown =
            self.state.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok();
        if grown {
            self.bytes += bytes;
        } else {
            self.state.skipped.fetch_add(1, Ordering::Relaxed);
        }
        grown
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.state.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl ShadowQueue {
    /// Starts the thread, which calls `run` to run the shadow version.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started, or the system provides no random numbers.
    pub(super) fn new<F>(
        run: impl Fn(Tensors, Instant) -> F + Send + 'static,
        is_language: bool,
        tolerance: f64,
    ) -> std::io::Result<Self>
    where
        F: Future<Output = Result<Reply, RunError>>,
    {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(std::io::Error::other)?;
        let state = Arc::new(State {
            key,
            tolerance,
            is_language,
            skipped: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            found: Mutex::new(Comparison::default()),
        });
        let (queue, waiting) = sync_channel(MAX_SHADOW_CALLS);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let shared = state.clone();
        let work = move || {
            let run = |inputs| runtime.block_on(run(inputs, Instant::now() + MAX_SHADOW_TIME));
            run_all(run, &shared, &waiting);
            // Models that were unloaded are loaded on blocking threads of this runtime.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("infer-shadow".to_owned()).spawn(work)?;
        Ok(ShadowQueue { state, queue: Some(queue), thread: Some(thread) })
    }

    /// Maximum difference of two values that agree.
    pub(super) fn tolerance(&self) -> f64 {
        self.state.tolerance
    }

    /// Result of the comparison so far.
    pub(super) fn comparison(&self) -> Comparison {
        let found = self.state.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Comparison { skipped: self.state.skipped.load(Ordering::Relaxed), ..found }
    }

    /// Copies the inputs of a call; `None` if the limit is reached.
    pub(super) fn copy(&self, inputs: &Tensors) -> Option<Copied> {
        let mut copied = Copied { inputs: Vec::new(), bytes: 0, state: self.state.clone() };
        copied.grow(size(inputs)).then(|| {
            copied.inputs.clone_from(inputs);
            copied
        })
    }

    /// Queues the inputs with the outputs of the live version.
    pub(super) fn finished(&self, mut copied: Copied, outputs: &Tensors) {
        let Some(queue) = &self.queue else { return };
        if copied.grow(size(outputs))
            && queue.try_send(QueuedCall { copied, outputs: outputs.clone() }).is_err()
        {
            self.state.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for ShadowQueue {
    fn drop(&mut self) {
        // The thread finishes its current run and releases the model before this returns.
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run_all(run: impl Fn(Tensors) -> Result<Reply, RunError>, state: &State, waiting: &Receiver<QueuedCall>) {
    while let Ok(QueuedCall { mut copied, outputs }) = waiting.recv() {
        let input = hash(&state.key, &copied.inputs);
        let reply = run(std::mem::take(&mut copied.inputs));
        state.record(input, &outputs, reply.map(|reply| reply.outputs));
    }
}

impl State {
    fn record(&self, input: String, live: &Tensors, next: Result<Tensors, RunError>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                found.failed += 1;
                tracing::debug!("shadow version failed: {error}");
                return;
            }
        };
        let (difference, decides_otherwise) =
            if self.is_language { compare_language(live, &next) } else { (compare(live, &next), false) };
        found.compared += 1;
        if difference.is_finite() {
            found.largest_difference = found.largest_difference.max(difference);
        }
        if decides_otherwise || difference > self.tolerance {
            found.disagreed += 1;
            if found.examples.len() == MAX_SHADOW_EXAMPLES {
                found.examples.remove(0);
            }
            found.examples.push(Example { input, difference, at: SystemTime::now() });
        }
    }
}
