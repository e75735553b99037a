//! Attacks through wasi:nn: models of other components, and invalid tensors.

use guest_sdk::bindings::wasi::nn::errors::Error;
use guest_sdk::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use guest_sdk::bindings::wasi::nn::inference::GraphExecutionContext;
use guest_sdk::nn::{Tensor, TensorType};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, ModelFailure};

/// Name of the model under attack.
pub(crate) fn model(settings: &Settings) -> &str {
    settings.text("attack.model").unwrap_or("text")
}

/// The answer of wasi:nn: `done`, or `code: message`.
pub(crate) fn refusal<T>(answer: Result<T, Error>) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(error) => format!("{:?}: {}", error.code(), error.data()),
    }
}

/// Requests another component's model, by names that might reach it.
pub(crate) fn foreign(settings: &Settings) -> Result<String, Fault> {
    let own = model(settings);
    let names = [
        "someone-elses".to_owned(),
        format!("../{own}"),
        format!("{own}/../{own}"),
        format!("..\\{own}"),
        format!("%2e%2e/{own}"),
        format!("builtin:{own}"),
        format!("file:///{own}"),
        "/etc/passwd".to_owned(),
        format!(" {own} "),
        format!("{own}\0"),
        own.to_uppercase(),
        String::new(),
    ];
    // The answer is short: the first unexpected one, or the number of names.
    let mut answers = names.iter().map(|name| refusal(graph::load_by_name(name)));
    let other = answers.find(|answer| !answer.starts_with("ErrorCode::NotFound"));
    Ok(other.unwrap_or_else(|| format!("ErrorCode::NotFound to all {} names", names.len())))
}

/// Passes bytes to the host's model parser.
pub(crate) fn load_bytes(_: &Settings) -> Result<String, Fault> {
    let model = b"\x08\x08\x12\x04evil".to_vec();
    Ok(refusal(graph::load(&[model], GraphEncoding::Onnx, ExecutionTarget::Cpu)))
}

/// A shape of 64 bytes with 3 bytes of data.
pub(crate) fn bad_tensor(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[4, 4], TensorType::Fp32, &[1, 2, 3]))
}

/// A shape whose size overflows 64 bits to 0, with no data.
pub(crate) fn overflow_dimensions(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[1 << 31, 1 << 31, 4], TensorType::I32, &[]))
}

/// A tensor without rows.
pub(crate) fn zero_size(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[0, 100], TensorType::I32, &[]))
}

/// A tensor of another type and rank than the model's input.
pub(crate) fn wrong_input(settings: &Settings) -> Result<String, Fault> {
    compute(settings, Tensor::new(&[2], TensorType::Fp64, &[0; 16]))
}

/// The same input two hundred times.
pub(crate) fn twice_named(settings: &Settings) -> Result<String, Fault> {
    const TIMES: usize = 200;
    let (context, input) = open(settings)?;
    let ids = || (input.clone(), Tensor::new(&[1, 100], TensorType::I32, &[0; 400]));
    Ok(refusal(context.compute((0..TIMES).map(|_| ids()).collect())))
}

/// NaN, infinity and negative zero, for a model that returns its input.
pub(crate) fn not_a_number(settings: &Settings) -> Result<String, Fault> {
    let bytes: Vec<u8> =
        [f32::NAN, f32::NEG_INFINITY, -0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let (context, input) = open(settings)?;
    let tensor = Tensor::new(&[1, 3], TensorType::Fp32, &bytes);
    match context.compute(vec![(input, tensor)]) {
        Ok(outputs) if outputs.iter().all(|(_, tensor)| tensor.data() == bytes) => {
            Ok("they returned unchanged".to_owned())
        }
        Ok(_) => Ok("they returned changed".to_owned()),
        Err(error) => Ok(refusal::<()>(Err(error))),
    }
}

/// Runs the model on `tensor` and returns the outcome.
fn compute(settings: &Settings, tensor: Tensor) -> Result<String, Fault> {
    let (context, input) = open(settings)?;
    Ok(refusal(context.compute(vec![(input, tensor)])))
}

/// The model, ready to run, and the name of its input.
pub(crate) fn open(settings: &Settings) -> Result<(GraphExecutionContext, String), Fault> {
    let name = model(settings);
    let input = settings.card(name).and_then(|card| card.find("input.name")).unwrap_or("ids");
    let failure = |error: Error| Fault::Model(ModelFailure { model: name.to_owned(), message: error.data() });
    let context =
        graph::load_by_name(name).and_then(|graph| graph.init_execution_context()).map_err(failure)?;
    Ok((context, input.to_owned()))
}
