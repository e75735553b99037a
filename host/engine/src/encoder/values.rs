//! The values of a model's output.

use crate::dtype::DType;
use crate::tensor::Tensor;

/// Checks that no score is NaN: a maximum of windows would leave it out.
///
/// # Errors
///
/// A message if one is.
pub(super) fn numbers(scores: &[f32]) -> Result<(), String> {
    match scores.iter().any(|score| score.is_nan()) {
        true => Err("a score is not a number".to_owned()),
        false => Ok(()),
    }
}

/// The elements of an output as f32.
///
/// # Errors
///
/// A message about an output that has no fractions.
pub(super) fn floats(tensor: &Tensor) -> Result<Vec<f32>, String> {
    let values = match tensor.dtype() {
        DType::F32 => tensor.to_vec::<f32>(),
        DType::F64 => tensor.to_vec::<f64>().map(|values| values.into_iter().map(|v| v as f32).collect()),
        DType::F16 => {
            tensor.to_vec::<half::f16>().map(|values| values.into_iter().map(half::f16::to_f32).collect())
        }
        DType::BF16 => {
            tensor.to_vec::<half::bf16>().map(|values| values.into_iter().map(half::bf16::to_f32).collect())
        }
        other => return Err(format!("the output is {other}, expected f32, f16, bf16 or f64")),
    };
    values.map_err(|error| error.to_string())
}
