//! Converts pixels to a model's numbers: crops, resizes, normalises.

use image::metadata::Orientation;

use super::jpeg::WHOLE;
use super::orientation::swaps_axes;
use super::picture::{Picture, Region};
use super::region::Filter;
use crate::Fault;
use crate::card::{Axis, Card};

/// Least size of a square before it is resized, of JPEG files that are decoded at a smaller scale,
/// as a multiple of the tensor's. With 1, as in Pillow's `draft`, the score of a photo's best label
/// moved by a quarter; with 2, by a twenty-fifth.
const SPARE: u32 = 2;

/// Order of a tensor's axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `(3, height, width)` for each image.
    Nchw,
    /// `(height, width, 3)` for each image.
    Nhwc,
}

/// Order of the three channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Red first.
    Rgb,
    /// Blue first.
    Bgr,
}

/// A model's requirements for images, from its card.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Width of the tensor in pixels.
    pub width: u32,
    /// Height of the tensor in pixels.
    pub height: u32,
    /// Order of the axes.
    pub layout: Layout,
    /// Order of the channels.
    pub color: Color,
    /// Side of the central square, as a share of the shorter side: above 0, at most 1.
    pub crop: f64,
    /// Filter that resizes the square.
    pub filter: Filter,
    /// Mean of each channel, subtracted from values of 0 to 255, in the order of `color`.
    pub mean: [f32; 3],
    /// Divisor of the difference, for each channel.
    pub std: [f32; 3],
}

impl Recipe {
    /// Reads the recipe from a model's card.
    ///
    /// # Errors
    ///
    /// `internal` when the model's input is not an image, or has a format that this SDK does not
    /// support.
    pub fn from_card(card: &Card<'_>) -> Result<Recipe, Fault> {
        let dtype = card.require("input.dtype")?;
        if dtype != "f32" {
            return Err(card.unfit("input.dtype", "`f32`", dtype));
        }
        let layout = match card.require("input.layout")? {
            "NCHW" => Layout::Nchw,
            "NHWC" => Layout::Nhwc,
            other => return Err(card.unfit("input.layout", "`NCHW` or `NHWC`", other)),
        };
        let (height, width) = match (layout, card.shape("input.shape")?.as_slice()) {
            (Layout::Nchw, [_, Axis::Fixed(3), Axis::Fixed(height), Axis::Fixed(width)])
            | (Layout::Nhwc, [_, Axis::Fixed(height), Axis::Fixed(width), Axis::Fixed(3)])
                if *height > 0 && *width > 0 =>
            {
                (*height, *width)
            }
            _ => {
                let expected =
                    "four axes in the layout's order, three channels, and a fixed height and width";
                return Err(card.unfit("input.shape", expected, card.require("input.shape")?));
            }
        };
        let color = match card.require("input.image.color")? {
            "RGB" => Color::Rgb,
            "BGR" => Color::Bgr,
            other => return Err(card.unfit("input.image.color", "`RGB` or `BGR`", other)),
        };
        let crop = card.get("input.image.crop", 1.0)?;
        if !(crop > 0.0 && crop <= 1.0) {
            return Err(card.unfit("input.image.crop", "a share above 0 and at most 1", &crop.to_string()));
        }
        let name = card.require("input.image.filter")?;
        let Some((_, filter)) = Filter::NAMED.into_iter().find(|(known, _)| *known == name) else {
            return Err(card.unfit("input.image.filter", "`bilinear`, `bicubic` or `lanczos`", name));
        };
        let mean = channels(card, "input.image.mean")?;
        let std = channels(card, "input.image.std")?;
        if std.contains(&0.0) {
            return Err(card.unfit(
                "input.image.std",
                "numbers other than 0",
                card.require("input.image.std")?,
            ));
        }
        Ok(Recipe { width, height, layout, color, crop, filter, mean, std })
    }

    /// True if both recipes resize the same squares to the same size, so that a view for one is a
    /// view for the other.
    pub fn shares_views(&self, other: &Recipe) -> bool {
        let view = |recipe: &Recipe| (recipe.width, recipe.height, recipe.crop, recipe.filter);
        view(self) == view(other)
    }

    /// The shape of a tensor of `images` images.
    pub fn shape(&self, images: u32) -> [u32; 4] {
        match self.layout {
            Layout::Nchw => [images, 3, self.height, self.width],
            Layout::Nhwc => [images, self.height, self.width, 3],
        }
    }

    /// Appends the numbers for the central square of `picture` to `tensor`.
    ///
    /// # Errors
    ///
    /// `internal` when the resizer fails, which is not expected.
    pub fn apply(&self, picture: &Picture, tensor: &mut Vec<f32>) -> Result<(), Fault> {
        let (width, height) = picture.size();
        let middle = (width.max(height) - self.side(width.min(height))) / 2;
        self.normalise(&self.resize(picture, middle)?, tensor);
        Ok(())
    }

    /// Side of the central square of a picture with this shorter side, in its pixels.
    fn side(&self, short: u32) -> u32 {
        ((f64::from(short) * self.crop) as u32).max(1)
    }

    /// Offsets of the views along the longer side of a picture of this size, at most `max`, and the
    /// share of that side that they show. The margin of the central square on the shorter side
    /// counts as shown, and is left out on the longer side too.
    pub(super) fn offsets(&self, (width, height): (u32, u32), max: u32) -> (Vec<u32>, f64) {
        let (short, long) = (width.min(height), width.max(height));
        let side = self.side(short);
        let margin = (short - side) / 2;
        let span = long - 2 * margin;
        // The central square of a photo of 4:3 counts as the whole.
        let enough = if 3 * u64::from(span) <= 4 * u64::from(side) { 1 } else { span.div_ceil(side) };
        let views = (enough | 1).min(max).max(1);
        let share = if views >= enough { 1.0 } else { f64::from(views) * f64::from(side) / f64::from(span) };
        if views == 1 {
            return (vec![(long - side) / 2], share);
        }
        let offset = |view: u32| u64::from(view) * u64::from(span - side) / u64::from(views - 1);
        let mut offsets: Vec<_> = (0..views).map(|view| margin + offset(view) as u32).collect();
        offsets.dedup();
        (offsets, share)
    }

    /// The part of a JPEG file that `max` views need, by its size as stored and its orientation:
    /// the smallest scale at which a square still has twice the tensor's size, in eighths, and the
    /// rectangle of the views in pixels of that scale.
    pub(super) fn part(&self, size: (u32, u32), orientation: Orientation, max: u32) -> (u32, Region) {
        let scaled = |side: u32, scale: u32| (side * scale).div_ceil(WHOLE);
        let enough = SPARE.saturating_mul(self.width.max(self.height));
        let is_enough = |scale: &u32| self.side(scaled(size.0.min(size.1), *scale)) >= enough;
        let scale = [1, 2, 4].into_iter().find(is_enough).unwrap_or(WHOLE);
        let (width, height) = (scaled(size.0, scale), scaled(size.1, scale));
        let (short, long) = (width.min(height), width.max(height));
        let side = self.side(short);
        let (offsets, _) = self.offsets(size, max);
        let offset =
            |offset: Option<&u32>| offset.map_or(0, |&offset| scaled_offset(offset, scale)).min(long - side);
        let (first, margin) = (offset(offsets.first()), (short - side) / 2);
        let length = offset(offsets.last()) + side - first;
        let is_wide = if swaps_axes(orientation) { height >= width } else { width >= height };
        let part = match is_wide {
            true => Region { left: first, top: margin, width: length, height: side },
            false => Region { left: margin, top: first, width: side, height: length },
        };
        (scale, part)
    }

    /// Resizes a square of the picture and applies the orientation: RGB, row by row.
    pub(super) fn resize(&self, picture: &Picture, offset: u32) -> Result<Vec<[u8; 3]>, Fault> {
        let (width, height) = picture.seen_size();
        let side = self.side(width.min(height));
        let margin = (width.min(height) - side) / 2;
        let offset = offset.min(width.max(height) - side);
        let (left, top) = if width >= height { (offset, margin) } else { (margin, offset) };
        let square = Region { left, top, width: side, height: side };
        picture.resized(square, (self.width, self.height), self.filter)
    }

    /// Appends the numbers for a square of an image to `tensor`. `rgb` has the recipe's width and
    /// height, row by row, as red, green and blue.
    pub fn normalise(&self, rgb: &[[u8; 3]], tensor: &mut Vec<f32>) {
        // 768 divisions instead of three per pixel.
        let value = |channel: usize, byte: usize| (byte as f32 - self.mean[channel]) / self.std[channel];
        let tables: [[f32; 256]; 3] =
            std::array::from_fn(|channel| std::array::from_fn(|byte| value(channel, byte)));
        let from = match self.color {
            Color::Rgb => [0, 1, 2],
            Color::Bgr => [2, 1, 0],
        };
        let start = tensor.len();
        tensor.resize(start + 3 * rgb.len(), 0.0);
        let numbers = &mut tensor[start..];
        match self.layout {
            Layout::Nchw => {
                for ((numbers, table), from) in
                    numbers.chunks_exact_mut(rgb.len().max(1)).zip(&tables).zip(from)
                {
                    for (number, pixel) in numbers.iter_mut().zip(rgb) {
                        *number = table[usize::from(pixel[from])];
                    }
                }
            }
            Layout::Nhwc => {
                for (numbers, pixel) in numbers.chunks_exact_mut(3).zip(rgb) {
                    for channel in 0..3 {
                        numbers[channel] = tables[channel][usize::from(pixel[from[channel]])];
                    }
                }
            }
        }
    }
}

/// An offset in a picture at a scale in eighths.
pub(super) fn scaled_offset(offset: u32, scale: u32) -> u32 {
    (offset * scale + WHOLE / 2) / WHOLE
}

/// Parses one number for all channels, or three separated by commas.
fn channels(card: &Card<'_>, key: &str) -> Result<[f32; 3], Fault> {
    let text = card.require(key)?;
    let numbers: Vec<f32> = text.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    let finite = numbers.iter().all(|number| number.is_finite());
    match (text.split(',').count(), numbers.as_slice()) {
        (1, &[number]) if finite => Ok([number; 3]),
        (3, &[first, second, third]) if finite => Ok([first, second, third]),
        _ => Err(card.unfit(key, "one number, or three with commas between", text)),
    }
}

#[cfg(test)]
#[path = "recipe_tests.rs"]
mod tests;
