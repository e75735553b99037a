//! Running models: `wasi:nn` with Rust's types and this project's faults.

use std::fmt;

use crate::bindings::wasi::nn::errors::Error;
pub use crate::bindings::wasi::nn::errors::ErrorCode;
use crate::bindings::wasi::nn::graph;
use crate::bindings::wasi::nn::inference::GraphExecutionContext;
pub use crate::bindings::wasi::nn::tensor::{Tensor, TensorType};
use crate::{Fault, ModelFailure};

/// A model of this component's configuration, ready to run.
#[derive(Debug)]
pub struct Model {
    name: String,
    context: GraphExecutionContext,
}

impl Model {
    /// The model that the configuration gives under `name`.
    ///
    /// # Errors
    ///
    /// When it gives none, or the host refuses.
    pub fn open(name: &str) -> Result<Model, ModelError> {
        let refused = |error: Error| ModelError::refused(name, &error);
        let graph = graph::load_by_name(name).map_err(refused)?;
        let context = graph.init_execution_context().map_err(refused)?;
        Ok(Model { name: name.to_owned(), context })
    }

    /// Run it on named inputs. They move to the host; what they held of the tensor budget is free
    /// afterwards.
    ///
    /// # Errors
    ///
    /// When the host refuses or the model fails.
    pub fn run<N: Into<String>>(
        &self,
        inputs: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Outputs, ModelError> {
        let inputs = inputs.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect();
        match self.context.compute(inputs) {
            Ok(tensors) => Ok(Outputs { model: self.name.clone(), tensors }),
            Err(error) => Err(ModelError::refused(&self.name, &error)),
        }
    }
}

/// A model that gave no answer, or none that can be used. As a [`Fault`] it is `model`.
#[derive(Clone, Debug)]
pub struct ModelError {
    /// The guest's name for the model.
    pub model: String,
    /// What wasi:nn calls it.
    pub code: ErrorCode,
    /// The host's words, for the log.
    pub message: String,
}

impl ModelError {
    fn refused(model: &str, error: &Error) -> ModelError {
        ModelError { model: model.to_owned(), code: error.code(), message: error.data() }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "model `{}`: {}", self.model, self.message)
    }
}

impl From<ModelError> for Fault {
    fn from(error: ModelError) -> Fault {
        Fault::Model(ModelFailure { model: error.model, message: error.message })
    }
}

/// A host tensor of `f32` values, row-major.
pub fn f32_tensor(shape: &[u32], values: &[f32]) -> Tensor {
    Tensor::new(shape, TensorType::Fp32, bytemuck::cast_slice(values))
}

/// A host tensor of `i32` values, row-major.
pub fn i32_tensor(shape: &[u32], values: &[i32]) -> Tensor {
    Tensor::new(shape, TensorType::I32, bytemuck::cast_slice(values))
}

/// A host tensor of bytes, such as those of a text: u8, of shape `(bytes)`.
pub fn u8_tensor(bytes: &[u8]) -> Tensor {
    Tensor::new(&[bytes.len() as u32], TensorType::U8, bytes)
}

/// What a model computed: named tensors, still in the host's memory.
#[derive(Debug)]
pub struct Outputs {
    model: String,
    tensors: Vec<(String, Tensor)>,
}

impl Outputs {
    /// The output `name` as scores: f32 of shape `(rows, columns)`, row-major, every value finite.
    ///
    /// # Errors
    ///
    /// As [`Outputs::numbers`].
    pub fn scores(&self, name: &str, rows: u32, columns: u32) -> Result<Vec<f32>, ModelError> {
        self.numbers(name, &[rows, columns])
    }

    /// The output `name` as f32 of shape `shape`, row-major, every value finite.
    ///
    /// # Errors
    ///
    /// When there is no such output, when it is of another type or shape, or when a value is not
    /// finite, since a NaN is below every threshold and would pass for harmless.
    pub fn numbers(&self, name: &str, shape: &[u32]) -> Result<Vec<f32>, ModelError> {
        let data = self.data(name, TensorType::Fp32, Some(shape))?;
        finite(&data)
            .ok_or_else(|| self.unusable(format!("output `{name}` holds values that are not finite numbers")))
    }

    /// The output `name` as UTF-8 text: u8 of shape `(bytes)`.
    ///
    /// # Errors
    ///
    /// When there is no such output, when it is of another type, or no UTF-8.
    pub fn text(&self, name: &str) -> Result<String, ModelError> {
        let data = self.data(name, TensorType::U8, None)?;
        String::from_utf8(data).map_err(|_| self.unusable(format!("output `{name}` is not UTF-8")))
    }

    /// The output `name` as whole numbers: i32 of any shape, row-major.
    ///
    /// # Errors
    ///
    /// When there is no such output, or it is of another type.
    pub fn integers(&self, name: &str) -> Result<Vec<i32>, ModelError> {
        Ok(bytemuck::pod_collect_to_vec(&self.data(name, TensorType::I32, None)?))
    }

    fn data(&self, name: &str, ty: TensorType, shape: Option<&[u32]>) -> Result<Vec<u8>, ModelError> {
        let Some((_, tensor)) = self.tensors.iter().find(|(candidate, _)| candidate == name) else {
            let names: Vec<_> = self.tensors.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(self.unusable(format!("no output `{name}`; it has {}", names.join(", "))));
        };
        let (found, dimensions) = (tensor.ty(), tensor.dimensions());
        if found != ty || shape.is_some_and(|shape| shape != dimensions) {
            let shape = shape.map_or_else(String::new, |shape| format!(" of shape {shape:?}"));
            return Err(self.unusable(format!(
                "output `{name}`: expected {ty:?}{shape}, found {found:?} of shape {dimensions:?}"
            )));
        }
        Ok(tensor.data())
    }

    /// That the model answered with what is no answer.
    pub(crate) fn unusable(&self, message: String) -> ModelError {
        ModelError { model: self.model.clone(), code: ErrorCode::RuntimeError, message }
    }

    /// All outputs, as the host gave them.
    pub fn into_tensors(self) -> Vec<(String, Tensor)> {
        self.tensors
    }
}

/// Little-endian bytes as numbers, where all are finite.
fn finite(bytes: &[u8]) -> Option<Vec<f32>> {
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
    values.iter().all(|value| value.is_finite()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_that_are_not_finite_are_no_scores() {
        let bytes = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
        assert_eq!(finite(&bytes(&[0.25, -1.0])), Some(vec![0.25, -1.0]));
        assert_eq!(finite(&bytes(&[0.25, f32::NAN])), None);
        assert_eq!(finite(&bytes(&[f32::INFINITY])), None);
    }
}
