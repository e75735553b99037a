//! Self-tests of a card: inputs and expected outputs.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::axis::Axis;
use super::image::ImageSpec;
use super::tensors::InputSpec;
use crate::dtype::DType;
use crate::limits::MAX_TEST_VALUES;
use crate::tensor::Tensor;
use crate::text::{QUOTE_BYTES, excerpt};

/// A self-test: inputs and expected outputs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SelfTest {
    /// All inputs of the card; for a language model, those of the convention in wit/README.md.
    pub inputs: BTreeMap<String, TestInput>,
    /// Expected values of at least one output.
    pub outputs: BTreeMap<String, Expected>,
    /// Maximum permitted difference of a value.
    #[serde(default)]
    pub tolerance: f64,
}

/// An input tensor. Varying axes have size 1.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "an input is a list of numbers, a string, or { pattern = \"noise\" }")]
pub enum TestInput {
    /// Elements in row-major order.
    Values(Vec<f64>),
    /// Bytes of the text.
    Text(String),
    /// Generated pixels.
    Pixels {
        /// The formula.
        pattern: Pattern,
    },
}

/// Formula for element `i` of the row-major tensor, before `mean` and `std` of the card are
/// applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// `i * 7919 mod 256`
    Noise,
    /// `i / 5 mod 256`, the division rounding down
    Bands,
}

/// An expected output.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "an output is a list of numbers, a string, or { INDEX = number }")]
pub enum Expected {
    /// Elements in row-major order.
    Values(Vec<f64>),
    /// Bytes of the text.
    Text(String),
    /// Some elements, by their index.
    At(BTreeMap<String, f64>),
}

impl TestInput {
    /// Builds the tensor for `spec`; without one, for a language model.
    ///
    /// # Errors
    ///
    /// When the input does not match `spec`.
    pub(crate) fn tensor(&self, name: &str, spec: Option<&InputSpec>) -> Result<Tensor, String> {
        let axes = spec.map_or(&[][..], |spec| &spec.shape);
        let size = |axis: &Axis| if let Axis::Fixed(size) = axis { *size } else { 1 };
        let shape: Vec<usize> = axes.iter().map(size).collect();
        let elements = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
        let elements = elements.filter(|&elements| elements <= MAX_TEST_VALUES);
        let elements = elements.ok_or_else(|| format!("input `{name}` is too large for a test"))?;
        let made = match (self, spec) {
            (TestInput::Text(text), None) => Ok(Tensor::from_bytes(text.clone().into())),
            (TestInput::Values(values), None) => {
                Tensor::new(DType::I32, vec![values.len()], bytes(DType::I32, values))
            }
            (TestInput::Values(values), Some(spec)) => {
                if values.len() != elements {
                    return Err(format!(
                        "input `{name}` has {} values, expected {elements}: an axis that varies is 1",
                        values.len()
                    ));
                }
                Tensor::new(spec.dtype, shape, bytes(spec.dtype, values))
            }
            (TestInput::Pixels { pattern }, Some(InputSpec { image: Some(image), dtype, layout, .. })) => {
                let level = |index: usize| match pattern {
                    Pattern::Noise => index.wrapping_mul(7_919) % 256,
                    Pattern::Bands => index / 5 % 256,
                };
                let pixel = |index| {
                    let channel = ImageSpec::channel(layout.as_deref(), axes, index);
                    f64::from((level(index) as f32 - image.mean.0[channel]) / image.std.0[channel])
                };
                Tensor::new(*dtype, shape, bytes(*dtype, &(0..elements).map(pixel).collect::<Vec<_>>()))
            }
            (TestInput::Pixels { .. }, _) => {
                return Err(format!(
                    "input `{name}` has no `image` recipe, expected a list of numbers or a string"
                ));
            }
            (TestInput::Text(_), Some(_)) => {
                return Err(format!("input `{name}` takes numbers, expected a list of them"));
            }
        };
        made.map_err(|error| format!("input `{name}`: {error}"))
    }
}

impl Expected {
    /// Compares `found` with the expected output.
    ///
    /// # Errors
    ///
    /// A message with the first difference.
    pub(crate) fn compare(&self, found: &Tensor, tolerance: f64) -> Result<(), String> {
        let places: Vec<(usize, f64)> = match self {
            Expected::Text(text) => {
                let found = String::from_utf8_lossy(found.data());
                if found == text.as_str() {
                    return Ok(());
                }
                let (found, text) = (excerpt(&found, QUOTE_BYTES), excerpt(text, QUOTE_BYTES));
                return Err(format!("found `{found}`, expected `{text}`"));
            }
            Expected::Values(values) => values.iter().copied().enumerate().collect(),
            Expected::At(places) => {
                let place = |(place, value): (&String, &f64)| Some((place.parse().ok()?, *value));
                places.iter().filter_map(place).collect()
            }
        };
        let found = numbers(found);
        if let Expected::Values(values) = self
            && values.len() != found.len()
        {
            return Err(format!("found {} values, expected {}", found.len(), values.len()));
        }
        for (place, expected) in places {
            let Some(found) = found.get(place) else {
                return Err(format!("found {} values, expected one at index {place}", found.len()));
            };
            let difference = (found - expected).abs();
            if difference > tolerance || difference.is_nan() {
                return Err(format!("[{place}] is {found}, expected {expected} ± {tolerance}"));
            }
        }
        Ok(())
    }
}

fn bytes(dtype: DType, values: &[f64]) -> Vec<u8> {
    let each = |value: &f64| match dtype {
        DType::F16 => half::f16::from_f64(*value).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f64(*value).to_le_bytes().to_vec(),
        DType::F32 => (*value as f32).to_le_bytes().to_vec(),
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::U8 => vec![*value as u8],
        DType::I32 => (*value as i32).to_le_bytes().to_vec(),
        DType::I64 => (*value as i64).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(each).collect()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    fn of<T: crate::dtype::Element>(tensor: &Tensor, number: impl Fn(T) -> f64) -> Vec<f64> {
        tensor.to_vec().unwrap_or_default().into_iter().map(number).collect()
    }
    match tensor.dtype() {
        DType::F16 => of(tensor, half::f16::to_f64),
        DType::BF16 => of(tensor, half::bf16::to_f64),
        DType::F32 => of::<f32>(tensor, f64::from),
        DType::F64 => of(tensor, |number: f64| number),
        DType::U8 => of::<u8>(tensor, f64::from),
        DType::I32 => of::<i32>(tensor, f64::from),
        DType::I64 => of(tensor, |number: i64| number as f64),
    }
}
