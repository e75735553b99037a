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

use blake3::Hasher;

use super::{Model, RunError};
use crate::tensor::Tensor;

/// Answers that may wait to be compared.
const MAX_WAITING: usize = 64;

/// The same, in bytes of their tensors.
pub const MIRROR_BYTES: usize = 8 << 20;

/// Disagreements whose inputs' hashes are kept, the latest.
const MAX_EXAMPLES: usize = 32;

/// How long the next version may take for one answer.
const TIME: Duration = Duration::from_secs(60);

type Tensors = Vec<(String, Tensor)>;

/// A next version that sees what the model is asked.
pub struct Mirror {
    next: Arc<Model>,
    seen: Arc<Seen>,
    /// None once it ends.
    answers: Option<SyncSender<Answered>>,
    thread: Option<JoinHandle<()>>,
}

/// What was found so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Answers of both that were compared.
    pub compared: u64,
    /// Of these, those that differ by more than is tolerated, or decide otherwise.
    pub disagreed: u64,
    /// Requests that the next version did not answer.
    pub failed: u64,
    /// Answers that were not compared, for too many waited.
    pub skipped: u64,
    /// The largest difference of two values.
    pub largest_difference: f64,
    /// The latest disagreements, the oldest first.
    pub examples: Vec<Example>,
}

/// A disagreement. What was asked is not kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Keyed hash of the inputs' names, types, shapes and elements, in 64 hexadecimal digits. The
    /// key is random and kept nowhere else: equal inputs are known by it, and short ones cannot be
    /// guessed from it.
    pub input: String,
    /// The largest difference of two values; infinite where the answers are of different kinds.
    pub difference: f64,
    /// When it was found.
    pub at: SystemTime,
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

impl Mirror {
    /// Have `next` asked what a model is asked whose [mirror](Model::mirror) this is. Answers that
    /// differ by more than `tolerance` in any value disagree; so do those of which another choice
    /// is the likeliest, or whose texts differ.
    ///
    /// # Errors
    ///
    /// When no thread can be started, or the system has no random numbers.
    pub fn new(next: Arc<Model>, tolerance: f64) -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(std::io::Error::other)?;
        let seen = Arc::new(Seen {
            key,
            tolerance,
            is_language: next.is_language(),
            skipped: AtomicU64::new(0),
            waiting_bytes: AtomicUsize::new(0),
            found: Mutex::new(Comparison::default()),
        });
        let (answers, waiting) = sync_channel(MAX_WAITING);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (model, shared) = (next.clone(), seen.clone());
        let ask = move || {
            ask_all(&runtime, &model, &shared, &waiting);
            // Models that rest are loaded on threads of this runtime.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("infer-mirror".to_owned()).spawn(ask)?;
        Ok(Mirror { next, seen, answers: Some(answers), thread: Some(thread) })
    }

    /// The version in the shadow.
    pub fn next(&self) -> &Arc<Model> {
        &self.next
    }

    /// By how much two values may differ.
    pub fn tolerance(&self) -> f64 {
        self.seen.tolerance
    }

    /// What was found so far.
    pub fn comparison(&self) -> Comparison {
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

impl Drop for Mirror {
    fn drop(&mut self) {
        // The thread ends after what it is asking, and lets the model go before this returns.
        self.answers = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ask_all(runtime: &tokio::runtime::Runtime, next: &Arc<Model>, seen: &Seen, waiting: &Receiver<Answered>) {
    while let Ok(Answered { mut asked, outputs }) = waiting.recv() {
        let input = hash(&seen.key, &asked.inputs);
        let inputs = std::mem::take(&mut asked.inputs);
        let reply = runtime.block_on(next.run(inputs, Instant::now() + TIME));
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

fn size(tensors: &Tensors) -> usize {
    tensors.iter().map(|(name, tensor)| name.len() + tensor.data().len()).sum()
}

fn hash(key: &[u8; 32], inputs: &Tensors) -> String {
    let mut inputs: Vec<_> = inputs.iter().collect();
    inputs.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut hasher = Hasher::new_keyed(key);
    for (name, tensor) in inputs {
        let head = format!("{name:?} {} {:?}\n", tensor.dtype(), tensor.shape());
        hasher.update(head.as_bytes());
        hasher.update(tensor.data());
    }
    hasher.finalize().to_string()
}

/// The largest difference of two values of the same place; infinite where there is none of the same
/// place.
fn compare(one: &Tensors, other: &Tensors) -> f64 {
    let mut largest = if one.len() == other.len() { 0.0 } else { f64::INFINITY };
    for (name, tensor) in one {
        let found = other.iter().find(|(found, _)| found == name);
        largest = found.map_or(f64::INFINITY, |(_, found)| difference(tensor, found)).max(largest);
    }
    largest
}

fn difference(one: &Tensor, other: &Tensor) -> f64 {
    if one.data() == other.data() && one.dtype() == other.dtype() && one.shape() == other.shape() {
        return 0.0;
    }
    match (one.elements::<f32>(), other.elements::<f32>()) {
        (Ok(these), Ok(those)) if one.shape() == other.shape() => {
            let apart = these.iter().zip(&*those).map(|(a, b)| f64::from((a - b).abs()));
            apart.fold(0.0, |most, apart| if apart.is_nan() { f64::INFINITY } else { apart.max(most) })
        }
        _ => f64::INFINITY,
    }
}

/// The largest difference of two log-probabilities, and whether another choice is the likeliest or
/// another text was written.
fn compare_language(one: &Tensors, other: &Tensors) -> (f64, bool) {
    let of = |tensors: &Tensors, name: &str| {
        tensors.iter().find(|(found, _)| found == name).map(|(_, tensor)| tensor.clone())
    };
    let text_differs = of(one, "text") != of(other, "text");
    match (of(one, "logprobs"), of(other, "logprobs")) {
        (Some(these), Some(those)) => {
            (difference(&these, &those), text_differs || likeliest(&these) != likeliest(&those))
        }
        (None, None) => (0.0, text_differs),
        _ => (f64::INFINITY, true),
    }
}

fn likeliest(logprobs: &Tensor) -> Option<usize> {
    let values = logprobs.elements::<f32>().ok()?;
    let most = values.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    most.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, values: &[f32]) -> Tensors {
        vec![(name.to_owned(), Tensor::from_slice(&[1, values.len()], values).unwrap())]
    }

    #[test]
    fn values_of_the_same_place_are_compared() {
        let one = named("scores", &[0.25, 0.5]);
        assert_eq!(compare(&one, &one), 0.0);
        assert_eq!(compare(&one, &named("scores", &[0.25, 0.75])), 0.25);
        for other in [
            named("scores", &[0.25]),
            named("others", &[0.25, 0.5]),
            Vec::new(),
            named("scores", &[0.25, f32::NAN]),
        ] {
            assert_eq!(compare(&one, &other), f64::INFINITY, "{other:?}");
        }
    }

    #[test]
    fn choices_and_texts_are_compared() {
        let of = |first: f32, second: f32, text: &str| {
            let mut tensors = named("logprobs", &[first, second]);
            tensors.push(("text".to_owned(), Tensor::from_slice(&[text.len()], text.as_bytes()).unwrap()));
            tensors
        };
        let one = of(-0.5, -1.0, "a");
        assert_eq!(compare_language(&one, &one), (0.0, false));
        assert_eq!(compare_language(&one, &of(-0.5, -1.5, "a")), (0.5, false));
        assert_eq!(compare_language(&one, &of(-1.5, -1.0, "a")), (1.0, true));
        assert_eq!(compare_language(&one, &of(-0.5, -1.0, "b")), (0.0, true));
    }

    #[test]
    fn inputs_are_known_by_their_keyed_hash() {
        let mut inputs = named("a", &[1.0]);
        inputs.extend(named("b", &[2.0]));
        let hashed = hash(&[1; 32], &inputs);
        assert_ne!(hash(&[2; 32], &inputs), hashed, "another key tells another hash");
        inputs.reverse();
        assert_eq!(hash(&[1; 32], &inputs), hashed, "in any order");
        inputs[0].0 = "c".to_owned();
        assert_ne!(hash(&[1; 32], &inputs), hashed);
    }
}
