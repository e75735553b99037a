//! Memory that a call is expected to take, learned from earlier calls of the same component that
//! were asked for about as much of the same kind: a photo says nothing about a short text.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::types::{NamedTensor, Part};

/// Sizes of one kind: one for each power of two of bytes.
const SIZES: usize = usize::BITS as usize + 1;

/// An expectation that no call confirms is worth half as much after this time.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// The part of an expectation that a call which took less leaves unchanged: 7/8, by which it falls
/// to a third in eight calls.
const KEPT_OF_8: u64 = 7;

/// Bytes are counted in these, so that a count fits half a word.
const UNIT: usize = 1 << 10;

/// The kinds of input, which take memory by different laws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Text, which is held about as it comes.
    Text,
    /// Images and other media, which are larger once they are decoded.
    Media,
    /// Tensors.
    Tensors,
}

const KINDS: usize = 3;

/// Kind and size of a call's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    kind: Kind,
    bytes: usize,
}

impl Asked {
    /// Parts of content, which are media when one of them is an image.
    pub(crate) fn parts(parts: &[Part]) -> Self {
        let mut asked = Asked { kind: Kind::Text, bytes: 0 };
        for part in parts {
            let bytes = match part {
                Part::Text(text) => text.len(),
                Part::Image(image) => {
                    asked.kind = Kind::Media;
                    image.len()
                }
            };
            asked.bytes = asked.bytes.saturating_add(bytes);
        }
        asked
    }

    /// The bytes of an image file.
    pub(crate) fn image(image: &[u8]) -> Self {
        Asked { kind: Kind::Media, bytes: image.len() }
    }

    /// Tensors by value.
    pub(crate) fn tensors(tensors: &[NamedTensor]) -> Self {
        let bytes = tensors.iter().fold(0_usize, |sum, tensor| sum.saturating_add(tensor.data.len()));
        Asked { kind: Kind::Tensors, bytes }
    }

    /// An HTTP request's body, of the type that its head says.
    pub(crate) fn body(headers: &HeaderMap, bytes: usize) -> Self {
        let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes);
        let is = |name: &[u8]| content_type.get(..name.len()).is_some_and(|is| is.eq_ignore_ascii_case(name));
        let is_text = [&b"text/"[..], b"application/json"].into_iter().any(is);
        Asked { kind: if is_text || content_type.is_empty() { Kind::Text } else { Kind::Media }, bytes }
    }

    fn class(self) -> usize {
        let size = usize::BITS - self.bytes.leading_zeros();
        self.kind as usize * SIZES + size as usize
    }
}

/// Expectations of one component.
#[derive(Debug)]
pub(crate) struct Expectations {
    origin: Instant,
    /// One word for each class: units in its upper half, and below them the milliseconds after
    /// `origin` of its last change. Both halves change together, so no lock is needed.
    classes: Box<[AtomicU64]>,
}

impl Expectations {
    pub(crate) fn new() -> Self {
        let classes = (0..KINDS * SIZES).map(|_| AtomicU64::new(0)).collect();
        Expectations { origin: Instant::now(), classes }
    }

    /// Bytes that a call which is asked this at `now` is expected to take; 0 when nothing is known.
    pub(crate) fn of(&self, asked: Asked, now: Instant) -> usize {
        let word = self.classes[asked.class()].load(Ordering::Relaxed);
        (aged(word, self.millis(now)) as usize).saturating_mul(UNIT)
    }

    /// Learn that a call took `bytes`.
    pub(crate) fn learn(&self, asked: Asked, bytes: usize, now: Instant) {
        let millis = self.millis(now);
        let taken = (bytes.div_ceil(UNIT) as u64).min(u64::from(u32::MAX));
        let next = |word: u64| Some(taken.max(aged(word, millis) * KEPT_OF_8 / 8) << 32 | millis);
        let _ = self.classes[asked.class()].fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// A clock that starts anew every seven weeks; an expectation that is off by it fades as any
    /// other.
    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_millis() as u64 & u64::from(u32::MAX)
    }
}

/// The units in `word`, halved for each half-life since its last change.
fn aged(word: u64, millis: u64) -> u64 {
    let (units, changed) = (word >> 32, word & u64::from(u32::MAX));
    let halvings = millis.saturating_sub(changed) / HALF_LIFE.as_millis() as u64;
    units >> halvings.min(63)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: usize = 1 << 20;

    #[test]
    fn photos_say_nothing_about_texts_and_thumbnails() {
        let (expectations, now) = (Expectations::new(), Instant::now());
        let photo = Asked::image(&[0; 3_000_000]);
        expectations.learn(photo, 64 * MB, now);
        assert_eq!(expectations.of(photo, now), 64 * MB);
        assert_eq!(expectations.of(Asked::image(&[0; 2_500_000]), now), 64 * MB, "of about the same size");
        for other in [
            Asked::parts(&[Part::Text("hello".to_owned())]),
            Asked::parts(&[Part::Text("a".repeat(3_000_000))]),
            Asked::image(&[0; 10_000]),
            Asked::tensors(&[]),
        ] {
            assert_eq!(expectations.of(other, now), 0, "{other:?}");
        }
        let mixed = [Part::Text("a photo".to_owned()), Part::Image(vec![0; 3_000_000])];
        assert_eq!(expectations.of(Asked::parts(&mixed), now), 64 * MB);
    }

    #[test]
    fn an_odd_call_is_forgotten_by_calls_and_by_time() {
        let (expectations, now) = (Expectations::new(), Instant::now());
        let asked = Asked::parts(&[Part::Text("hello".to_owned())]);
        expectations.learn(asked, 64 * MB, now);
        for _ in 0..24 {
            expectations.learn(asked, MB, now);
        }
        assert!(expectations.of(asked, now) < 4 * MB, "{}", expectations.of(asked, now));
        for _ in 0..24 {
            expectations.learn(asked, MB, now);
        }
        assert_eq!(expectations.of(asked, now), MB, "not below what calls take");
        expectations.learn(asked, 64 * MB, now);
        assert_eq!(expectations.of(asked, now + 4 * HALF_LIFE), 4 * MB);
        assert_eq!(expectations.of(asked, now + 1_000 * HALF_LIFE), 0);
        expectations.learn(asked, usize::MAX, now);
        assert!(expectations.of(asked, now) > 1 << 40, "no overflow");
    }

    #[test]
    fn bodies_are_media_unless_their_type_is_text() {
        let asked = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            if !content_type.is_empty() {
                headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
            }
            Asked::body(&headers, 7).kind
        };
        assert_eq!(["", "text/plain; charset=utf-8", "Application/JSON"].map(asked), [Kind::Text; 3]);
        assert_eq!(
            ["image/png", "multipart/form-data", "application/octet-stream"].map(asked),
            [Kind::Media; 3]
        );
    }
}
