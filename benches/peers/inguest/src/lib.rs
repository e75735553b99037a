//! A guest that includes its model: the file and its runtime are part of the component, and the
//! host only passes the tensors in. Each request has a fresh instance, so each request also reads
//! the model. The setting `runs` is the number of computations per request, from which the time of
//! one computation follows. With the setting `agreement` the host computes the same, and outputs
//! that differ by more are a fault.

use guest_sdk::nn::{self, TensorType};
use guest_sdk::settings::Settings;
use guest_sdk::{Fault, NamedTensor, Predictor};
use rten::{Model, Value, ValueOrView};
use rten_tensor::Tensor;
use rten_tensor::prelude::*;

/// The file of the model, named at build time.
static MODEL: &[u8] = include_bytes!(env!("INGUEST_MODEL"));

struct InGuest;

impl Predictor for InGuest {
    fn predict(name: String, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Fault> {
        let failed = |what: &str, error: &dyn std::fmt::Display| Fault::Internal(format!("{what}: {error}"));
        let settings = Settings::read()?;
        let runs: u32 = settings.get("runs", 1)?;
        let agreement: f32 = settings.get("agreement", f32::INFINITY)?;
        let model = Model::load_static_slice(MODEL).map_err(|error| failed("the model", &error))?;
        let values = inputs
            .iter()
            .map(|input| {
                let node = model.find_node(&input.name).ok_or_else(|| failed("no such input", &input.name))?;
                Ok((node, value(input).map_err(|error| failed(&input.name, &error))?))
            })
            .collect::<Result<Vec<(_, Value)>, Fault>>()?;
        let mut outputs = Vec::new();
        for _ in 0..runs {
            let views = values.iter().map(|(node, value)| (*node, ValueOrView::View(value.as_view()))).collect();
            outputs = model.run(views, model.output_ids(), None).map_err(|error| failed("a run", &error))?;
        }
        let names = model.output_ids().iter().map(|id| model.node_info(*id).and_then(|node| node.name().map(str::to_owned)));
        let outputs = names
            .zip(outputs)
            .map(|(name, output)| {
                let tensor: Tensor<f32> = output.try_into().map_err(|_| failed("an output", &"is not f32"))?;
                let dimensions = tensor.shape().iter().map(|size| *size as u32).collect();
                let data = tensor.to_vec().into_iter().flat_map(f32::to_le_bytes).collect();
                Ok(NamedTensor { name: name.unwrap_or_default(), dimensions, ty: TensorType::Fp32, data })
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        if agreement.is_finite() {
            compare(&name, inputs, &outputs, agreement)?;
        }
        Ok(outputs)
    }
}

/// Checks that the host's model returns the same outputs.
fn compare(model: &str, inputs: Vec<NamedTensor>, outputs: &[NamedTensor], agreement: f32) -> Result<(), Fault> {
    let inputs = inputs.into_iter().map(|input| (input.name, nn::Tensor::new(&input.dimensions, input.ty, &input.data)));
    for (name, tensor) in nn::Model::open(model)?.run(inputs)?.into_tensors() {
        let data = tensor.data();
        let own = outputs.iter().find(|output| output.name == name && output.data.len() == data.len());
        let own = own.ok_or_else(|| Fault::Internal(format!("no output `{name}` of {} bytes", data.len())))?;
        let pairs = data.chunks_exact(4).zip(own.data.chunks_exact(4));
        let number = |word: &[u8]| f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let largest = pairs.map(|(one, two)| (number(one) - number(two)).abs()).fold(0.0, f32::max);
        if largest > agreement {
            return Err(Fault::Internal(format!("`{name}` differs by {largest}, expected at most {agreement}")));
        }
    }
    Ok(())
}

/// Converts a tensor of the host to rten's type.
fn value(input: &NamedTensor) -> Result<Value, String> {
    let shape: Vec<usize> = input.dimensions.iter().map(|size| *size as usize).collect();
    let words = input.data.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
    match input.ty {
        TensorType::Fp32 => Ok(Tensor::from_data(&shape, words.map(f32::from_le_bytes).collect::<Vec<_>>()).into()),
        TensorType::I32 => Ok(Tensor::from_data(&shape, words.map(i32::from_le_bytes).collect::<Vec<_>>()).into()),
        other => Err(format!("is {other:?}, expected fp32 or i32")),
    }
}

guest_sdk::export_predictor!(InGuest);
