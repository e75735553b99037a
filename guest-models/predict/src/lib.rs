//! A guest that passes tensors through to a model and back, for measuring the cost of the sandbox.
//!
//! The calls themselves copy every byte once into the guest and once out of it; the guest adds
//! nothing.

use guest_sdk::nn::{Model, Tensor};
use guest_sdk::{Fault, NamedTensor, Predictor};

struct Predict;

impl Predictor for Predict {
    fn predict(model: String, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Fault> {
        let inputs = inputs.into_iter().map(|NamedTensor { name, dimensions, ty, data }| {
            let tensor = Tensor::new(&dimensions, ty, &data);
            (name, tensor)
        });
        let outputs = Model::open(&model)?.run(inputs)?.into_tensors();
        let outputs = outputs.into_iter().map(|(name, tensor)| NamedTensor {
            name,
            dimensions: tensor.dimensions(),
            ty: tensor.ty(),
            data: tensor.data(),
        });
        Ok(outputs.collect())
    }
}

guest_sdk::export_predictor!(Predict);
