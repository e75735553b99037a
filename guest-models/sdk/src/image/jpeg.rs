//! JPEG files: sequential and progressive ones of eight bits with Huffman codes (ITU-T T.81).
//!
//! A file is decoded at a scale of 1/8, 1/4, 1/2 or 1, and only as far as a window needs: of each
//! block, only the coefficients for that scale are kept. All codes are read to the end, though, so
//! that missing and invalid ones are found wherever they are. Decoders show the intact parts of a
//! damaged file and grey for the rest, and differ in which parts they show.
//!
//! # Layout
//!
//! - `segments`: markers, tables and other facts before a scan; `scan`: blocks in order
//! - `bits`, `blocks`: codes and coefficients; `transform`, `lanes`: the inverse DCT
//! - `frame`: components, their coefficients and samples; `pixels`: upsampling and colours

mod bits;
mod blocks;
mod frame;
mod lanes;
mod pixels;
mod scan;
mod segments;
mod transform;

use image::metadata::Orientation;

use self::frame::Frame;
use self::pixels::Colors;
use self::segments::{Facts, Tables, next_segment};
use super::picture::{Pixels, Region};
use crate::Fault;

/// A scale of 1, in eighths.
pub(super) const WHOLE: u32 = 8;

/// A JPEG file, read up to its first scan.
pub(super) struct Jpeg<'f> {
    /// Data from the first scan's marker.
    rest: &'f [u8],
    frame: Frame,
    tables: Tables,
    colors: Colors,
    orientation: Orientation,
    /// Number of scans so far.
    scans: u32,
    /// True if a block was decoded.
    has_blocks: bool,
}

impl<'f> Jpeg<'f> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// `invalid-input` if it is broken, and `unsupported-media` if it is of another kind.
    pub(super) fn open(file: &'f [u8]) -> Result<Jpeg<'f>, Fault> {
        let mut rest = file.get(2..).unwrap_or_default();
        let (mut tables, mut facts, mut frame) = (Tables::default(), Facts::default(), None);
        loop {
            let Some((marker, segment, behind)) = next_segment(rest) else {
                return Err(broken("it ends before its picture"));
            };
            match marker {
                0xc0..=0xc2 if frame.is_none() => {
                    let found = Frame::read(segment, marker == 0xc2)
                        .ok_or_else(|| broken("expected a frame of eight bits per sample"))?;
                    if found.samples_chroma_more_finely() {
                        let message = "image: the JPEG file samples chroma more finely than luma, which is \
                                       not supported";
                        return Err(Fault::InvalidInput(message.to_owned()));
                    }
                    frame = Some(found);
                }
                0xc0..=0xc2 => return Err(broken("it has several frames")),
                0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                    let message = "image: expected a sequential or progressive JPEG file with Huffman codes, \
                                   found another kind; save it as baseline or progressive";
                    return Err(Fault::UnsupportedMedia(message.to_owned()));
                }
                0xda => {
                    let frame = frame.ok_or_else(|| broken("it has no frame"))?;
                    let count = frame.components.len();
                    let colors = facts
                        .colors(&frame)
                        .ok_or_else(|| broken(&format!("expected 1, 3 or 4 components, found {count}")))?;
                    let orientation = facts.orientation.unwrap_or(Orientation::NoTransforms);
                    return Ok(Jpeg {
                        rest,
                        frame,
                        tables,
                        colors,
                        orientation,
                        scans: 0,
                        has_blocks: false,
                    });
                }
                _ => {
                    facts.read(marker, segment);
                    tables.read(marker, segment).ok_or_else(|| broken("a table is invalid"))?;
                }
            }
            rest = behind;
        }
    }

    /// Width and height, as stored.
    pub(super) fn size(&self) -> (u32, u32) {
        self.frame.size
    }

    /// Bits of a decoded pixel.
    pub(super) fn bits_per_pixel(&self) -> u64 {
        if self.colors == Colors::Grey { 8 } else { 24 }
    }

    /// The intended orientation.
    pub(super) fn orientation(&self) -> Orientation {
        self.orientation
    }

    /// Size of the picture at a scale in eighths.
    pub(super) fn scaled(&self, scale: u32) -> (u32, u32) {
        self.frame.scaled(scale)
    }

    /// Decodes a window of the picture at a scale of 1, 2, 4 or 8 eighths, in pixels of that scale.
    /// Returns its pixels, and true if something is missing or invalid in the file.
    ///
    /// # Errors
    ///
    /// `too-large` if it takes more than `max_bytes`; `invalid-input` if no block can be decoded.
    pub(super) fn decode(
        mut self,
        scale: u32,
        window: Region,
        max_bytes: u64,
    ) -> Result<(Pixels, bool), Fault> {
        let bytes = self.frame.select(scale, window);
        if bytes > max_bytes {
            return Err(Fault::TooLarge(format!(
                "image: the JPEG file needs {bytes} bytes of memory, more than {max_bytes}; send a smaller one"
            )));
        }
        self.frame.allocate();
        let is_whole = self.walk().is_some();
        if !self.has_blocks {
            return Err(broken("it ends before its picture"));
        }
        if self.frame.is_progressive {
            self.frame.transform();
        }
        let is_damaged =
            !is_whole || self.frame.components.iter().any(|component| component.part.is_excessive);
        Ok((pixels::pixels(&self.frame, self.colors, scale, window), is_damaged))
    }

    /// Decodes all scans. Returns `None` if something is missing or invalid.
    fn walk(&mut self) -> Option<()> {
        let (mut rest, mut is_whole) = (self.rest, true);
        loop {
            let Some((marker, segment, behind)) = next_segment(rest) else {
                // A picture that needs no more scans may lack its end marker.
                let lacks_none = rest.is_empty() || bits::next_marker(rest).is_none();
                let is_complete = !self.frame.is_progressive && self.frame.is_complete();
                return (is_whole && lacks_none && is_complete).then_some(());
            };
            rest = behind;
            match marker {
                0xd9 => return (is_whole && self.frame.is_complete()).then_some(()),
                0xda => {
                    let Some((behind, is_intact)) = self.scan(segment, behind) else {
                        is_whole = false;
                        continue;
                    };
                    (rest, is_whole) = (behind, is_whole && is_intact);
                    // Data after a sequential picture of one scan is not part of it. Of several
                    // scans, decoders read all, and the last one of a component counts.
                    if !self.frame.is_progressive && self.scans == 1 && self.frame.is_complete() {
                        return is_whole.then_some(());
                    }
                }
                0xc4 | 0xdb | 0xdd => is_whole &= self.tables.read(marker, segment).is_some(),
                0xdc | 0xe0..=0xef | 0xfe => {}
                // Another picture, or a marker at which other decoders give up.
                _ => return None,
            }
        }
    }
}

fn broken(reason: &str) -> Fault {
    Fault::InvalidInput(format!("image: the JPEG file is broken: {reason}"))
}

#[cfg(test)]
#[path = "jpeg_tests.rs"]
mod tests;
