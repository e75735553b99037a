//! Running models: `wasi:nn` with Rust's types and this project's faults.

use crate::bindings::wasi::nn::errors::Error;
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
    /// `model` when it gives none, or the host refuses.
    pub fn open(name: &str) -> Result<Model, Fault> {
        let fault = |error: Error| failure(name, &error);
        let graph = graph::load_by_name(name).map_err(fault)?;
        let context = graph.init_execution_context().map_err(fault)?;
        Ok(Model { name: name.to_owned(), context })
    }

    /// Run it on named inputs. They move to the host; what they held of the tensor budget is free afterwards.
    ///
    /// # Errors
    ///
    /// `model` when the host refuses or the model fails.
    pub fn run<N: Into<String>>(
        &self,
        inputs: impl IntoIterator<Item = (N, Tensor)>,
    ) -> Result<Outputs, Fault> {
        let inputs = inputs.into_iter().map(|(name, tensor)| (name.into(), tensor)).collect();
        match self.context.compute(inputs) {
            Ok(tensors) => Ok(Outputs { model: self.name.clone(), tensors }),
            Err(error) => Err(failure(&self.name, &error)),
        }
    }
}

fn failure(model: &str, error: &Error) -> Fault {
    Fault::Model(ModelFailure { model: model.to_owned(), message: error.data() })
}

/// A host tensor of `f32` values, row-major.
pub fn f32_tensor(shape: &[u32], values: &[f32]) -> Tensor {
    Tensor::new(shape, TensorType::Fp32, bytemuck::cast_slice(values))
}

/// A host tensor of `i32` values, row-major.
pub fn i32_tensor(shape: &[u32], values: &[i32]) -> Tensor {
    Tensor::new(shape, TensorType::I32, bytemuck::cast_slice(values))
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
    /// `internal` when there is no such output or it is of another type or shape; `model` when a value is not finite,
    /// since a NaN is below every threshold and would pass for harmless.
    pub fn scores(&self, name: &str, rows: u32, columns: u32) -> Result<Vec<f32>, Fault> {
        let Outputs { model, tensors } = self;
        let internal = |message| Fault::Internal(format!("model `{model}`: {message}"));
        let Some((_, tensor)) = tensors.iter().find(|(candidate, _)| candidate == name) else {
            let names: Vec<_> = tensors.iter().map(|(name, _)| format!("`{name}`")).collect();
            return Err(internal(format!("no output `{name}`; it has {}", names.join(", "))));
        };
        let (ty, shape) = (tensor.ty(), tensor.dimensions());
        if ty != TensorType::Fp32 || shape != [rows, columns] {
            return Err(internal(format!(
                "output `{name}`: expected f32 of shape [{rows}, {columns}], found {ty:?} of shape {shape:?}"
            )));
        }
        let values = finite(&tensor.data());
        values.ok_or_else(|| {
            let message = format!("output `{name}` holds values that are not finite numbers");
            Fault::Model(ModelFailure { model: model.clone(), message })
        })
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
