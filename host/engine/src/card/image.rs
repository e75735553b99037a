//! Conversion of pixels to tensor elements. The recipes are exactly those that guest-models/sdk
//! implements; an integration test compares the two lists.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};

use super::axis::Axis;
use crate::dtype::DType;
use crate::tensor::shape_text;

/// Conversion of the pixels of an image to tensor elements.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// Order of the colour channels: one of [`ImageSpec::COLORS`].
    pub color: String,
    /// Side of the central square that is cropped, as a fraction of the shorter side; above 0, at
    /// most 1.
    pub crop: f32,
    /// Filter that resizes the square to the size of the input: one of [`ImageSpec::FILTERS`].
    pub filter: String,
    /// Mean, subtracted from each value (0 to 255).
    pub mean: Channels,
    /// Divisor of the difference; not 0.
    pub std: Channels,
}

/// One number per colour channel, in the order of [`ImageSpec::color`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channels(pub [f32; 3]);

impl ImageSpec {
    /// Supported orders of channels.
    pub const COLORS: [&str; 2] = ["RGB", "BGR"];

    /// Supported filters.
    pub const FILTERS: [&str; 3] = ["bilinear", "bicubic", "lanczos"];

    /// Supported orders of axes.
    pub const LAYOUTS: [&str; 2] = ["NCHW", "NHWC"];

    /// Checks the recipe for an input of this type, layout and shape.
    ///
    /// # Errors
    ///
    /// A message with the key, the expected value and the found value.
    pub(super) fn check(&self, dtype: DType, layout: Option<&str>, shape: &[Axis]) -> Result<(), String> {
        one_of("color", &self.color, &Self::COLORS)?;
        one_of("filter", &self.filter, &Self::FILTERS)?;
        if !(self.crop > 0.0 && self.crop <= 1.0) {
            return Err(format!("`crop` is {}, expected above 0 and at most 1", self.crop));
        }
        if !self.mean.0.iter().all(|number| number.is_finite()) {
            return Err(format!("`mean` is {}, expected finite numbers", self.mean));
        }
        if !self.std.0.iter().all(|number| number.is_finite() && *number != 0.0) {
            return Err(format!("`std` is {}, expected finite numbers other than 0", self.std));
        }
        if dtype != DType::F32 {
            return Err(format!("`dtype` is {dtype}, expected f32 for an input with `image`"));
        }
        let Some(layout) = layout else {
            return Err("`layout` is missing, expected NCHW or NHWC for an input with `image`".to_owned());
        };
        one_of("layout", layout, &Self::LAYOUTS)?;
        let agrees = match (layout, shape) {
            ("NCHW", [_, Axis::Fixed(channels), Axis::Fixed(_), Axis::Fixed(_)])
            | ("NHWC", [_, Axis::Fixed(_), Axis::Fixed(_), Axis::Fixed(channels)]) => *channels == 3,
            _ => false,
        };
        if agrees {
            return Ok(());
        }
        Err(format!(
            "`shape` is {}, expected four axes in the order {layout}, with 3 channels and a fixed height and width",
            shape_text(shape)
        ))
    }

    /// Channel of element `index` in a row-major tensor of this layout and shape.
    pub(super) fn channel(layout: Option<&str>, shape: &[Axis], index: usize) -> usize {
        match (layout, shape) {
            (Some("NCHW"), [_, _, Axis::Fixed(height), Axis::Fixed(width)]) => {
                index.checked_div(height.saturating_mul(*width)).unwrap_or(0) % 3
            }
            _ => index % 3,
        }
    }
}

/// Checks that `found` is in `known`.
pub(super) fn one_of(key: &str, found: &str, known: &[&str]) -> Result<(), String> {
    if known.contains(&found) {
        return Ok(());
    }
    Err(format!("`{key}` is `{found}`, expected one of {}", known.join(", ")))
}

impl fmt::Display for Channels {
    /// Writes one number if all are equal, otherwise three with commas between them. Guests read
    /// settings in this form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second, third] = self.0;
        if first == second && second == third {
            return first.fmt(f);
        }
        write!(f, "{first},{second},{third}")
    }
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ChannelsVisitor)
    }
}

struct ChannelsVisitor;

impl<'de> Visitor<'de> for ChannelsVisitor {
    type Value = Channels;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one number, or a list of three, one for each channel")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Channels, E> {
        Ok(Channels([number as f32; 3]))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Channels, E> {
        Ok(Channels([number as f32; 3]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Channels, A::Error> {
        let mut numbers = [0.0; 3];
        for (index, number) in numbers.iter_mut().enumerate() {
            *number = list.next_element()?.ok_or_else(|| de::Error::invalid_length(index, &self))?;
        }
        match list.next_element::<de::IgnoredAny>()? {
            None => Ok(Channels(numbers)),
            Some(_) => Err(de::Error::invalid_length(4, &self)),
        }
    }
}
