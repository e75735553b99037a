//! The tensors of a card: inputs and outputs.

use serde::Deserialize;

use super::axis::Axis;
use super::image::ImageSpec;
use crate::dtype::DType;

/// An input of a model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Name in the model's file.
    pub name: String,
    /// Type of the elements.
    pub dtype: DType,
    /// Axes, outermost first.
    pub shape: Vec<Axis>,
    /// Meaning of the axes, such as `NCHW`.
    pub layout: Option<String>,
    /// Conversion of pixels; `layout` and `shape` must then be those of an image.
    pub image: Option<ImageSpec>,
}

/// An output of a model.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Name in the model's file.
    pub name: String,
    /// Type of the elements.
    pub dtype: DType,
    /// Axes, outermost first.
    pub shape: Vec<Axis>,
}
