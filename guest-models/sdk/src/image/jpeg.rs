//! Check for damage in a JPEG file.
//!
//! Decoders show the intact parts of a damaged file, and grey for the rest; they differ in which
//! parts they show. This check reads the codes of all scans (ITU-T T.81, annexes F and G) without
//! computing a pixel, and finds codes that are missing or invalid.

mod bits;
mod blocks;

use bits::{Bits, Table, next_marker};
use blocks::{Band, Blocks};

/// Maximum number of scans in a file, as in the decoder.
const MAX_SCANS: u32 = 100;

/// True if no block of any scan is missing, in a file whose picture has this size.
pub(super) fn is_whole(file: &[u8], size: (u32, u32)) -> bool {
    walk(file, size).is_some()
}

/// State of reading a file.
#[derive(Default)]
struct File {
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    frame: Option<Frame>,
    restart_interval: u32,
    scans: u32,
}

struct Frame {
    size: (u32, u32),
    is_progressive: bool,
    components: Vec<Component>,
    /// Largest sampling factors of all components.
    max: (u32, u32),
}

struct Component {
    id: u8,
    /// Number of its blocks in a unit of an interleaved scan, along both axes.
    sampling: (u32, u32),
    /// True if a scan contained the mean of each block.
    has_means: bool,
    /// Bits of the nonzero coefficients of each block, in a progressive file.
    nonzero: Vec<u64>,
}

/// A component in a scan, with its tables.
struct Part {
    component: usize,
    dc: usize,
    ac: usize,
}

/// Reads to the end of the picture; `None` if something is missing or invalid.
fn walk(file: &[u8], size: (u32, u32)) -> Option<()> {
    let mut state = File::default();
    let mut rest = file.strip_prefix(&[0xff, 0xd8])?;
    loop {
        let Some((marker, behind)) = next_marker(rest) else {
            // A picture that needs no more scans may lack its end marker.
            return state.frame.filter(|frame| !frame.is_progressive && frame.is_complete()).map(|_| ());
        };
        rest = behind;
        match marker {
            0xd9 => return state.frame.filter(Frame::is_complete).map(|_| ()),
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let (length, _) = rest.split_first_chunk::<2>()?;
        let (segment, behind) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let segment = segment.get(2..)?;
        rest = behind;
        match marker {
            0xc0..=0xc2 if state.frame.is_none() => {
                state.frame = Some(Frame::read(segment, marker == 0xc2).filter(|frame| frame.size == size)?);
            }
            0xc4 => state.read_tables(segment)?,
            0xc0..=0xcf => return None,
            0xdd => state.restart_interval = u16::from_be_bytes(*segment.first_chunk()?).into(),
            0xda => {
                rest = state.scan(segment, rest)?;
                // Data after a complete sequential picture is not part of it.
                if state.frame.as_ref().is_some_and(|frame| !frame.is_progressive && frame.is_complete()) {
                    return Some(());
                }
            }
            _ => {}
        }
    }
}

impl Frame {
    fn read(segment: &[u8], is_progressive: bool) -> Option<Frame> {
        let [_, y0, y1, x0, x1, count, components @ ..] = segment else { return None };
        let read = |component: &[u8]| Component {
            id: component[0],
            sampling: (u32::from(component[1] >> 4), u32::from(component[1] & 15)),
            has_means: false,
            nonzero: Vec::new(),
        };
        let components: Vec<_> = components.chunks_exact(3).take(usize::from(*count)).map(read).collect();
        let is_valid = |&(x, y): &(u32, u32)| (1..=4).contains(&x) && (1..=4).contains(&y);
        if components.is_empty() || !components.iter().all(|component| is_valid(&component.sampling)) {
            return None;
        }
        let max = |axis: fn(&Component) -> u32| components.iter().map(axis).max();
        let max = (max(|component| component.sampling.0)?, max(|component| component.sampling.1)?);
        let side = |high: &u8, low: &u8| u32::from(u16::from_be_bytes([*high, *low]));
        Some(Frame { size: (side(x0, x1), side(y0, y1)), is_progressive, components, max })
    }

    fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.has_means)
    }

    /// Number of blocks of a component along both axes, in a scan of that component only.
    fn blocks(&self, component: &Component) -> (u32, u32) {
        let blocks = |size: u32, own: u32, max: u32| (size * own).div_ceil(8 * max);
        let (x, y) = component.sampling;
        (blocks(self.size.0, x, self.max.0), blocks(self.size.1, y, self.max.1))
    }
}

impl File {
    fn read_tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [head, rest @ ..] = segment {
            let (table, behind) = Table::read(rest)?;
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head & 15))? = Some(table);
            segment = behind;
        }
        Some(())
    }

    /// Reads a scan, and returns the data after it.
    fn scan<'f>(&mut self, segment: &[u8], data: &'f [u8]) -> Option<&'f [u8]> {
        self.scans += 1;
        let File { dc, ac, frame: Some(frame), restart_interval, scans } = self else { return None };
        let (count, segment) = segment.split_first()?;
        let (selectors, band) = segment.split_at_checked(2 * usize::from(*count))?;
        let part = |selector: &[u8]| {
            let component = frame.components.iter().position(|component| component.id == selector[0])?;
            Some(Part { component, dc: (selector[1] >> 4).into(), ac: (selector[1] & 15).into() })
        };
        let parts = selectors.chunks_exact(2).map(part).collect::<Option<Vec<_>>>()?;
        let [first, last, bits] = *band.first_chunk::<3>()?;
        let band = match frame.is_progressive {
            true => Band { first: first.into(), last: last.into(), refines: bits >> 4 != 0 },
            false => Band { first: 0, last: 63, refines: false },
        };
        let is_valid = match (frame.is_progressive, band.first) {
            (false, _) => true,
            (true, 0) => band.last == 0,
            (true, first) => first <= band.last && band.last < 64 && parts.len() == 1,
        };
        if *scans > MAX_SCANS || !is_valid || parts.is_empty() {
            return None;
        }
        let units = match &*parts {
            [part] => frame.blocks(&frame.components[part.component]),
            _ => (frame.size.0.div_ceil(8 * frame.max.0), frame.size.1.div_ceil(8 * frame.max.1)),
        };
        let units = units.0 * units.1;
        if band.first > 0 {
            frame.components[parts[0].component].nonzero.resize(units as usize, 0);
        }
        let mut blocks = Blocks::new(Bits::new(data), band);
        for unit in 0..units {
            if *restart_interval > 0 && unit > 0 && unit % *restart_interval == 0 {
                blocks.restart(unit / *restart_interval - 1)?;
            }
            for part in &parts {
                let component = &mut frame.components[part.component];
                if blocks.band.first > 0 {
                    let nonzero = &mut component.nonzero[unit as usize];
                    let table = ac.get(part.ac)?.as_ref()?;
                    if blocks.band.refines {
                        blocks.refined(table, nonzero)?;
                    } else {
                        blocks.first(table, nonzero)?;
                    }
                    continue;
                }
                let count = if parts.len() == 1 { 1 } else { component.sampling.0 * component.sampling.1 };
                for _ in 0..count {
                    if blocks.band.refines {
                        blocks.skip_bit()?;
                        continue;
                    }
                    blocks.mean(dc.get(part.dc)?.as_ref()?)?;
                    if blocks.band.last > 0 {
                        blocks.others(ac.get(part.ac)?.as_ref()?)?;
                    }
                }
            }
        }
        if blocks.band.first == 0 && !blocks.band.refines {
            parts.iter().for_each(|part| frame.components[part.component].has_means = true);
        }
        Some(blocks.rest())
    }
}

#[cfg(test)]
#[path = "jpeg_tests.rs"]
mod tests;
