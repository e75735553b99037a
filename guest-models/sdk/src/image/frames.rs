//! Pictures of an animation: counts them from the blocks of a file, and decodes the later ones.

use std::io::Cursor;

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{AnimationDecoder as _, Frames, ImageDecoder as _, ImageFormat, ImageResult, Limits};

use super::limits::{ANIMATION_BYTES, METADATA_BYTES};
use super::picture::{Picture, rgba};
use crate::Fault;

/// Facts about a file's pictures, read from their headers only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// Number of pictures: 1 in a file without animation, 0 in a file that is broken before the
    /// first.
    pub(super) pictures: u32,
    /// True if the first picture is a cover for viewers without animation, and not a frame.
    pub(super) has_cover: bool,
    /// Pixels of the largest picture inside a WebP file; 0 in other formats.
    pub(super) largest: u64,
}

/// Reads the headers of `file`.
pub(super) fn contents(file: &[u8], format: ImageFormat) -> Contents {
    let found = match format {
        ImageFormat::Gif => gif(file),
        ImageFormat::Png => png(file),
        ImageFormat::WebP => webp(file),
        _ => None,
    };
    found.unwrap_or(Contents { pictures: 1, ..Contents::default() })
}

/// Decodes the pictures of `file` at `indices`, which are ascending and start after the first, and
/// passes each to `view`.
///
/// Frames build on earlier frames, so all up to the last are decoded, one at a time. Returns the
/// index of the first that cannot be decoded, if any.
///
/// # Errors
///
/// Those of `view`.
pub(super) fn later(
    file: &[u8],
    format: ImageFormat,
    Contents { has_cover, .. }: Contents,
    orientation: Orientation,
    indices: &[u32],
    view: &mut dyn FnMut(Picture) -> Result<(), Fault>,
) -> Result<Option<u32>, Fault> {
    let (Some(&first), Some(&last)) = (indices.first(), indices.last()) else { return Ok(None) };
    let Ok(mut frames) = open(file, format) else { return Ok(Some(first)) };
    for index in u32::from(has_cover)..=last {
        let Some(Ok(frame)) = frames.next() else { return Ok(Some(index)) };
        if indices.contains(&index) {
            let image = frame.into_buffer();
            let (width, height) = image.dimensions();
            view(Picture::whole((width, height), rgba(image.into_raw()), orientation))?;
        }
    }
    Ok(None)
}

fn open(file: &[u8], format: ImageFormat) -> ImageResult<Frames<'_>> {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(ANIMATION_BYTES);
    let file = Cursor::new(file);
    Ok(match format {
        ImageFormat::Gif => {
            let mut decoder = GifDecoder::new(file)?;
            decoder.set_limits(limits)?;
            decoder.into_frames()
        }
        ImageFormat::Png => {
            let mut before = limits.clone();
            before.max_alloc = Some(METADATA_BYTES);
            let mut decoder = PngDecoder::with_limits(file, before)?;
            decoder.set_limits(limits)?;
            decoder.apng()?.into_frames()
        }
        _ => WebPDecoder::new(file)?.into_frames(),
    })
}

/// Counts the image blocks of a GIF file.
fn gif(file: &[u8]) -> Option<Contents> {
    // A colour table of 2 to 256 colours, if the flags announce one.
    let table = |flags: u8| if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut contents = Contents::default();
    let mut rest = file.get(13 + table(*file.get(10)?)..)?;
    loop {
        let body = match rest {
            [0x2c, _, _, _, _, _, _, _, _, flags, ..] => {
                contents.pictures = contents.pictures.saturating_add(1);
                // The descriptor, its table, and the size of the codes.
                rest.get(10 + table(*flags) + 1..)
            }
            [0x21, _, body @ ..] => Some(body),
            _ => None,
        };
        let Some(mut blocks) = body else { return Some(contents) };
        while let [size @ 1..=255, data @ ..] = blocks {
            let Some(behind) = data.get(usize::from(*size)..) else { return Some(contents) };
            blocks = behind;
        }
        rest = blocks.get(1..).unwrap_or_default();
    }
}

/// Counts the frame controls of an animated PNG file.
fn png(file: &[u8]) -> Option<Contents> {
    let (mut is_animation, mut frames, mut before_data) = (false, 0_u32, None);
    let mut rest = file.get(8..)?;
    while let [a, b, c, d, name @ ..] = rest {
        match name {
            [b'a', b'c', b'T', b'L', ..] => is_animation = true,
            [b'f', b'c', b'T', b'L', ..] => frames = frames.saturating_add(1),
            [b'I', b'D', b'A', b'T', ..] if before_data.is_none() => before_data = Some(frames),
            _ => {}
        }
        // The name, the data, a checksum.
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let Some(behind) = length.checked_add(8).and_then(|length| name.get(length..)) else { break };
        rest = behind;
    }
    let has_cover = before_data == Some(0);
    let pictures = if is_animation { frames.saturating_add(u32::from(has_cover)) } else { 1 };
    Some(Contents { pictures, has_cover, largest: 0 })
}

/// Counts the pictures of a WebP file, still or in frames.
fn webp(file: &[u8]) -> Option<Contents> {
    let mut contents = Contents::default();
    let mut pictures = 0_u32;
    chunks(file.get(12..)?, &mut |name, data| match name {
        b"ANMF" => {
            contents.pictures = contents.pictures.saturating_add(1);
            let inside = data.get(16..).unwrap_or_default();
            chunks(inside, &mut |name, data| contents.largest = contents.largest.max(bitstream(name, data)));
        }
        b"VP8 " | b"VP8L" => {
            pictures = pictures.saturating_add(1);
            contents.largest = contents.largest.max(bitstream(name, data));
        }
        _ => {}
    });
    if contents.pictures == 0 {
        contents.pictures = pictures.min(1);
    }
    Some(contents)
}

/// Calls `each` with the name and data of each chunk of a RIFF file; the last may be cut.
fn chunks(mut rest: &[u8], each: &mut dyn FnMut(&[u8; 4], &[u8])) {
    while let Some((name, [a, b, c, d, data @ ..])) = rest.split_first_chunk::<4>() {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        each(name, data.get(..length).unwrap_or(data));
        let Some(behind) = length.checked_next_multiple_of(2).and_then(|length| data.get(length..)) else {
            return;
        };
        rest = behind;
    }
}

/// Number of pixels claimed by the header of a WebP bitstream.
fn bitstream(name: &[u8; 4], data: &[u8]) -> u64 {
    let size = match (name, data) {
        (b"VP8 ", [_, _, _, 0x9d, 0x01, 0x2a, a, b, c, d, ..]) => {
            [[*a, *b], [*c, *d]].map(|side| u64::from(u16::from_le_bytes(side) & 0x3fff))
        }
        (b"VP8L", [0x2f, a, b, c, d, ..]) => {
            let bits = u64::from(u32::from_le_bytes([*a, *b, *c, *d]));
            [(bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1]
        }
        _ => return 0,
    };
    size[0] * size[1]
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
