//! Response to an inference request: a JSON object, followed by the bytes of the binary outputs.

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use infer_engine::{DType, Model, Reply, Tensor, TensorError};
use serde::Serialize;
use utoipa::ToSchema;

use super::datatypes::{VERSION, datatype};
use super::request::{JSON_LENGTH, RequestedOutput};
use super::texts::{self, BYTES};
use crate::error::ApiError;

/// The outputs of a model.
#[derive(Serialize, ToSchema)]
#[schema(as = TensorResponse)]
pub(super) struct Body<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    parameters: AnsweringModel<'a>,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize, ToSchema)]
struct AnsweringModel<'a> {
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
    parameters: Option<BinarySize>,
    /// In row-major order; null for NaN and infinity. Strings for `BYTES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Value>>)]
    data: Option<Elements>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BytesBehind)]
struct BinarySize {
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
    Bytes(Vec<String>),
}

/// Maximum memory for writing the response, in bytes. JSON numbers are up to six times as long as
/// their elements, in a buffer that doubles; binary outputs take two copies.
pub(super) fn bytes(requested: &[RequestedOutput], reply: &Reply) -> usize {
    let of = |output: &RequestedOutput| {
        let found = reply.outputs.iter().find(|(name, _)| *name == output.name);
        let factor = if output.binary { 2 } else { 12 };
        found.map_or(0, |(_, tensor)| tensor.data().len().saturating_mul(factor))
    };
    requested.iter().fold(0, |sum, output| sum.saturating_add(of(output)))
}

/// Writes the response with the requested outputs.
///
/// # Errors
///
/// 400 for an output that JSON cannot represent.
pub(super) fn write(
    model: &Model,
    id: Option<String>,
    requested: &[RequestedOutput],
    reply: &Reply,
) -> Result<Response, ApiError> {
    let mut outputs = Vec::new();
    let mut binary = Vec::new();
    for (index, output) in requested.iter().enumerate() {
        let found = reply.outputs.iter().find(|(name, _)| *name == output.name);
        let (name, tensor) = found.ok_or_else(|| ApiError::internal("model_failed"))?;
        if texts::is_document(model.card(), name) {
            let text = String::from_utf8_lossy(tensor.data()).into_owned();
            let element = texts::element(text.as_bytes());
            let size = output.binary.then_some(BinarySize { binary_data_size: element.len() });
            let data = if output.binary { None } else { Some(Elements::Bytes(vec![text])) };
            if output.binary {
                binary.extend(element);
            }
            outputs.push(Output { name, datatype: BYTES, shape: &[1], parameters: size, data });
            continue;
        }
        let data = if output.binary {
            binary.extend_from_slice(tensor.data());
            None
        } else {
            let elements = elements(tensor).map_err(|_| {
                let message = format!(
                    "output `{name}` has a datatype that JSON cannot represent; request it with `binary_data`"
                );
                ApiError::invalid(format!("outputs[{index}]"), message)
            })?;
            Some(elements)
        };
        outputs.push(Output {
            name,
            datatype: datatype(tensor.dtype()),
            shape: tensor.shape(),
            parameters: output.binary.then(|| BinarySize { binary_data_size: tensor.data().len() }),
            data,
        });
    }
    let parameters = AnsweringModel { hash: model.hash() };
    let is_binary = requested.iter().any(|output| output.binary);
    let body = Body { model_name: model.name(), model_version: VERSION, id, parameters, outputs };
    let mut bytes = serde_json::to_vec(&body).map_err(|_| ApiError::internal("internal"))?;
    if !is_binary {
        return Ok(([(header::CONTENT_TYPE, "application/json")], bytes).into_response());
    }
    let length = bytes.len().to_string();
    bytes.extend(binary);
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
