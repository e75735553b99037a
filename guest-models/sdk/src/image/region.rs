//! Parts of a picture, resized.

use fast_image_resize::images::{TypedCroppedImage, TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U8x4};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;

use super::orientation::{stored_at, stored_region, swaps_axes};
use super::picture::{Picture, Pixels, Region};
use crate::Fault;

/// Filter for resizing. Shrinking widens its window, as in Pillow, to avoid aliasing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A triangle.
    Bilinear,
    /// Keys' cubic with a = -0.5.
    Bicubic,
    /// Lanczos with three lobes.
    Lanczos,
}

impl Filter {
    /// Each filter with its name in cards.
    pub const NAMED: [(&'static str, Filter); 3] =
        [("bilinear", Filter::Bilinear), ("bicubic", Filter::Bicubic), ("lanczos", Filter::Lanczos)];
}

impl Picture {
    /// Width and height of the picture as seen, in its intended orientation.
    pub fn seen_size(&self) -> (u32, u32) {
        if swaps_axes(self.orientation) { (self.height, self.width) } else { (self.width, self.height) }
    }

    /// Resizes a rectangle of the picture to `(width, height)`: red, green and blue, row by row.
    ///
    /// # Errors
    ///
    /// `internal` when the region is not inside of the picture, or a size is 0.
    pub fn resized(&self, region: Region, size: (u32, u32), filter: Filter) -> Result<Vec<[u8; 3]>, Fault> {
        match &self.pixels {
            Pixels::Grey(pixels) | Pixels::GreyAlpha(pixels, _) => {
                self.resized_pixels(region, size, filter, pixels, |pixel: &U8| [pixel.0; 3])
            }
            Pixels::Rgb(pixels) => self.resized_pixels(region, size, filter, pixels, |pixel: &U8x3| pixel.0),
            Pixels::RgbPadded(pixels) | Pixels::RgbAlpha(pixels) => {
                self.resized_pixels(region, size, filter, pixels, |pixel: &U8x4| {
                    let [red, green, blue, _] = pixel.0;
                    [red, green, blue]
                })
            }
        }
    }

    /// Rotates after resizing: the picture is small then, and rotation commutes with the filter.
    /// One type of pixel per instance, since the generic resizer includes code for a dozen types.
    fn resized_pixels<P: PixelTrait>(
        &self,
        region: Region,
        size: (u32, u32),
        filter: Filter,
        pixels: &[u8],
        rgb: impl Fn(&P) -> [u8; 3],
    ) -> Result<Vec<[u8; 3]>, Fault> {
        let Region { left, top, width, height } = region;
        let (seen, all) = (self.seen_size(), (self.width, self.height));
        let fits = |start: u32, length: u32, of: u32| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= of)
        };
        if !fits(left, width, seen.0) || !fits(top, height, seen.1) || size.0 == 0 || size.1 == 0 {
            return Err(internal(&format_args!("{region:?} of a picture of {seen:?} to {size:?}")));
        }
        let Region { left, top, width, height } = stored_region(self.orientation, all, region);
        let window = self.window;
        let offset = |start: u32, length: u32, from: u32, of: u32| {
            start.checked_sub(from).filter(|start| start + length <= of)
        };
        let inside = offset(left, width, window.left, window.width).zip(offset(
            top,
            height,
            window.top,
            window.height,
        ));
        let Some((x, y)) = inside else {
            return Err(internal(&format_args!("{region:?}, of which only {window:?} is decoded")));
        };
        let stored = if swaps_axes(self.orientation) { (size.1, size.0) } else { size };

        let source = TypedImageRef::<P>::from_buffer(window.width, window.height, pixels)
            .map_err(|error| internal(&error))?;
        // A view of the part: the resizer's own crop option would let the filter read across its
        // edge.
        let part = TypedCroppedImage::new(source, x, y, width, height).map_err(|error| internal(&error))?;
        let mut small = TypedImage::new(stored.0, stored.1);
        let filter = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
        };
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
        Resizer::new().resize_typed(&part, &mut small, &options).map_err(|error| internal(&error))?;

        let small = small.pixels();
        if self.orientation == Orientation::NoTransforms {
            return Ok(small.iter().map(rgb).collect());
        }
        let rows = (0..size.1).flat_map(|y| (0..size.0).map(move |x| (x, y)));
        let turned = rows.map(|at| {
            let (x, y) = stored_at(self.orientation, stored, at);
            rgb(&small[y as usize * stored.0 as usize + x as usize])
        });
        Ok(turned.collect())
    }
}

fn internal(error: &dyn std::fmt::Display) -> Fault {
    Fault::Internal(format!("image: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A picture of 4 by 3 pixels, each of its own level.
    fn picture(orientation: Orientation) -> Picture {
        Picture::whole((4, 3), Pixels::Grey((0..12).collect()), orientation)
    }

    fn levels(picture: &Picture, region: Region) -> Vec<u8> {
        let size = (region.width, region.height);
        picture.resized(region, size, Filter::Bilinear).unwrap().iter().map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn regions_are_those_of_the_picture_as_seen() {
        let region = Region { left: 1, top: 0, width: 2, height: 2 };
        assert_eq!(levels(&picture(Orientation::NoTransforms), region), [1, 2, 5, 6]);
        // Turned clockwise, the first row is 8, 4, 0 and the second 9, 5, 1.
        assert_eq!(picture(Orientation::Rotate90).seen_size(), (3, 4));
        assert_eq!(levels(&picture(Orientation::Rotate90), region), [4, 0, 5, 1]);
        assert_eq!(levels(&picture(Orientation::Rotate180), region), [10, 9, 6, 5]);
    }

    #[test]
    fn regions_outside_are_rejected() {
        for (left, top, width, height) in [(3, 0, 2, 1), (0, 2, 1, 2), (0, 0, 0, 1), (u32::MAX, 0, 2, 1)] {
            let region = Region { left, top, width, height };
            let error = picture(Orientation::NoTransforms).resized(region, (1, 1), Filter::Bilinear);
            assert!(matches!(error, Err(Fault::Internal(_))), "{region:?}");
        }
    }
}
