//! Pixels from the samples of a JPEG file's components: equal sizes for all, and RGB.
//!
//! Components with half the samples along an axis are interpolated as in libjpeg ("fancy
//! upsampling"), and colours converted with its constants, bit for bit.

use super::frame::{Frame, Part};
use crate::image::picture::{Pixels, Region};

/// Meaning of the components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colors {
    Grey,
    Rgb,
    YCbCr,
    /// Inverted, as Adobe's programs write it.
    Cmyk,
    /// The same, as luma, chroma and black.
    Ycck,
}

/// Largest window whose pixels have four bytes, which are faster to compute and resize than three.
const MAX_PADDED: u64 = 2 << 20;

/// Returns the pixels of a window of the picture at a scale.
pub(super) fn pixels(frame: &Frame, colors: Colors, scale: u32, window: Region) -> Pixels {
    let (width, height) = (window.width as usize, window.height as usize);
    let is_padded = u64::from(window.width) * u64::from(window.height) <= MAX_PADDED;
    let bytes = match colors {
        Colors::Grey => 1,
        _ => 3 + usize::from(is_padded),
    };
    let mut pixels = vec![0; width * height * bytes];
    let count = match colors {
        Colors::Grey => 1,
        Colors::Cmyk | Colors::Ycck => 4,
        Colors::Rgb | Colors::YCbCr => 3,
    };
    let mut channels = [const { Vec::new() }; 4];
    for (row, pixels) in pixels.chunks_exact_mut(width * bytes).enumerate() {
        for (component, channel) in frame.components.iter().take(count).zip(&mut channels) {
            channel.resize(width, 0);
            let ratio = |axis: fn((u32, u32)) -> u32| Ratio {
                samples: axis(component.sampling) * component.part.side,
                pixels: axis(frame.max) * scale,
            };
            let ratios = (ratio(|(x, _)| x), ratio(|(_, y)| y));
            sample(&component.part, ratios, (window.left, window.top + row as u32), scale, channel);
        }
        let [first, second, third, fourth] = &mut channels;
        match colors {
            Colors::Grey => {
                pixels.copy_from_slice(first);
                continue;
            }
            Colors::YCbCr | Colors::Ycck => to_rgb(first, second, third),
            Colors::Rgb | Colors::Cmyk => {}
        }
        if colors == Colors::Ycck {
            for channel in [&mut *first, second, third] {
                channel.iter_mut().for_each(|color| *color = 255 - *color);
            }
        }
        if matches!(colors, Colors::Cmyk | Colors::Ycck) {
            for channel in [&mut *first, second, third] {
                channel.iter_mut().zip(&*fourth).for_each(|(color, &black)| *color = product(*color, black));
            }
        }
        let colors = first.iter().zip(&*second).zip(&*third);
        if is_padded {
            for (pixel, ((&red, &green), &blue)) in pixels.chunks_exact_mut(4).zip(colors) {
                pixel.copy_from_slice(&[red, green, blue, 0]);
            }
        } else {
            for (pixel, ((&red, &green), &blue)) in pixels.chunks_exact_mut(3).zip(colors) {
                pixel.copy_from_slice(&[red, green, blue]);
            }
        }
    }
    match (colors, is_padded) {
        (Colors::Grey, _) => Pixels::Grey(pixels),
        (_, true) => Pixels::RgbPadded(pixels),
        (_, false) => Pixels::Rgb(pixels),
    }
}

/// Samples of a component for pixels of the picture, along one axis.
#[derive(Clone, Copy)]
struct Ratio {
    samples: u32,
    pixels: u32,
}

impl Ratio {
    fn is_half(self) -> bool {
        2 * self.samples == self.pixels
    }

    fn is_whole(self) -> bool {
        self.samples == self.pixels
    }

    fn of(self, pixel: u32) -> u32 {
        (u64::from(pixel) * u64::from(self.samples) / u64::from(self.pixels)) as u32
    }
}

/// Writes the samples for the row of pixels from `(x, y)` to `row`.
fn sample(part: &Part, (along_x, along_y): (Ratio, Ratio), (x, y): (u32, u32), scale: u32, row: &mut [u8]) {
    let (near, start) = part.row(along_y.of(y));
    // libjpeg repeats samples of tiny pictures.
    let interpolates = scale > 1 && part.size.0 > 2;
    let other = || {
        let middle = along_y.of(y);
        part.row(if y % 2 == 0 { middle.saturating_sub(1) } else { middle + 1 }).0
    };
    if along_x.is_whole() && along_y.is_whole() {
        let from = &near[((x - start) as usize).min(near.len() - 1)..];
        let length = row.len().min(from.len());
        row[..length].copy_from_slice(&from[..length]);
    } else if along_x.is_half() && along_y.is_whole() && interpolates {
        let sums: Vec<u16> = near.iter().map(|&sample| sample.into()).collect();
        double(&sums, x - 2 * start, [1, 2], 2, row);
    } else if along_x.is_half() && along_y.is_half() && interpolates {
        let sums = near.iter().zip(other());
        let sums: Vec<u16> = sums.map(|(&near, &far)| 3 * u16::from(near) + u16::from(far)).collect();
        double(&sums, x - 2 * start, [8, 7], 4, row);
    } else if along_x.is_whole() && along_y.is_half() && scale > 1 {
        let skip = (x - start) as usize;
        let half = 1 + (y % 2) as u16;
        for (out, (&near, &far)) in row.iter_mut().zip(near.iter().zip(other()).skip(skip)) {
            *out = ((3 * u16::from(near) + u16::from(far) + half) >> 2) as u8;
        }
    } else {
        for (out, x) in row.iter_mut().zip(x..) {
            *out = near[((along_x.of(x) - start) as usize).min(near.len() - 1)];
        }
    }
}

/// Writes two pixels for each of `sums`, from pixel `x`: three quarters of a sum and a quarter of
/// its neighbour, with these halves for rounding.
fn double(sums: &[u16], x: u32, [left, right]: [u16; 2], shift: u32, row: &mut [u8]) {
    let last = sums.len() - 1;
    let at = |index: usize| sums[index.min(last)];
    let pixel = |x: usize| {
        let (middle, is_right) = (x / 2, x % 2 == 1);
        let (neighbour, half) = if is_right { (middle + 1, right) } else { (middle.saturating_sub(1), left) };
        ((3 * at(middle) + at(neighbour) + half) >> shift) as u8
    };
    let x = x as usize;
    // The first pixels, and then pairs with both neighbours.
    let mut done = 0;
    while done < row.len() && (x + done < 2 || (x + done) % 2 == 1) {
        row[done] = pixel(x + done);
        done += 1;
    }
    let from = (x + done) / 2;
    if from > 0 && from < last {
        let all = &sums[from - 1..];
        let pairs = row[done..].chunks_exact_mut(2).zip(all.iter().zip(&all[1..]).zip(&all[2..]));
        let mut count = 0;
        for (pair, ((&before, &middle), &after)) in pairs {
            let three = 3 * middle;
            pair.copy_from_slice(&[
                ((three + before + left) >> shift) as u8,
                ((three + after + right) >> shift) as u8,
            ]);
            count += 2;
        }
        done += count;
    }
    for (index, out) in row.iter_mut().enumerate().skip(done) {
        *out = pixel(x + index);
    }
}

/// Converts luma and chroma to red, green and blue, in place.
fn to_rgb(first: &mut [u8], second: &mut [u8], third: &mut [u8]) {
    const HALF: i32 = 1 << 15;
    for ((first, second), third) in first.iter_mut().zip(second).zip(third) {
        let (luma, blue, red) = (i32::from(*first), i32::from(*second) - 128, i32::from(*third) - 128);
        let level = |value: i32| value.clamp(0, 255) as u8;
        *first = level(luma + ((91_881 * red + HALF) >> 16));
        *second = level(luma + ((-22_554 * blue - 46_802 * red + HALF) >> 16));
        *third = level(luma + ((116_130 * blue + HALF) >> 16));
    }
}

/// Product of two levels, as shares of 255, rounded (Blinn 1995).
fn product(one: u8, other: u8) -> u8 {
    let product = u32::from(one) * u32::from(other) + 128;
    ((product + (product >> 8)) >> 8) as u8
}
