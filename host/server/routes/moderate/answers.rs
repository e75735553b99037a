//! Answers kept for an `Idempotency-Key`: a client that asks again, because the first answer was lost, gets the same bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use crate::error::ApiError;

/// The header.
pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(600);

/// The most answers that are kept; beyond it the oldest goes.
const MOST: usize = 1_024;

/// The longest answer that is kept, in bytes, and so with [`MOST`] the bound of all of them.
const LONGEST: usize = 64 << 10;

type Hash = [u8; 32];

/// An answer as it was given.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is kept.
#[derive(Default)]
pub(crate) struct Answers(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    by_key: HashMap<Hash, Entry>,
    /// In the order in which they came.
    order: VecDeque<(Hash, Instant)>,
}

struct Entry {
    request: Hash,
    began: Instant,
    /// Filled by the first request that succeeds; others with the same key wait for it.
    answer: Arc<OnceCell<Answer>>,
}

/// The hash of `pieces`, each told from the next.
pub(super) fn hash(pieces: &[&[u8]]) -> Hash {
    let mut hasher = Sha256::new();
    for piece in pieces {
        hasher.update((piece.len() as u64).to_le_bytes());
        hasher.update(piece);
    }
    hasher.finalize().into()
}

impl Answers {
    /// The place of the answer to `request`, of the client's `key`.
    ///
    /// # Errors
    ///
    /// 422 where the key came with another request.
    pub(super) fn place(&self, key: Hash, request: Hash) -> Result<Arc<OnceCell<Answer>>, ApiError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget(Instant::now());
        if let Some(entry) = kept.by_key.get(&key) {
            return if entry.request == request {
                Ok(entry.answer.clone())
            } else {
                Err(ApiError::key_reused())
            };
        }
        let (answer, began) = (Arc::new(OnceCell::new()), Instant::now());
        kept.by_key.insert(key, Entry { request, began, answer: answer.clone() });
        kept.order.push_back((key, began));
        Ok(answer)
    }

    /// Forget `key`: its answer is too long to keep.
    pub(super) fn drop_long(&self, key: &Hash, answer: &Answer) {
        if answer.body.len() > LONGEST {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).by_key.remove(key);
        }
    }
}

impl Kept {
    fn forget(&mut self, now: Instant) {
        while let Some(&(key, began)) = self.order.front() {
            if self.order.len() < MOST && now.duration_since(began) < KEPT {
                return;
            }
            self.order.pop_front();
            // A key that was dropped may have come again since, with a line of its own.
            if self.by_key.get(&key).is_some_and(|entry| entry.began == began) {
                self.by_key.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_requests_and_the_store_is_bounded() {
        let answers = Answers::default();
        let first = answers.place(hash(&[b"k"]), hash(&[b"a"])).unwrap();
        assert!(Arc::ptr_eq(&first, &answers.place(hash(&[b"k"]), hash(&[b"a"])).unwrap()));
        let error = answers.place(hash(&[b"k"]), hash(&[b"b"])).unwrap_err();
        assert_eq!(error.status(), StatusCode::UNPROCESSABLE_ENTITY);
        for index in 0..2 * MOST {
            answers.place(hash(&[&index.to_le_bytes()]), hash(&[])).unwrap();
        }
        let kept = answers.0.lock().unwrap();
        assert!(kept.by_key.len() <= MOST && kept.order.len() <= MOST);
        assert!(!kept.by_key.contains_key(&hash(&[b"k"])));
    }

    #[test]
    fn an_answer_is_forgotten_after_its_time() {
        let answers = Answers::default();
        answers.place(hash(&[b"k"]), hash(&[b"a"])).unwrap();
        let mut kept = answers.0.lock().unwrap();
        kept.forget(Instant::now() + KEPT);
        assert!(kept.by_key.is_empty() && kept.order.is_empty());
    }

    #[test]
    fn pieces_are_told_apart() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }
}
