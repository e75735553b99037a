//! Decodes JPEG, PNG, WebP and GIF files.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use super::frames::{self, Contents};
use super::jpeg::{Jpeg, WHOLE};
use super::limits::{DECODER_BYTES, GIF_FRAME_BYTES, METADATA_BYTES};
use super::orientation::{stored_region, swaps_axes};
use super::picture::{Picture, Pixels, Region, is_transparent, over_white, rgba};
use crate::Fault;

/// Decodes `file`, of at most `max_pixels` pixels: the first frame if it has several.
///
/// The format is detected from the bytes. Transparent pixels are blended over white.
///
/// # Errors
///
/// `unsupported-media` when the format is unknown; `too-large`, before decoding, when the header
/// claims more pixels than allowed; `invalid-input` when the file is broken.
pub fn decode(file: &[u8], max_pixels: u32) -> Result<Picture, Fault> {
    decode_file(file, max_pixels, &whole).map(|first| first.picture)
}

/// Selects the whole picture.
pub(super) fn whole((width, height): (u32, u32), orientation: Orientation) -> (u32, Region) {
    let (width, height) = if swaps_axes(orientation) { (height, width) } else { (width, height) };
    (WHOLE, Region { left: 0, top: 0, width, height })
}

/// The first picture of a file.
pub(super) struct First {
    pub(super) picture: Picture,
    /// Width and height of the picture as stored in the file.
    pub(super) size: (u32, u32),
    /// Scale of the decoded picture in eighths.
    pub(super) scale: u32,
    pub(super) format: ImageFormat,
    pub(super) contents: Contents,
    /// True if something is missing or invalid in a JPEG file.
    pub(super) is_damaged: bool,
}

/// Chooses the part of a JPEG file to decode, by its size as stored and its orientation: a scale in
/// eighths (1, 2, 4 or 8), and a rectangle of the picture as seen, in pixels of that scale.
pub(super) type Select<'a> = dyn Fn((u32, u32), Orientation) -> (u32, Region) + 'a;

/// Decodes the first picture, of a JPEG file only the part that `select` chooses.
pub(super) fn decode_file(file: &[u8], max_pixels: u32, select: &Select<'_>) -> Result<First, Fault> {
    let format = format(file)?;
    if format == ImageFormat::Jpeg {
        return decode_jpeg(file, max_pixels, select);
    }
    let name = name(format);
    let broken = |error: ImageError| match error {
        ImageError::Limits(error) => {
            Fault::TooLarge(format!("image: the {name} file needs too much memory: {error}"))
        }
        ImageError::Unsupported(error) => Fault::UnsupportedMedia(format!("image: {error}")),
        error => Fault::InvalidInput(format!("image: the {name} file is broken: {error}")),
    };
    let max_bytes = u64::from(max_pixels) * 4;
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_bytes + DECODER_BYTES);
    let mut before = limits.clone();
    before.max_alloc = Some(METADATA_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(before);
    let mut decoder = reader.into_decoder().map_err(broken)?;

    let size = decoder.dimensions();
    let pixels = check(name, size, decoder.color_type().bits_per_pixel().into(), max_pixels)?;
    let contents = frames::contents(file, format);
    if contents.largest > pixels {
        let ((width, height), largest) = (size, contents.largest);
        return Err(Fault::InvalidInput(format!(
            "image: the {name} file of {width}x{height} contains a picture of {largest} pixels, more than fit"
        )));
    }
    if format == ImageFormat::Gif {
        limits.max_alloc = Some((max_bytes + GIF_FRAME_BYTES).saturating_sub(decoder.total_bytes()));
    }
    decoder.set_limits(limits).map_err(broken)?;
    // Unreadable metadata does not make a picture invalid.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = opaque(DynamicImage::from_decoder(decoder).map_err(broken)?);
    let picture = Picture::whole(size, pixels, orientation);
    Ok(First { picture, size, scale: WHOLE, format, contents, is_damaged: false })
}

fn decode_jpeg(file: &[u8], max_pixels: u32, select: &Select<'_>) -> Result<First, Fault> {
    let format = ImageFormat::Jpeg;
    let jpeg = Jpeg::open(file)?;
    let (size, orientation) = (jpeg.size(), jpeg.orientation());
    check(name(format), size, jpeg.bits_per_pixel(), max_pixels)?;
    let (scale, seen) = select(size, orientation);
    let (width, height) = jpeg.scaled(scale);
    let window = stored_region(orientation, (width, height), seen);
    let max_bytes = u64::from(max_pixels) * 4 + DECODER_BYTES;
    let (pixels, is_damaged) = jpeg.decode(scale, window, max_bytes)?;
    let picture = Picture { width, height, window, pixels, orientation };
    Ok(First { picture, size, scale, format, contents: frames::contents(file, format), is_damaged })
}

/// Returns the number of pixels of a picture that is not too large.
fn check(name: &str, (width, height): (u32, u32), bits: u64, max_pixels: u32) -> Result<u64, Fault> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(Fault::InvalidInput(format!(
            "image: expected pixels, found a {name} file of {width}x{height}"
        )));
    }
    if pixels > u64::from(max_pixels) || pixels.saturating_mul(bits / 8) > u64::from(max_pixels) * 4 {
        return Err(Fault::TooLarge(format!(
            "image: {width}x{height} pixels of {bits} bits are more than {max_pixels} of 32 bits; send a smaller one"
        )));
    }
    Ok(pixels)
}

/// Detects the format of a file among those that guests read.
fn format(file: &[u8]) -> Result<ImageFormat, Fault> {
    const READ: &str = "JPEG, PNG, WebP or GIF";
    match image::guess_format(file) {
        Ok(format) if !name(format).is_empty() => Ok(format),
        Ok(other) => {
            let found = other.extensions_str().first().unwrap_or(&"another format");
            Err(Fault::UnsupportedMedia(format!("image: expected {READ}, found {found}")))
        }
        Err(_) if file.is_empty() => {
            Err(Fault::UnsupportedMedia(format!("image: expected {READ}, found an empty file")))
        }
        Err(_) => Err(Fault::UnsupportedMedia(format!("image: expected {READ}, found an unknown format"))),
    }
}

/// Name of a format that guests read; empty for any other.
fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        _ => "",
    }
}

/// Blends the pixels over white, in place if they have eight bits per channel.
fn opaque(image: DynamicImage) -> Pixels {
    match image {
        DynamicImage::ImageLuma8(image) => Pixels::Grey(image.into_raw()),
        DynamicImage::ImageLumaA8(image) => {
            let pixels = over_white::<2>(image.into_raw());
            let is_transparent = is_transparent::<2>(&pixels);
            let channel = |index| pixels.iter().skip(index).step_by(2).copied().collect();
            if is_transparent { Pixels::GreyAlpha(channel(0), channel(1)) } else { Pixels::Grey(channel(0)) }
        }
        DynamicImage::ImageRgb8(image) => Pixels::Rgb(image.into_raw()),
        DynamicImage::ImageRgba8(image) => rgba(image.into_raw()),
        deep if deep.color().has_alpha() => rgba(deep.into_rgba8().into_raw()),
        deep => Pixels::Rgb(deep.into_rgb8().into_raw()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::DEFAULT_MAX_PIXELS;
    use super::super::picture::BLANK_LEVELS;
    use super::*;
    use image::{GrayAlphaImage, GrayImage, Luma, LumaA, Rgb, Rgb32FImage, RgbImage, Rgba, RgbaImage};

    fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.into().write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    /// A PNG that ends after its header, which claims this size.
    fn png_header(width: u32, height: u32) -> Vec<u8> {
        let mut png = encoded(GrayImage::new(1, 1), ImageFormat::Png);
        png[16..20].copy_from_slice(&width.to_be_bytes());
        png[20..24].copy_from_slice(&height.to_be_bytes());
        // The decoder verifies the CRC-32 of the chunk's type and data.
        let crc = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        png
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }

    #[test]
    fn format_is_detected_from_bytes() {
        let image = RgbImage::from_pixel(5, 3, Rgb([200, 40, 90]));
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif] {
            let picture = decode(&encoded(image.clone(), format), 100).unwrap();
            assert_eq!((picture.width, picture.height), (5, 3), "{format:?}");
        }
    }

    #[test]
    fn other_bytes_are_unsupported_media() {
        for (file, found) in [
            (&b""[..], "found an empty file"),
            (b"<svg></svg>", "found an unknown format"),
            (b"BM______________________________", "found bmp"),
        ] {
            match decode(file, 100) {
                Err(Fault::UnsupportedMedia(message)) => assert!(message.ends_with(found), "{message}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn too_many_pixels_are_rejected_before_decoding() {
        for (width, height) in [(60_000, 60_000), (4_001, 4_000), (i32::MAX as u32, i32::MAX as u32)] {
            match decode(&png_header(width, height), DEFAULT_MAX_PIXELS) {
                Err(Fault::TooLarge(message)) => assert!(message.starts_with("image: "), "{message}"),
                other => panic!("{width}x{height}: {other:?}"),
            }
        }
    }

    #[test]
    fn gif_and_webp_bombs_are_rejected() {
        let mut gif = encoded(RgbImage::new(1, 1), ImageFormat::Gif);
        gif[6..10].copy_from_slice(&[0xff; 4]);
        let gif = decode(&gif, DEFAULT_MAX_PIXELS);
        assert!(matches!(gif, Err(Fault::TooLarge(_))), "{gif:?}");
        let mut webp = encoded(RgbImage::new(1, 1), ImageFormat::WebP);
        // After the lossless signature: 14 bits of width, 14 of height, each less one.
        webp[21..24].copy_from_slice(&[0xfe, 0xff, 0xff]);
        let webp = decode(&webp, DEFAULT_MAX_PIXELS);
        assert!(matches!(webp, Err(Fault::TooLarge(_))), "{webp:?}");
    }

    #[test]
    fn truncated_files_do_not_panic() {
        let mut image = RgbImage::new(24, 24);
        for (x, y, pixel) in image.enumerate_pixels_mut() {
            *pixel = Rgb([(x * 31 + y * 17) as u8, (x * y) as u8, (x ^ y) as u8]);
        }
        for format in [ImageFormat::Png, ImageFormat::WebP, ImageFormat::Jpeg, ImageFormat::Gif] {
            let file = encoded(image.clone(), format);
            for length in 0..file.len() {
                match decode(&file[..length], 10_000) {
                    // Some decoders return the part that exists.
                    Ok(picture) => assert_eq!((picture.width, picture.height), (24, 24)),
                    Err(Fault::InvalidInput(_) | Fault::UnsupportedMedia(_)) => {}
                    Err(other) => panic!("{format:?} of {length} bytes: {other:?}"),
                }
            }
            let half = decode(&file[..file.len() / 4], 10_000);
            assert!(format == ImageFormat::Jpeg || half.is_err(), "{format:?}");
        }
    }

    #[test]
    fn transparent_pixels_become_white() {
        let mut rgba = RgbaImage::from_pixel(3, 1, Rgba([10, 20, 30, 255]));
        rgba.put_pixel(1, 0, Rgba([10, 20, 30, 0]));
        rgba.put_pixel(2, 0, Rgba([0, 100, 255, 128]));
        let picture = decode(&encoded(rgba, ImageFormat::Png), 100).unwrap();
        let Pixels::RgbAlpha(pixels) = &picture.pixels else { panic!("no opacity: {:?}", picture.pixels) };
        let colors: Vec<_> = pixels.chunks(4).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        assert_eq!(colors, [[10, 20, 30], [255; 3], [127, 177, 255]]);
        let Some(Pixels::RgbPadded(pixels)) = picture.over_black().map(|picture| picture.pixels) else {
            panic!("nothing over black");
        };
        let colors: Vec<_> = pixels.chunks(4).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();
        assert_eq!(colors, [[10, 20, 30], [0; 3], [0, 50, 128]]);
        let opaque = RgbaImage::from_pixel(2, 1, Rgba([10, 20, 30, 255 - BLANK_LEVELS]));
        let opaque = decode(&encoded(opaque, ImageFormat::Png), 100).unwrap();
        assert!(!opaque.is_transparent() && opaque.over_black().is_none());
    }

    #[test]
    fn grey_and_deep_images_keep_their_values() {
        let grey = decode(&encoded(GrayImage::from_pixel(2, 2, Luma([7])), ImageFormat::Png), 9).unwrap();
        assert_eq!(grey.pixels, Pixels::Grey(vec![7; 4]));
        let alpha = GrayAlphaImage::from_pixel(1, 1, LumaA([7, 0]));
        let alpha = decode(&encoded(alpha, ImageFormat::Png), 9).unwrap();
        assert_eq!(alpha.pixels, Pixels::GreyAlpha(vec![255], vec![0]));
        assert_eq!(alpha.over_black().unwrap().pixels, Pixels::Grey(vec![0]));
        let deep = DynamicImage::from(Rgb32FImage::from_pixel(1, 1, Rgb([1.0, 0.0, 0.5]))).into_rgb16();
        let deep = decode(&encoded(deep, ImageFormat::Png), 9).unwrap();
        assert_eq!(deep.pixels, Pixels::Rgb(vec![255, 0, 128]));
    }
}
