//! Decoded pixels.

use image::metadata::Orientation;

/// Difference, of 255 levels, that is not visible.
pub(super) const BLANK_LEVELS: u8 = 2;

/// A rectangle of a picture, in pixels of the picture as seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Distance from the left edge.
    pub left: u32,
    /// Distance from the top edge.
    pub top: u32,
    /// Width, at least 1.
    pub width: u32,
    /// Height, at least 1.
    pub height: u32,
}

/// A decoded image: eight bits per channel, over white, as stored in the file.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Width and height of the whole picture, perhaps smaller than in the file.
    pub(super) width: u32,
    pub(super) height: u32,
    /// The decoded rectangle of the stored picture, which contains all that is asked for.
    pub(super) window: Region,
    /// Pixels of the window.
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
    /// 1 byte per pixel, over white, and the opacity of each pixel.
    GreyAlpha(Vec<u8>, Vec<u8>),
    /// 4 bytes per pixel, over white; the fourth is the opacity.
    RgbAlpha(Vec<u8>),
}

impl Picture {
    /// A picture with all of its pixels.
    pub(super) fn whole((width, height): (u32, u32), pixels: Pixels, orientation: Orientation) -> Picture {
        Picture { width, height, window: Region { left: 0, top: 0, width, height }, pixels, orientation }
    }

    /// Width and height as stored.
    pub(super) fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// True if it is not opaque, so that it looks different over black.
    pub(super) fn is_transparent(&self) -> bool {
        matches!(self.pixels, Pixels::GreyAlpha(..) | Pixels::RgbAlpha(_))
    }

    /// The same picture over black instead of white; `None` if it is opaque.
    pub(super) fn over_black(self) -> Option<Picture> {
        // A colour over white is `color * alpha + 255 * (1 - alpha)`.
        let darken = |color: &mut u8, alpha: u8| *color = color.saturating_sub(255 - alpha);
        let pixels = match self.pixels {
            Pixels::Grey(_) | Pixels::Rgb(_) | Pixels::RgbPadded(_) => return None,
            Pixels::GreyAlpha(mut pixels, alphas) => {
                pixels.iter_mut().zip(alphas).for_each(|(color, alpha)| darken(color, alpha));
                Pixels::Grey(pixels)
            }
            Pixels::RgbAlpha(mut pixels) => {
                for pixel in pixels.chunks_exact_mut(4) {
                    let alpha = pixel[3];
                    pixel[..3].iter_mut().for_each(|color| darken(color, alpha));
                }
                Pixels::RgbPadded(pixels)
            }
        };
        Some(Picture { pixels, ..self })
    }
}

/// Blends pixels of four bytes, the last of which is their opacity, over white.
pub(super) fn rgba(pixels: Vec<u8>) -> Pixels {
    let pixels = over_white::<4>(pixels);
    if is_transparent::<4>(&pixels) { Pixels::RgbAlpha(pixels) } else { Pixels::RgbPadded(pixels) }
}

/// True if a pixel of `N` bytes, the last of which is its opacity, is visibly transparent.
pub(super) fn is_transparent<const N: usize>(pixels: &[u8]) -> bool {
    pixels.iter().skip(N - 1).step_by(N).any(|&alpha| alpha < 255 - BLANK_LEVELS)
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
