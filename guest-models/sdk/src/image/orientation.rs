//! Orientation of a picture, from its EXIF metadata.

use image::metadata::Orientation;

use super::picture::Region;

/// Returns true if the orientation swaps width and height.
pub(super) fn swaps_axes(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

/// Maps `(x, y)` of the oriented picture to the pixel of the stored picture of `(width, height)`.
pub(super) fn stored_at(
    orientation: Orientation,
    (width, height): (u32, u32),
    (x, y): (u32, u32),
) -> (u32, u32) {
    match orientation {
        Orientation::NoTransforms => (x, y),
        Orientation::FlipHorizontal => (width - 1 - x, y),
        Orientation::Rotate180 => (width - 1 - x, height - 1 - y),
        Orientation::FlipVertical => (x, height - 1 - y),
        Orientation::Rotate90FlipH => (y, x),
        Orientation::Rotate90 => (y, height - 1 - x),
        Orientation::Rotate270FlipH => (width - 1 - y, height - 1 - x),
        Orientation::Rotate270 => (width - 1 - y, x),
    }
}

/// Maps a rectangle of the oriented picture, which is inside of it and not empty, to the rectangle
/// of the stored picture of `size`.
pub(super) fn stored_region(orientation: Orientation, size: (u32, u32), region: Region) -> Region {
    let Region { left, top, width, height } = region;
    let first = stored_at(orientation, size, (left, top));
    let last = stored_at(orientation, size, (left + width - 1, top + height - 1));
    let (left, top) = (first.0.min(last.0), first.1.min(last.1));
    let (width, height) = if swaps_axes(orientation) { (height, width) } else { (width, height) };
    Region { left, top, width, height }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, GenericImageView, GrayImage};

    #[test]
    fn all_eight_orientations_map_pixels() {
        let (width, height) = (4, 3);
        let stored = GrayImage::from_raw(width, height, (0..12).collect()).unwrap();
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut seen = DynamicImage::from(stored.clone());
            seen.apply_orientation(orientation);
            assert_eq!(seen.width() == height, swaps_axes(orientation), "{orientation:?}");
            for (x, y, pixel) in seen.pixels() {
                let (from_x, from_y) = stored_at(orientation, (width, height), (x, y));
                assert_eq!(pixel.0[0], stored.get_pixel(from_x, from_y).0[0], "{orientation:?} at {x},{y}");
            }
        }
    }
}
