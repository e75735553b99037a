//! Metadata of a model.

use infer_engine::{Axis, DType, Model};
use serde::Serialize;
use utoipa::ToSchema;

use super::datatypes::{VERSION, datatype};
use super::texts;

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
pub(super) struct TensorMetadata {
    name: String,
    datatype: &'static str,
    /// A dynamic axis is -1.
    shape: Vec<i64>,
}

impl TensorMetadata {
    pub(super) fn new(name: &str, datatype: &'static str, shape: Vec<i64>) -> Self {
        TensorMetadata { name: name.to_owned(), datatype, shape }
    }
}

/// Builds the metadata of `model`.
pub(super) fn of(model: &Model) -> Metadata {
    let card = model.card();
    let (inputs, outputs) = match texts::tensors(card) {
        Some((inputs, outputs)) => {
            let of = |shapes: Vec<texts::Shape>| {
                let tensor = |(name, datatype, shape)| TensorMetadata::new(name, datatype, shape);
                shapes.into_iter().map(tensor).collect()
            };
            (of(inputs), of(outputs))
        }
        None => (
            card.inputs.iter().map(|input| tensor(&input.name, input.dtype, &input.shape)).collect(),
            card.outputs.iter().map(|output| tensor(&output.name, output.dtype, &output.shape)).collect(),
        ),
    };
    Metadata { name: model.name().to_owned(), versions: [VERSION], platform: "infer_onnx", inputs, outputs }
}

fn tensor(name: &str, dtype: DType, shape: &[Axis]) -> TensorMetadata {
    let size = |axis: &Axis| match axis {
        Axis::Fixed(size) => i64::try_from(*size).unwrap_or(i64::MAX),
        Axis::Dynamic { .. } => -1,
    };
    TensorMetadata::new(name, datatype(dtype), shape.iter().map(size).collect())
}
