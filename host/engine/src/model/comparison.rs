//! Comparison of the outputs of two versions of a model.

use std::time::SystemTime;

use blake3::Hasher;

use crate::tensor::Tensor;

/// Named tensors.
pub(super) type Tensors = Vec<(String, Tensor)>;

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

pub(super) fn size(tensors: &Tensors) -> usize {
    tensors.iter().map(|(name, tensor)| name.len() + tensor.data().len()).sum()
}

pub(super) fn hash(key: &[u8; 32], inputs: &Tensors) -> String {
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
pub(super) fn compare(one: &Tensors, other: &Tensors) -> f64 {
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
pub(super) fn compare_language(one: &Tensors, other: &Tensors) -> (f64, bool) {
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
