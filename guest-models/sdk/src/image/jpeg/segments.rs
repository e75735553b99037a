//! Segments of a JPEG file: tables, and facts about its colours and orientation.

use image::metadata::Orientation;

use super::bits::{Codes, next_marker};
use super::frame::Frame;
use super::pixels::Colors;

/// Returns the next marker, its segment's content, and the data after it. Markers without a segment
/// are skipped, except those of a start and an end. `None` at the end of the file.
pub(super) fn next_segment(mut rest: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    loop {
        let (marker, behind) = next_marker(rest)?;
        match marker {
            0xd8 | 0xd9 => return Some((marker, &[], behind)),
            0x01 | 0xd0..=0xd7 => rest = behind,
            _ => {
                let (length, _) = behind.split_first_chunk::<2>()?;
                let (segment, behind) = behind.split_at_checked(u16::from_be_bytes(*length).into())?;
                return Some((marker, segment.get(2..)?, behind));
            }
        }
    }
}

/// Tables for the following scans.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) dc: [Option<Codes>; 4],
    pub(super) ac: [Option<Codes>; 4],
    pub(super) quantisation: [Option<Box<[u16; 64]>>; 4],
    /// Units between restart markers; 0 if there are none.
    pub(super) restart_interval: u32,
}

impl Tables {
    /// Reads a segment with tables; ignores others.
    pub(super) fn read(&mut self, marker: u8, mut segment: &[u8]) -> Option<()> {
        match marker {
            0xc4 => {
                while let [head, rest @ ..] = segment {
                    let (table, behind) = Codes::read(rest)?;
                    let tables = match head >> 4 {
                        0 => &mut self.dc,
                        1 => &mut self.ac,
                        _ => return None,
                    };
                    *tables.get_mut(usize::from(head & 15))? = Some(table);
                    segment = behind;
                }
            }
            0xdb => {
                while let [head, rest @ ..] = segment {
                    let bytes = 1 + usize::from(head >> 4 != 0);
                    let (values, behind) = rest.split_at_checked(64 * bytes)?;
                    let mut table = Box::new([0; 64]);
                    for (value, from) in table.iter_mut().zip(values.chunks_exact(bytes)) {
                        *value = from.iter().fold(0, |value, &byte| value << 8 | u16::from(byte));
                    }
                    *self.quantisation.get_mut(usize::from(head & 15))? = Some(table);
                    segment = behind;
                }
            }
            0xdd => self.restart_interval = u16::from_be_bytes(segment.try_into().ok()?).into(),
            _ => {}
        }
        Some(())
    }
}

/// Facts from the segments before the first scan.
#[derive(Default)]
pub(super) struct Facts {
    is_jfif: bool,
    /// Number of the colours' transform, from Adobe's programs.
    adobe: Option<u8>,
    /// From the first EXIF segment, if there is one.
    pub(super) orientation: Option<Orientation>,
}

impl Facts {
    /// Reads a segment of an application; ignores others, and those that libjpeg finds too short.
    pub(super) fn read(&mut self, marker: u8, segment: &[u8]) {
        match (marker, segment) {
            (0xe0, [b'J', b'F', b'I', b'F', 0, rest @ ..]) if rest.len() >= 9 => self.is_jfif = true,
            // Browsers read the first one.
            (0xe1, [b'E', b'x', b'i', b'f', 0, 0, exif @ ..]) if self.orientation.is_none() => {
                let found = Orientation::from_exif_chunk(exif);
                self.orientation = Some(found.unwrap_or(Orientation::NoTransforms));
            }
            (0xee, [b'A', b'd', b'o', b'b', b'e', _, _, _, _, _, _, transform, ..]) => {
                self.adobe = Some(*transform);
            }
            _ => {}
        }
    }

    /// Meaning of the components, as libjpeg guesses it; `None` if their number has none.
    pub(super) fn colors(&self, frame: &Frame) -> Option<Colors> {
        let is_rgb = || frame.components.iter().map(|component| component.id).eq(*b"RGB");
        match (frame.components.len(), self.adobe) {
            (1, _) => Some(Colors::Grey),
            (3, _) if self.is_jfif => Some(Colors::YCbCr),
            (3, Some(0)) => Some(Colors::Rgb),
            (3, None) if is_rgb() => Some(Colors::Rgb),
            (3, _) => Some(Colors::YCbCr),
            (4, None | Some(0)) => Some(Colors::Cmyk),
            (4, _) => Some(Colors::Ycck),
            _ => None,
        }
    }
}
