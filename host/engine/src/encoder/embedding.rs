//! The embedding of a text from the vectors of its tokens.

use crate::card::{Pooling, TextSpec};
use crate::tensor::Tensor;

use super::values::floats;

/// Computes the embedding of a text of `tokens` tokens from the model's output: f32 `[1, size]`, or
/// `[1, tokens, size]` with padding behind the tokens.
///
/// # Errors
///
/// When the output has another shape, or `dimensions` exceeds its size.
pub(super) fn embed(
    output: &Tensor,
    tokens: usize,
    spec: &TextSpec,
    dimensions: Option<usize>,
) -> Result<Vec<f32>, String> {
    let values = floats(output)?;
    let mut embedding = match *output.shape() {
        [1, _] => values,
        [1, length, size] if length >= tokens && tokens > 0 => {
            let mut vectors = values.chunks_exact(size.max(1)).take(tokens);
            match spec.pooling.unwrap_or(Pooling::Mean) {
                Pooling::Cls => vectors.next().unwrap_or_default().to_vec(),
                Pooling::Last => vectors.next_back().unwrap_or_default().to_vec(),
                Pooling::Mean => {
                    let mut mean = vec![0.0; size];
                    for vector in vectors {
                        mean.iter_mut().zip(vector).for_each(|(mean, value)| *mean += value);
                    }
                    mean.iter_mut().for_each(|mean| *mean /= tokens as f32);
                    mean
                }
            }
        }
        _ => {
            return Err(format!(
                "the output has shape {:?} for {tokens} tokens, expected [1, size] or [1, tokens, size]",
                output.shape()
            ));
        }
    };
    if let Some(dimensions) = dimensions {
        if dimensions == 0 || dimensions > embedding.len() {
            let size = embedding.len();
            return Err(format!(
                "`dimensions` is {dimensions}, expected 1 to {size}, the size of the embedding"
            ));
        }
        embedding.truncate(dimensions);
    }
    if spec.normalize || dimensions.is_some() {
        let length = embedding.iter().map(|value| value * value).sum::<f32>().sqrt();
        if length > 0.0 {
            embedding.iter_mut().for_each(|value| *value /= length);
        }
    }
    Ok(embedding)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> TextSpec {
        toml::from_str(&format!("max_tokens = 8\n{text}")).unwrap()
    }

    #[test]
    fn padding_is_not_pooled() {
        let output = Tensor::from_slice(&[1, 3, 2], &[1.0f32, 2.0, 3.0, 6.0, 9.0, 9.0]).unwrap();
        for (text, expected) in [
            ("pooling = \"mean\"", [2.0, 4.0]),
            ("pooling = \"cls\"", [1.0, 2.0]),
            ("pooling = \"last\"", [3.0, 6.0]),
        ] {
            assert_eq!(embed(&output, 2, &spec(text), None).unwrap(), expected, "{text}");
        }
        let unit = embed(&output, 1, &spec("normalize = true"), None).unwrap();
        assert!((unit[0] - 0.447_213_6).abs() < 1e-6 && (unit[1] - 0.894_427_2).abs() < 1e-6, "{unit:?}");
        assert_eq!(embed(&output, 2, &spec(""), Some(1)).unwrap(), [1.0]);
    }

    #[test]
    fn pooled_output_is_passed_on() {
        let output = Tensor::from_slice(&[1, 2], &[3.0f32, 4.0]).unwrap();
        assert_eq!(embed(&output, 5, &spec(""), None).unwrap(), [3.0, 4.0]);
        let error = embed(&output, 5, &spec(""), Some(3)).unwrap_err();
        assert_eq!(error, "`dimensions` is 3, expected 1 to 2, the size of the embedding");
        let wrong = Tensor::from_slice(&[1, 2, 1], &[3.0f32, 4.0]).unwrap();
        assert!(embed(&wrong, 5, &spec(""), None).unwrap_err().contains("for 5 tokens"));
    }
}
