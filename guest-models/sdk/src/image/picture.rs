//! Decoded pixels.

use image::metadata::Orientation;

/// A decoded image: eight bits per channel, opaque, as stored in the file.
#[derive(Clone, Debug)]
pub struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) pixels: Pixels,
    /// The intended orientation; the pixels are not rotated yet.
    pub(super) orientation: Orientation,
}

/// Pixels row by row, in the decoder's format: repacking 16 megapixels to RGB would double the
/// memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pixels {
    /// 1 byte per pixel.
    Grey(Vec<u8>),
    /// 3 bytes per pixel.
    Rgb(Vec<u8>),
    /// 4 bytes per pixel, the fourth without meaning.
    RgbPadded(Vec<u8>),
}

impl Picture {
    /// Width and height as stored.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }
}

/// Blends pixels of `N` bytes, the last of which is their opacity, over white.
pub(super) fn over_white<const N: usize>(mut pixels: Vec<u8>) -> Vec<u8> {
    for pixel in pixels.chunks_exact_mut(N) {
        let Some((alpha, colors)) = pixel.split_last_mut() else { continue };
        let alpha = u32::from(*alpha);
        for color in colors {
            let blended = (u32::from(*color) * alpha + 255 * (255 - alpha) + 127) / 255;
            *color = blended as u8;
        }
    }
    pixels
}
