//! Attacks through wasi:nn: models that were not given, and tensors that are not what they say.

use guest_sdk::bindings::wasi::nn::errors::Error;
use guest_sdk::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use guest_sdk::nn::{Tensor, TensorType};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, ModelFailure};

use crate::model;

/// What wasi:nn answered: `done`, or `code: message`.
pub(crate) fn refusal<T>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("{:?}: {}", error.code(), error.data()),
    }
}

/// Ask for another component's model, by names that might get there.
pub(crate) fn foreign(settings: &Settings) -> Result<String, Fault> {
    let given = model(settings);
    let names = [
        "someone-elses".to_owned(),
        format!("../{given}"),
        format!("{given}\0"),
        given.to_uppercase(),
        String::new(),
    ];
    let answers: Vec<_> = names.iter().map(|name| refusal(graph::load_by_name(name))).collect();
    Ok(answers.join("; "))
}

/// Feed the host's model parser.
pub(crate) fn load_bytes(_: &Settings) -> Result<String, Fault> {
    let model = b"\x08\x08\x12\x04evil".to_vec();
    Ok(refusal(graph::load(&[model], GraphEncoding::Onnx, ExecutionTarget::Cpu)))
}

/// A shape of 64 bytes over 3.
pub(crate) fn bad_tensor(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[4, 4], TensorType::Fp32, &[1, 2, 3]))
}

/// A shape whose size is 0 in 64 bits, and with it just what the data has.
pub(crate) fn overflow_dimensions(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[1 << 31, 1 << 31, 4], TensorType::I32, &[]))
}

/// No rows at all.
pub(crate) fn zero_size(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[0, 100], TensorType::I32, &[]))
}

/// Another type than the model's, of another rank.
pub(crate) fn wrong_input(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[2], TensorType::Fp64, &[0; 16]))
}

/// Run the model on `tensor` and tell what came of it.
fn compute(settings: &Settings, tensor: Tensor) -> Result<String, Fault> {
    let name = model(settings);
    let input = settings.card(name).and_then(|card| card.find("input.name")).unwrap_or("ids");
    let failure = |error: Error| Fault::Model(ModelFailure { model: name.to_owned(), message: error.data() });
    let context =
        graph::load_by_name(name).and_then(|graph| graph.init_execution_context()).map_err(failure)?;
    Ok(refusal(context.compute(vec![(input.to_owned(), tensor)])))
}
