//! A next version of a model in the shadow of the one that answers: it is asked the same, later and
//! beside, and what it answers is compared and thrown away.
//!
//! One thread asks it. What waits for that thread is bounded, in number and bytes; what comes
//! beyond is skipped and counted, so that a request never waits for a comparison and never fails by
//! one.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::comparison::{Comparison, Example, Tensors, compare, compare_language, hash, size};
use super::error::RunError;
use super::reply::Reply;

/// Answers that may wait to be compared.
const MAX_WAITING: usize = 64;

/// The same, in bytes of their tensors.
pub const MIRROR_BYTES: usize = 8 << 20;

/// Disagreements whose inputs' hashes are kept, the latest.
const MAX_EXAMPLES: usize = 32;

/// How long the next version may take for one answer.
const TIME: Duration = Duration::from_secs(60);

/// The queue and the thread of a next version.
pub(super) struct Shadow {
    seen: Arc<Seen>,
    /// None once it ends.
    answers: Option<SyncSender<Answered>>,
    thread: Option<JoinHandle<()>>,
}

/// What both sides know.
struct Seen {
    /// Of the hashes of inputs.
    key: [u8; 32],
    tolerance: f64,
    is_language: bool,
    skipped: AtomicU64,
    waiting_bytes: AtomicUsize,
    found: Mutex<Comparison>,
}

/// What the model was asked, and answered.
struct Answered {
    asked: Copied,
    outputs: Tensors,
}

/// Inputs that are going to be compared. They count, and what was answered to them too, until they
/// have been.
pub(super) struct Copied {
    inputs: Tensors,
    bytes: usize,
    seen: Arc<Seen>,
}

impl Copied {
    /// Count `bytes` more, where there is room for them.
    fn grow(&mut self, bytes: usize) -> bool {
        let room = |held: usize| held.checked_add(bytes).filter(|held| *held <= MIRROR_BYTES);
        let grown = self.seen.waiting_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).is_ok();
        if grown {
            self.bytes += bytes;
        } else {
            self.seen.skipped.fetch_add(1, Ordering::Relaxed);
        }
        grown
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        self.seen.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Shadow {
    /// Starts the thread, which runs the next version by `run`.
    ///
    /// # Errors
    ///
    /// When no thread can be started, or the system has no random numbers.
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
        let seen = Arc::new(Seen {
            key,
            tolerance,
            is_language,
            skipped: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            found: Mutex::new(Comparison::default()),
        });
        let (answers, waiting) = sync_channel(MAX_WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let shared = seen.clone();
        let ask = move || {
            let run = |inputs| runtime.block_on(run(inputs, Instant::now() + TIME));
            ask_all(run, &shared, &waiting);
            // Models that rest are loaded on threads of this runtime.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("infer-mirror".to_owned()).spawn(ask)?;
        Ok(Shadow { seen, answers: Some(answers), thread: Some(thread) })
    }

    /// By how much two values may differ.
    pub(super) fn tolerance(&self) -> f64 {
        self.seen.tolerance
    }

    /// What was found so far.
    pub(super) fn comparison(&self) -> Comparison {
        let found = self.seen.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Comparison { skipped: self.seen.skipped.load(Ordering::Relaxed), ..found }
    }

    /// A copy of what the model is asked, where there is room for one.
    pub(super) fn copy(&self, inputs: &Tensors) -> Option<Copied> {
        let mut copied = Copied { inputs: Vec::new(), bytes: 0, seen: self.seen.clone() };
        copied.grow(size(inputs)).then(|| {
            copied.inputs.clone_from(inputs);
            copied
        })
    }

    /// What the model answered to it.
    pub(super) fn answered(&self, mut asked: Copied, outputs: &Tensors) {
        let Some(answers) = &self.answers else { return };
        if asked.grow(size(outputs))
            && answers.try_send(Answered { asked, outputs: outputs.clone() }).is_err()
        {
            self.seen.skipped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Shadow {
    fn drop(&mut self) {
        // The thread ends after what it is asking, and lets the model go before this returns.
        self.answers = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask_all(run: impl Fn(Tensors) -> Result<Reply, RunError>, seen: &Seen, waiting: &Receiver<Answered>) {
    while let Ok(Answered { mut asked, outputs }) = waiting.recv() {
        let input = hash(&seen.key, &asked.inputs);
        let reply = run(std::mem::take(&mut asked.inputs));
        seen.found(input, &outputs, reply.map(|reply| reply.outputs));
    }
}

impl Seen {
    fn found(&self, input: String, answered: &Tensors, next: Result<Tensors, RunError>) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                found.failed += 1;
                tracing::debug!("a next version in the shadow does not answer: {error}");
                return;
            }
        };
        let (difference, decides_otherwise) = if self.is_language {
            compare_language(answered, &next)
        } else {
            (compare(answered, &next), false)
        };
        found.compared += 1;
        if difference.is_finite() {
            found.largest_difference = found.largest_difference.max(difference);
        }
        if decides_otherwise || difference > self.tolerance {
            found.disagreed += 1;
            if found.examples.len() == MAX_EXAMPLES {
                found.examples.remove(0);
            }
            found.examples.push(Example { input, difference, at: SystemTime::now() });
        }
    }
}
