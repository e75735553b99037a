//! A model's metadata.

use infer_engine::{Axis, DType, Model};
use serde_json::{Value, json};

use super::{VERSION, datatype};

/// Its name, version, and tensors; an axis that varies is -1.
pub(super) fn of(model: &Model) -> Value {
    let card = model.card();
    let inputs = card.inputs.iter().map(|input| tensor(&input.name, input.dtype, &input.shape));
    let outputs = card.outputs.iter().map(|output| tensor(&output.name, output.dtype, &output.shape));
    json!({
        "name": model.name(),
        "versions": [VERSION],
        "platform": "infer_onnx",
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
    })
}

fn tensor(name: &str, dtype: DType, shape: &[Axis]) -> Value {
    let shape: Vec<i64> = shape
        .iter()
        .map(|axis| match axis {
            Axis::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
            Axis::Dynamic(_) => -1,
        })
        .collect();
    json!({ "name": name, "datatype": datatype(dtype), "shape": shape })
}
