//! Comparison of the outputs of two versions of a model.

use std::time::SystemTime;

use blake3::Hasher;

use crate::tensor::Tensor;

/// Output that describes the computation of a text.
const METADATA: &str = "metadata";

/// Named tensors.
pub(super) type Tensors = Vec<(String, Tensor)>;

/// Result of comparing the outputs of two versions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Requests whose outputs were compared.
    pub compared: u64,
    /// Of these, requests whose outputs differ by more than the tolerance, or in the decision.
    pub disagreed: u64,
    /// Requests on which the next version failed.
    pub failed: u64,
    /// Requests that were skipped because the queue was full.
    pub skipped: u64,
    /// Maximum difference of two values.
    pub largest_difference: f64,
    /// Latest disagreements, oldest first.
    pub examples: Vec<Example>,
}

/// A disagreement. It does not contain the inputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Keyed hash of the names, types, shapes and elements of the inputs, in 64 hexadecimal digits.
    /// The key is random and never leaves the process: equal inputs have equal hashes, but short
    /// inputs cannot be guessed.
    pub input: String,
    /// Maximum difference of two values; infinite if the outputs have different types or shapes.
    pub difference: f64,
    /// Time of the comparison.
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

/// Maximum difference of corresponding values; infinite if a value has no counterpart.
pub(super) fn compare(one: &Tensors, other: &Tensors) -> f64 {
    let mut largest = if one.len() == other.len() { 0.0 } else { f64::INFINITY };
    // Metadata describes the computation, not its result.
    for (name, tensor) in one.iter().filter(|(name, _)| name != METADATA) {
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
            apart.fold(0.0, |max, apart| if apart.is_nan() { f64::INFINITY } else { apart.max(max) })
        }
        _ => f64::INFINITY,
    }
}

/// Maximum difference of two log-probabilities, and true if the likeliest choice or the text
/// differs.
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
    let likeliest = values.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    likeliest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, values: &[f32]) -> Tensors {
        vec![(name.to_owned(), Tensor::from_slice(&[1, values.len()], values).unwrap())]
    }

    #[test]
    fn corresponding_values_are_compared() {
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
    fn input_hash_depends_on_key_and_content() {
        let mut inputs = named("a", &[1.0]);
        inputs.extend(named("b", &[2.0]));
        let hashed = hash(&[1; 32], &inputs);
        assert_ne!(hash(&[2; 32], &inputs), hashed, "another key gives another hash");
        inputs.reverse();
        assert_eq!(hash(&[1; 32], &inputs), hashed, "in any order");
        inputs[0].0 = "c".to_owned();
        assert_ne!(hash(&[1; 32], &inputs), hashed);
    }
}
