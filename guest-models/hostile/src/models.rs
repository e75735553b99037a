//! Attacks through wasi:nn: models that were not given, and tensors that are not what they say.

use guest_sdk::bindings::wasi::nn::errors::Error;
use guest_sdk::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use guest_sdk::bindings::wasi::nn::inference::GraphExecutionContext;
use guest_sdk::nn::{Tensor, TensorType};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, ModelFailure};

/// The name of the model to attack with.
pub(crate) fn model(settings: &Settings) -> &str {
    settings.text("attack.model").unwrap_or("text")
}

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
        format!("{given}/../{given}"),
        format!("..\\{given}"),
        format!("%2e%2e/{given}"),
        format!("builtin:{given}"),
        format!("file:///{given}"),
        "/etc/passwd".to_owned(),
        format!(" {given} "),
        format!("{given}\0"),
        given.to_uppercase(),
        String::new(),
    ];
    // An answer is short: the first that is another, or how many there were.
    let mut answers = names.iter().map(|name| refusal(graph::load_by_name(name)));
    let other = answers.find(|answer| !answer.starts_with("ErrorCode::NotFound"));
    Ok(other.unwrap_or_else(|| format!("ErrorCode::NotFound to all {} names", names.len())))
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

/// The same input two hundred times over.
pub(crate) fn twice_named(settings: &Settings) -> Result<String, Fault> {
    const TIMES: usize = 200;
    let (context, input) = open(settings)?;
    let ids = || (input.clone(), Tensor::new(&[1, 100], TensorType::I32, &[0; 400]));
    Ok(refusal(context.compute((0..TIMES).map(|_| ids()).collect())))
}

/// Numbers that are none, and those at the ends, to a model that gives back what it gets.
pub(crate) fn not_a_number(settings: &Settings) -> Result<String, Fault> {
    let bytes: Vec<u8> =
        [f32::NAN, f32::NEG_INFINITY, -0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let (context, input) = open(settings)?;
    let tensor = Tensor::new(&[1, 3], TensorType::Fp32, &bytes);
    match context.compute(vec![(input, tensor)]) {
        Ok(outputs) if outputs.iter().all(|(_, tensor)| tensor.data() == bytes) => {
            Ok("they came back as they went".to_owned())
        }
        Ok(_) => Ok("they came back changed".to_owned()),
        Err(error) => Ok(refusal::<()>(Err(error))),
    }
}

/// Run the model on `tensor` and tell what came of it.
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
