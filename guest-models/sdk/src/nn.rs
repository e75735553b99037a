//! Runs models: `wasi:nn` with Rust types and this project's faults.

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
    /// Opens the model that the configuration names `name`.
    ///
    /// # Errors
    ///
    /// When no such model is configured, or the host reports an error.
    pub fn open(name: &str) -> Result<Model, ModelError> {
        let refused = |error: Error| ModelError::refused(name, &error);
        let graph = graph::load_by_name(name).map_err(refused)?;
        let context = graph.init_execution_context().map_err(refused)?;
        Ok(Model { name: name.to_owned(), context })
    }

    /// Runs the model on named inputs. The inputs move to the host, which frees their share of the
    /// tensor budget afterwards.
    ///
    /// # Errors
    ///
    /// When the host reports an error or the model fails.
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

/// A model that returned no outputs, or invalid ones. It converts to [`Fault`] as `model`.
#[derive(Clone, Debug)]
pub struct ModelError {
    /// The guest's name for the model.
    pub model: String,
    /// The error code of wasi:nn.
    pub code: ErrorCode,
    /// The host's message, for the log.
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

/// Outputs of a model: named tensors, still in the host's memory.
#[derive(Debug)]
pub struct Outputs {
    model: String,
    tensors: Vec<(String, Tensor)>,
}

impl Outputs {
    /// Returns the output `name` as scores: f32 of shape `(rows, columns)`, row-major, all finite.
    ///
    /// # Errors
    ///
    /// As for [`Outputs::numbers`].
    pub fn scores(&self, name: &str, rows: u32, columns: u32) -> Result<Vec<f32>, ModelError> {
        self.numbers(name, &[rows, columns])
    }

    /// Returns the output `name` as f32 of shape `shape`, row-major, all finite.
    ///
    /// # Errors
    ///
    /// When there is no such output, when it has another type or shape, or when a value is not
    /// finite: a NaN is below every threshold and would pass as harmless.
    pub fn numbers(&self, name: &str, shape: &[u32]) -> Result<Vec<f32>, ModelError> {
        let data = self.data(name, TensorType::Fp32, Some(shape))?;
        finite(&data)
            .ok_or_else(|| self.unusable(format!("output `{name}` contains values that are not finite")))
    }

    /// Returns the output `name` as f32 of any shape, row-major, all finite, and its shape.
    ///
    /// # Errors
    ///
    /// When there is no such output, when it has another type, or when a value is not finite.
    pub fn shaped(&self, name: &str) -> Result<(Vec<u32>, Vec<f32>), ModelError> {
        let shape = self.tensors.iter().find(|(candidate, _)| candidate == name);
        let shape = shape.map(|(_, tensor)| tensor.dimensions()).unwrap_or_default();
        let values = self.numbers(name, &shape)?;
        Ok((shape, values))
    }

    /// Returns the output `name` as UTF-8 text: u8 of shape `(bytes)`.
    ///
    /// # Errors
    ///
    /// When there is no such output, when it has another type, or when it is not UTF-8.
    pub fn text(&self, name: &str) -> Result<String, ModelError> {
        let data = self.data(name, TensorType::U8, None)?;
        String::from_utf8(data).map_err(|_| self.unusable(format!("output `{name}` is not UTF-8")))
    }

    /// Returns the output `name` as whole numbers: i32 of any shape, row-major.
    ///
    /// # Errors
    ///
    /// When there is no such output, or it has another type.
    pub fn integers(&self, name: &str) -> Result<Vec<i32>, ModelError> {
        Ok(bytemuck::pod_collect_to_vec(&self.data(name, TensorType::I32, None)?))
    }

    fn data(&self, name: &str, ty: TensorType, shape: Option<&[u32]>) -> Result<Vec<u8>, ModelError> {
        let Some((_, tensor)) = self.tensors.iter().find(|(candidate, _)| candidate == name) else {
            let names: Vec<_> = self.tensors.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(self.unusable(format!("no output `{name}`; outputs: {}", names.join(", "))));
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

    /// An error for outputs that the guest cannot use.
    pub(crate) fn unusable(&self, message: String) -> ModelError {
        ModelError { model: self.model.clone(), code: ErrorCode::RuntimeError, message }
    }

    /// Returns all outputs as tensors of the host.
    pub fn into_tensors(self) -> Vec<(String, Tensor)> {
        self.tensors
    }
}

/// Converts little-endian bytes to numbers. Returns `None` if one is not finite.
fn finite(bytes: &[u8]) -> Option<Vec<f32>> {
    let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
    values.iter().all(|value| value.is_finite()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_finite_scores_are_rejected() {
        let bytes = |values: &[f32]| bytemuck::cast_slice(values).to_vec();
        assert_eq!(finite(&bytes(&[0.25, -1.0])), Some(vec![0.25, -1.0]));
        assert_eq!(finite(&bytes(&[0.25, f32::NAN])), None);
        assert_eq!(finite(&bytes(&[f32::INFINITY])), None);
    }
}
