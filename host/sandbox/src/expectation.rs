//! Expected memory of a call, learned from earlier calls of the same component with input of the
//! same kind and about the same size: a photo does not predict a short text.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::types::{NamedTensor, Part};

/// Size classes of one kind: one for each power of two of bytes.
const SIZES: usize = usize::BITS as usize + 1;

/// Time in which an expectation halves unless a call confirms it.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// Eighths of an expectation that remain after a call that took less. It falls to a third in eight
/// calls.
const DECAY_EIGHTHS: u64 = 7;

/// Bytes are counted in this unit, so that a count fits half a word.
const UNIT: usize = 1 << 10;

/// Kinds of input, each with its own relation of size to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Text, held about as it arrives.
    Text,
    /// Images and other media, which grow when decoded.
    Media,
    /// Tensors.
    Tensors,
}

const KINDS: usize = 3;

/// Kind and size of a call's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    kind: Kind,
    bytes: usize,
}

impl Input {
    /// Parts of content. They are media if one of them is an image.
    pub(crate) fn parts(parts: &[Part]) -> Self {
        let mut input = Input { kind: Kind::Text, bytes: 0 };
        for part in parts {
            let bytes = match part {
                Part::Text(text) => text.len(),
                Part::Image(image) => {
                    input.kind = Kind::Media;
                    image.len()
                }
            };
            input.bytes = input.bytes.saturating_add(bytes);
        }
        input
    }

    /// The bytes of an image file.
    pub(crate) fn image(image: &[u8]) -> Self {
        Input { kind: Kind::Media, bytes: image.len() }
    }

    /// Tensors by value.
    pub(crate) fn tensors(tensors: &[NamedTensor]) -> Self {
        let bytes = tensors.iter().fold(0_usize, |sum, tensor| sum.saturating_add(tensor.data.len()));
        Input { kind: Kind::Tensors, bytes }
    }

    /// An HTTP request's body, with its kind from `Content-Type`.
    pub(crate) fn body(headers: &HeaderMap, bytes: usize) -> Self {
        let content_type = headers.get(CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes);
        let is = |name: &[u8]| content_type.get(..name.len()).is_some_and(|is| is.eq_ignore_ascii_case(name));
        let is_text = [&b"text/"[..], b"application/json"].into_iter().any(is);
        Input { kind: if is_text || content_type.is_empty() { Kind::Text } else { Kind::Media }, bytes }
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
    /// One word for each class: the upper half holds units, the lower half the milliseconds after
    /// `origin` of the last change. Both halves change together, so no lock is needed.
    classes: Box<[AtomicU64]>,
}

impl Expectations {
    pub(crate) fn new() -> Self {
        let classes = (0..KINDS * SIZES).map(|_| AtomicU64::new(0)).collect();
        Expectations { origin: Instant::now(), classes }
    }

    /// Expected bytes of a call with this `input` at `now`; 0 if nothing is known.
    pub(crate) fn of(&self, input: Input, now: Instant) -> usize {
        let word = self.classes[input.class()].load(Ordering::Relaxed);
        (aged(word, self.millis(now)) as usize).saturating_mul(UNIT)
    }

    /// Records that a call took `bytes`.
    pub(crate) fn learn(&self, input: Input, bytes: usize, now: Instant) {
        let millis = self.millis(now);
        let taken = (bytes.div_ceil(UNIT) as u64).min(u64::from(u32::MAX));
        let next = |word: u64| Some(taken.max(aged(word, millis) * DECAY_EIGHTHS / 8) << 32 | millis);
        let _ = self.classes[input.class()].fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// Milliseconds since `origin`. They wrap every seven weeks; an expectation with a wrong time
    /// fades as any other.
    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_millis() as u64 & u64::from(u32::MAX)
    }
}

/// Units in `word`, halved for each half-life since its last change.
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
    fn photos_do_not_predict_texts_or_thumbnails() {
        let (expectations, now) = (Expectations::new(), Instant::now());
        let photo = Input::image(&[0; 3_000_000]);
        expectations.learn(photo, 64 * MB, now);
        assert_eq!(expectations.of(photo, now), 64 * MB);
        assert_eq!(expectations.of(Input::image(&[0; 2_500_000]), now), 64 * MB, "of about the same size");
        for other in [
            Input::parts(&[Part::Text("hello".to_owned())]),
            Input::parts(&[Part::Text("a".repeat(3_000_000))]),
            Input::image(&[0; 10_000]),
            Input::tensors(&[]),
        ] {
            assert_eq!(expectations.of(other, now), 0, "{other:?}");
        }
        let mixed = [Part::Text("a photo".to_owned()), Part::Image(vec![0; 3_000_000])];
        assert_eq!(expectations.of(Input::parts(&mixed), now), 64 * MB);
    }

    #[test]
    fn expectation_fades_by_calls_and_by_time() {
        let (expectations, now) = (Expectations::new(), Instant::now());
        let input = Input::parts(&[Part::Text("hello".to_owned())]);
        expectations.learn(input, 64 * MB, now);
        for _ in 0..24 {
            expectations.learn(input, MB, now);
        }
        assert!(expectations.of(input, now) < 4 * MB, "{}", expectations.of(input, now));
        for _ in 0..24 {
            expectations.learn(input, MB, now);
        }
        assert_eq!(expectations.of(input, now), MB, "not below what calls take");
        expectations.learn(input, 64 * MB, now);
        assert_eq!(expectations.of(input, now + 4 * HALF_LIFE), 4 * MB);
        assert_eq!(expectations.of(input, now + 1_000 * HALF_LIFE), 0);
        expectations.learn(input, usize::MAX, now);
        assert!(expectations.of(input, now) > 1 << 40, "no overflow");
    }

    #[test]
    fn bodies_are_media_unless_typed_as_text() {
        let input = |content_type: &'static str| {
            let mut headers = HeaderMap::new();
            if !content_type.is_empty() {
                headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
            }
            Input::body(&headers, 7).kind
        };
        assert_eq!(["", "text/plain; charset=utf-8", "Application/JSON"].map(input), [Kind::Text; 3]);
        assert_eq!(
            ["image/png", "multipart/form-data", "application/octet-stream"].map(input),
            [Kind::Media; 3]
        );
    }
}
