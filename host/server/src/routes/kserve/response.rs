//! Response to an inference request: a JSON object, followed by the bytes of the binary outputs.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use infer_engine::{DType, Model, Reply, Tensor, TensorError};
use serde::Serialize;
use utoipa::ToSchema;

use super::datatypes::{VERSION, datatype};
use super::request::{JSON_LENGTH, Wanted};
use crate::error::ApiError;

/// The outputs of a model.
#[derive(Serialize, ToSchema)]
#[schema(as = TensorResponse)]
pub(super) struct Body<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: Answering<'a>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = AnsweringModel)]
struct Answering<'a> {
    /// SHA-256 of the model's file, in hexadecimal.
    hash: &'a str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OutputTensor)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Behind>,
    /// In row-major order; null for NaN and infinity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Option<f64>>>)]
    data: Option<Elements>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BytesBehind)]
struct Behind {
    /// Number of its bytes after the JSON.
    binary_data_size: usize,
}

/// Elements in row-major order.
#[derive(Serialize)]
#[serde(untagged)]
enum Elements {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U8(Vec<u8>),
    I32(Vec<i32>),
    I64(Vec<i64>),
}

/// Maximum memory for writing the response, in bytes. JSON numbers are up to six times as long as
/// their elements, in a buffer that doubles; binary outputs take two copies.
pub(super) fn bytes(wanted: &[Wanted], reply: &Reply) -> usize {
    let of = |wanted: &Wanted| {
        let found = reply.outputs.iter().find(|(name, _)| *name == wanted.name);
        let factor = if wanted.binary { 2 } else { 12 };
        found.map_or(0, |(_, tensor)| tensor.data().len().saturating_mul(factor))
    };
    wanted.iter().fold(0, |sum, wanted| sum.saturating_add(of(wanted)))
}

/// Writes the response with the requested outputs.
///
/// # Errors
///
/// 400 for an output that JSON cannot represent.
pub(super) fn write(
    model: &Model,
    id: Option<String>,
    wanted: &[Wanted],
    reply: &Reply,
) -> Result<Response, ApiError> {
    let mut outputs = Vec::new();
    let mut behind = Vec::new();
    for (index, wanted) in wanted.iter().enumerate() {
        let found = reply.outputs.iter().find(|(name, _)| *name == wanted.name);
        let (name, tensor) = found.ok_or_else(|| ApiError::internal("model_failed"))?;
        let data = if wanted.binary {
            behind.extend_from_slice(tensor.data());
            None
        } else {
            let elements = elements(tensor).map_err(|_| {
                let message = format!(
                    "output `{name}` has elements that JSON has no numbers for; ask for it with `binary_data`"
                );
                ApiError::invalid(format!("outputs[{index}]"), message)
            })?;
            Some(elements)
        };
        outputs.push(Output {
            name,
            datatype: datatype(tensor.dtype()),
            shape: tensor.shape(),
            parameters: wanted.binary.then(|| Behind { binary_data_size: tensor.data().len() }),
            data,
        });
    }
    let parameters = Answering { hash: model.hash() };
    let is_binary = wanted.iter().any(|wanted| wanted.binary);
    let body = Body { model_name: model.name(), model_version: VERSION, id, parameters, outputs };
    let mut bytes = serde_json::to_vec(&body).map_err(|_| ApiError::internal("internal"))?;
    if !is_binary {
        return Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response());
    }
    let length = bytes.len().to_string();
    bytes.extend(behind);
    let kind = (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned());
    Ok(([kind, (JSON_LENGTH, length)], bytes).into_response())
}

fn elements(tensor: &Tensor) -> Result<Elements, TensorError> {
    Ok(match tensor.dtype() {
        DType::F64 => Elements::F64(tensor.to_vec()?),
        DType::U8 => Elements::U8(tensor.to_vec()?),
        DType::I32 => Elements::I32(tensor.to_vec()?),
        DType::I64 => Elements::I64(tensor.to_vec()?),
        // For F16 and BF16 the conversion returns the error.
        DType::F32 | DType::F16 | DType::BF16 => Elements::F32(tensor.to_vec()?),
    })
}
