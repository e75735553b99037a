//! The tensors of a card: what a model takes and what it gives.

use serde::Deserialize;

use super::axis::Axis;
use super::image::ImageSpec;
use crate::dtype::DType;

/// A tensor that a model takes.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputSpec {
    /// Its name in the model's file.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its axes, outermost first.
    pub shape: Vec<Axis>,
    /// What the axes mean, such as `NCHW`.
    pub layout: Option<String>,
    /// How pixels become its numbers: `layout` and `shape` are then those of an image.
    pub image: Option<ImageSpec>,
    /// How text becomes its numbers.
    pub text: Option<TextSpec>,
}

/// How a text becomes the ids of its words.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// The file, one of the card's, that maps words to ids.
    pub vocabulary: String,
    /// How many ids the model looks at.
    pub max_tokens: usize,
    /// Where zeros fill up a shorter text: `left` or `right`.
    pub pad: String,
}

/// A tensor that a model gives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// Its name in the model's file.
    pub name: String,
    /// The type of its elements.
    pub dtype: DType,
    /// Its axes, outermost first.
    pub shape: Vec<Axis>,
}
