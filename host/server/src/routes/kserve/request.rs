//! Parses an inference request: a JSON object, followed by the bytes of tensors if a header says
//! so.

use std::fmt;
use std::marker::PhantomData;

use axum::http::HeaderMap;
use infer_engine::limits::Limit;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use infer_engine::{Card, DType, Tensor};
use infer_sandbox::Reservation;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::datatypes::DATATYPES;
use super::{data, texts};
use crate::error::ApiError;
use crate::limits::{MAX_AXES, MAX_INPUTS, MAX_OUTPUTS};
use crate::routes::json::parse;

/// Header with the length of the JSON at the start of the body.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// A parsed inference request.
#[derive(Debug)]
pub(super) struct Request {
    /// The client's id for the request, returned in the response.
    pub(super) id: Option<String>,
    /// Tensors by input name.
    pub(super) inputs: Vec<(String, Tensor)>,
    /// The requested outputs, in order.
    pub(super) outputs: Vec<RequestedOutput>,
}

/// A requested output.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RequestedOutput {
    pub(super) name: String,
    /// True to send it as bytes after the JSON.
    pub(super) binary: bool,
}

/// Tensors to compute on.
#[derive(Deserialize, ToSchema)]
#[schema(as = TensorRequest)]
pub(super) struct Body<'a> {
    /// Returned in the response.
    id: Option<String>,
    parameters: Option<Parameters>,
    #[serde(borrow, deserialize_with = "tensors")]
    inputs: Vec<Input<'a>>,
    /// The requested outputs; all of them if empty.
    #[serde(default, deserialize_with = "outputs")]
    #[schema(value_type = Option<Vec<Output>>)]
    outputs: Vec<Output>,
}

/// Supported parameters. Others are extensions, which the protocol lets a server ignore.
#[derive(Default, Deserialize, ToSchema)]
#[schema(as = TensorParameters)]
struct Parameters {
    /// Of an input: its number of bytes after the JSON.
    binary_data_size: Option<usize>,
    /// Of an output: true to send its bytes after the JSON.
    binary_data: Option<bool>,
    /// Of the request: default of `binary_data` for all outputs.
    binary_data_output: Option<bool>,
    /// Of an output: not supported.
    classification: Option<u64>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = InputTensor)]
struct Input<'a> {
    name: String,
    #[serde(deserialize_with = "axes")]
    shape: Vec<usize>,
    datatype: String,
    parameters: Option<Parameters>,
    /// Numbers, flat or in nested arrays; strings for `BYTES`.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<Value>>)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = WantedTensor)]
struct Output {
    name: String,
    parameters: Option<Parameters>,
}

fn axes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<usize>, D::Error> {
    deserializer.deserialize_seq(List { limit: MAX_AXES, element: PhantomData })
}

fn tensors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Input<'de>>, D::Error> {
    deserializer.deserialize_seq(List { limit: MAX_INPUTS, element: PhantomData })
}

fn outputs<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Output>, D::Error> {
    deserializer.deserialize_any(List { limit: MAX_OUTPUTS, element: PhantomData })
}

/// Reads a list within `limit`; null is an empty list, if allowed.
struct List<T> {
    limit: Limit,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_unit<E>(self) -> Result<Vec<T>, E> {
        Ok(Vec::new())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        let mut read = Vec::new();
        while let Some(element) = list.next_element()? {
            self.limit.check_next(read.len()).map_err(A::Error::custom)?;
            read.push(element);
        }
        Ok(read)
    }
}

/// Parses the request in `body` for the model of `card`. The model itself validates names and
/// shapes. The memory of the tensors is charged to `reservation`.
///
/// # Errors
///
/// 400 with the path of the invalid member, 429 if the memory budget is exhausted.
pub(super) fn read(
    headers: &HeaderMap,
    body: &[u8],
    card: &Card,
    reservation: &mut Reservation,
) -> Result<Request, ApiError> {
    let length = json_length(headers, body.len())?;
    let (json, mut binary) = body.split_at(length);
    let read: Body<'_> = parse(json, "an inference request")?;
    let mut inputs = Vec::new();
    for (index, input) in read.inputs.into_iter().enumerate() {
        let at = format!("inputs[{index}]");
        let name = input.name.clone();
        let is_text = input.datatype == texts::BYTES;
        let invalid =
            |message| ApiError::invalid(&at, format!("input `{}`: {message}", excerpt(&name, QUOTE_BYTES)));
        let bytes = input.bytes(binary.len()).map_err(invalid)?;
        reservation.grow(bytes).map_err(|_| ApiError::busy())?;
        let read = if is_text {
            input.texts(&mut binary)
        } else {
            input.tensor(&mut binary).map(|tensor| (name.clone(), tensor))
        };
        inputs.push(read.map_err(invalid)?);
    }
    if !binary.is_empty() {
        let message = format!("{} bytes follow the last tensor; expected none", binary.len());
        return Err(ApiError::invalid("", message));
    }
    let all_binary = read.parameters.and_then(|parameters| parameters.binary_data_output).unwrap_or(false);
    let outputs = if read.outputs.is_empty() {
        let requested = |name: &String| RequestedOutput { name: name.clone(), binary: all_binary };
        output_names(card).iter().map(requested).collect()
    } else {
        requested(read.outputs, card, all_binary)?
    };
    Ok(Request { id: read.id, inputs, outputs })
}

fn json_length(headers: &HeaderMap, body: usize) -> Result<usize, ApiError> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(body) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok()).filter(|length| *length <= body);
    length.ok_or_else(|| {
        let message =
            format!("the header `{JSON_LENGTH}` is not a number of bytes within the body, which has {body}");
        ApiError::invalid(JSON_LENGTH, message)
    })
}

/// Names of the outputs of a model, in order.
fn output_names(card: &Card) -> Vec<String> {
    match texts::outputs(card) {
        Some(names) => names.iter().map(|&name| name.to_owned()).collect(),
        None => card.outputs.iter().map(|output| output.name.clone()).collect(),
    }
}

/// Checks the requested `outputs` against the card.
fn requested(outputs: Vec<Output>, card: &Card, all_binary: bool) -> Result<Vec<RequestedOutput>, ApiError> {
    let mut requested: Vec<RequestedOutput> = Vec::new();
    for (index, output) in outputs.into_iter().enumerate() {
        let at = || format!("outputs[{index}]");
        let name = excerpt(&output.name, QUOTE_BYTES).into_owned();
        let parameters = output.parameters.unwrap_or_default();
        if parameters.classification.is_some_and(|classes| classes > 0) {
            let message = format!(
                "output `{name}`: `classification` is not supported; use POST /classify, or rank the scores"
            );
            return Err(ApiError::invalid(at(), message));
        }
        let known = output_names(card);
        if !known.contains(&output.name) {
            let message = format!("unknown output `{name}`; expected one of `{}`", known.join("`, `"));
            return Err(ApiError::invalid(at(), message));
        }
        if requested.iter().any(|other| other.name == output.name) {
            return Err(ApiError::invalid(at(), format!("output `{name}` is requested twice")));
        }
        requested.push(RequestedOutput {
            name: output.name,
            binary: parameters.binary_data.unwrap_or(all_binary),
        });
    }
    Ok(requested)
}

impl Input<'_> {
    /// Maximum memory of its elements: their own bytes, out of the `binary` bytes that follow the
    /// JSON, or eight bytes for each two of JSON.
    fn bytes(&self, binary: usize) -> Result<usize, String> {
        let Some(values) = self.data else {
            let size = self.parameters.as_ref().and_then(|parameters| parameters.binary_data_size);
            return match size.unwrap_or(0) {
                // A declared size alone reserves no memory.
                size if size > binary => Err(too_few(size, binary)),
                size => Ok(size),
            };
        };
        let json = values.get().len().saturating_mul(4);
        let elements = self.shape.iter().fold(8_usize, |product, &size| product.saturating_mul(size));
        Ok(json.min(elements))
    }

    /// Builds the texts of a tensor of `BYTES`.
    fn texts(self, binary: &mut &[u8]) -> Result<(String, Tensor), String> {
        let size = self.parameters.and_then(|parameters| parameters.binary_data_size);
        let own = match size {
            Some(_) if self.data.is_some() => {
                return Err("has both `data` and `binary_data_size`; expected one".into());
            }
            Some(size) => {
                let split = binary.split_at_checked(size);
                let (own, rest) = split.ok_or_else(|| too_few(size, binary.len()))?;
                *binary = rest;
                Some(own)
            }
            None => None,
        };
        texts::read(&self.name, &self.shape, self.data, own)
    }

    /// Builds the tensor. Its bytes are taken from `binary` if it declares a binary size.
    fn tensor(self, binary: &mut &[u8]) -> Result<Tensor, String> {
        let known = DATATYPES.iter().find(|(_, name)| *name == self.datatype);
        let Some((dtype, _)) = known else {
            let names: Vec<_> = DATATYPES.iter().map(|(_, name)| *name).collect();
            let found = excerpt(&self.datatype, QUOTE_BYTES);
            return Err(format!("datatype `{found}` is not one of {}", names.join(", ")));
        };
        let size = self.parameters.and_then(|parameters| parameters.binary_data_size);
        let bytes = match (size, self.data) {
            (Some(size), None) => {
                let split = binary.split_at_checked(size);
                let (own, rest) = split.ok_or_else(|| too_few(size, binary.len()))?;
                *binary = rest;
                own.to_vec()
            }
            (None, Some(values)) => json(*dtype, &self.shape, values)?,
            (Some(_), Some(_)) => {
                return Err("has both `data` and `binary_data_size`; expected one".into());
            }
            (None, None) => return Err("has neither `data` nor `binary_data_size`; expected one".into()),
        };
        Tensor::new(*dtype, self.shape, bytes).map_err(|error| error.to_string())
    }
}

fn too_few(size: usize, found: usize) -> String {
    format!("`binary_data_size` is {size}, but only {found} bytes follow")
}

fn json(dtype: DType, shape: &[usize], values: &RawValue) -> Result<Vec<u8>, String> {
    let overflow = || format!("shape {shape:?} is too large: its size overflows");
    let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    data::read(dtype, elements.ok_or_else(overflow)?, values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(json: &str) -> Input<'_> {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn declared_size_reserves_no_memory() {
        let sized = |size: &str| {
            let parameters = format!(r#"{{"binary_data_size": {size}}}"#);
            format!(r#"{{"name": "x", "shape": [9], "datatype": "FP32", "parameters": {parameters}}}"#)
        };
        assert_eq!(input(&sized("36")).bytes(36), Ok(36));
        for size in ["37", "18446744073709551615"] {
            let expected = format!("`binary_data_size` is {size}, but only 36 bytes follow");
            assert_eq!(input(&sized(size)).bytes(36), Err(expected));
        }
        let json = r#"{"name": "x", "shape": [9000000000], "datatype": "FP32", "data": [1, 2]}"#;
        assert_eq!(input(json).bytes(0), Ok(24), "four bytes for each of `[1, 2]`");
    }
}
