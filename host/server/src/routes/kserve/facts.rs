//! Metadata of a model.

use infer_engine::{Axis, DType, Model};
use serde::Serialize;
use utoipa::ToSchema;

use super::datatypes::{VERSION, datatype};

/// Name, versions and tensors of a model.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelMetadata)]
pub(crate) struct Metadata {
    name: String,
    versions: [&'static str; 1],
    platform: &'static str,
    inputs: Vec<TensorMetadata>,
    outputs: Vec<TensorMetadata>,
}

#[derive(Serialize, ToSchema)]
struct TensorMetadata {
    name: String,
    datatype: &'static str,
    /// A dynamic axis is -1.
    shape: Vec<i64>,
}

/// Builds the metadata of `model`.
pub(super) fn of(model: &Model) -> Metadata {
    let card = model.card();
    let inputs = card.inputs.iter().map(|input| tensor(&input.name, input.dtype, &input.shape));
    let outputs = card.outputs.iter().map(|output| tensor(&output.name, output.dtype, &output.shape));
    Metadata {
        name: model.name().to_owned(),
        versions: [VERSION],
        platform: "infer_onnx",
        inputs: inputs.collect(),
        outputs: outputs.collect(),
    }
}

fn tensor(name: &str, dtype: DType, shape: &[Axis]) -> TensorMetadata {
    let size = |axis: &Axis| match axis {
        Axis::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        Axis::Dynamic { .. } => -1,
    };
    TensorMetadata {
        name: name.to_owned(),
        datatype: datatype(dtype),
        shape: shape.iter().map(size).collect(),
    }
}
