//! Scans: the blocks of one or several components in order, between restart markers.

use std::ops::Range;

use super::Jpeg;
use super::bits::{Bits, Table, next_marker};
use super::blocks::{self, Band, Progressive, Stored};
use super::frame::{Component, Frame};
use super::segments::Tables;

/// Maximum number of scans in a file. Encoders write up to ten.
const MAX_SCANS: u32 = 100;

/// Number of blocks from which tables for skipping coefficients pay.
const MANY_BLOCKS: u32 = 20_000;

/// A component in a scan, with the indices of its tables.
struct Part {
    component: usize,
    dc: usize,
    ac: usize,
    /// Mean of the block before.
    mean: i32,
}

/// A scan in progress.
struct Scan<'s, 'f> {
    bits: Bits<'f>,
    frame: &'s mut Frame,
    tables: &'s Tables,
    parts: Vec<Part>,
    blocks: Progressive,
    has_blocks: &'s mut bool,
    /// Coefficients of a block of a sequential picture, in the order of scans.
    block: [i16; 64],
}

impl Jpeg<'_> {
    /// Decodes a scan with this header. Returns the data after it, and true if nothing is missing
    /// or invalid; `None` if the header is invalid.
    pub(super) fn scan<'d>(&mut self, header: &[u8], data: &'d [u8]) -> Option<(&'d [u8], bool)> {
        self.scans += 1;
        let frame = &mut self.frame;
        let (count, header) = header.split_first()?;
        let (selectors, band) = header.split_at_checked(2 * usize::from(*count))?;
        let part = |selector: &[u8]| {
            let component = frame.components.iter().position(|component| component.id == selector[0])?;
            let (dc, ac) = (usize::from(selector[1] >> 4), usize::from(selector[1] & 15));
            Some(Part { component, dc, ac, mean: 0 })
        };
        let parts = selectors.chunks_exact(2).map(part).collect::<Option<Vec<_>>>()?;
        let [first, last, bits] = *band.first_chunk::<3>()?;
        let (refines, shift) = (bits >> 4 != 0, u32::from(bits & 15));
        let band = match frame.is_progressive {
            true => Band { first: first.into(), last: last.into(), refines, shift },
            false => Band { first: 0, last: 63, refines: false, shift: 0 },
        };
        let is_valid = match (frame.is_progressive, band.first) {
            (false, _) => true,
            (true, 0) => band.last == 0,
            (true, first) => first <= band.last && band.last < 64 && parts.len() == 1,
        };
        if self.scans > MAX_SCANS || !is_valid || parts.is_empty() || parts.len() > 4 {
            return None;
        }
        for part in &parts {
            let component = &mut frame.components[part.component];
            if component.quantisation.is_none() {
                component.quantisation = self.tables.quantisation.get(usize::from(component.table))?.clone();
                component.quantisation.as_ref()?;
            }
            let is_large = component.grid.0 * component.grid.1 >= MANY_BLOCKS;
            if let (true, false, Some(Some(table))) =
                (is_large, frame.is_progressive, self.tables.ac.get_mut(part.ac))
            {
                table.prepare_skips();
            }
        }
        let tables = &self.tables;
        let (bits, blocks) = (Bits::new(data), Progressive { band, run: 0 });
        let has_blocks = &mut self.has_blocks;
        let mut scan = Scan { bits, frame, tables, parts, blocks, has_blocks, block: [0; 64] };
        let is_whole = scan.intervals(tables.restart_interval);
        if band.first == 0 && !band.refines {
            scan.parts.iter().for_each(|part| scan.frame.components[part.component].has_means = true);
        }
        Some((scan.bits.rest(), is_whole))
    }
}

impl<'f> Scan<'_, 'f> {
    /// Decodes the units between all restart markers. Returns false if something is missing or
    /// invalid.
    fn intervals(&mut self, interval: u32) -> bool {
        let (width, height) = match &*self.parts {
            [part] => self.frame.blocks(&self.frame.components[part.component]),
            _ => self.frame.units(),
        };
        let (units, mut is_whole, mut first) = (width * height, true, 0);
        loop {
            let end = if interval == 0 { units } else { units.min(first + interval) };
            is_whole &= self.units(first..end, width).is_some();
            if end == units {
                return is_whole;
            }
            // The last three bits of a marker's number are stored.
            let number = end / interval - 1;
            let missing = loop {
                let rest = self.bits.rest();
                let Some((marker @ 0xd0..=0xd7, behind)) = next_marker(rest) else { return false };
                self.bits = Bits::new(behind);
                let missing = u32::from(marker).wrapping_sub(0xd0 + number) & 7;
                if u64::from(end) + u64::from(missing) * u64::from(interval) < u64::from(units) {
                    break missing;
                }
                is_whole = false;
            };
            is_whole &= missing == 0;
            first = end + missing * interval;
            self.blocks.run = 0;
            self.parts.iter_mut().for_each(|part| part.mean = 0);
        }
    }

    /// Decodes units: blocks, or one group of blocks of each component; a row has `width` of them.
    fn units(&mut self, units: Range<u32>, width: u32) -> Option<()> {
        if let ([part], true) = (&mut *self.parts, self.frame.is_progressive) {
            let component = &mut self.frame.components[part.component];
            return match (self.blocks.band.first, self.tables.ac.get(part.ac)) {
                (0, _) => self.means(units, width),
                (_, Some(Some(table))) => {
                    let blocks = &mut self.blocks;
                    progressive(&mut self.bits, blocks, component, table, units, width)?;
                    *self.has_blocks = true;
                    Some(())
                }
                _ => None,
            };
        }
        if self.frame.is_progressive { self.means(units, width) } else { self.sequential(units, width) }
    }

    /// Decodes units of a sequential picture.
    #[inline(never)] // Inlined, its loops would share the registers of much other code.
    fn sequential(&mut self, units: Range<u32>, width: u32) -> Option<()> {
        let is_alone = self.parts.len() == 1;
        let tables = |part: &Part| {
            let (dc, ac) = (self.tables.dc.get(part.dc)?.as_ref()?, self.tables.ac.get(part.ac)?.as_ref()?);
            Some((dc, ac))
        };
        let tables = self.parts.iter().map(tables).collect::<Option<Vec<_>>>()?;
        for (x, y) in positions(units, width) {
            for (part, &tables) in self.parts.iter_mut().zip(&tables) {
                let component = &mut self.frame.components[part.component];
                let (wide, high) = if is_alone { (1, 1) } else { component.sampling };
                for j in 0..high {
                    for i in 0..wide {
                        let at = (x * wide + i, y * high + j);
                        sequential(&mut self.bits, tables, &mut part.mean, component, at, &mut self.block)?;
                    }
                }
            }
            *self.has_blocks = true;
        }
        Some(())
    }

    /// Decodes the means of a progressive picture.
    fn means(&mut self, units: Range<u32>, width: u32) -> Option<()> {
        let is_alone = self.parts.len() == 1;
        let Band { refines, shift, .. } = self.blocks.band;
        for (x, y) in positions(units, width) {
            for part in &mut self.parts {
                let component = &mut self.frame.components[part.component];
                let (wide, high) = if is_alone { (1, 1) } else { component.sampling };
                let dc = || self.tables.dc.get(part.dc)?.as_ref();
                for at in (0..high).flat_map(|j| (0..wide).map(move |i| (x * wide + i, y * high + j))) {
                    let mean = match refines {
                        true => (self.bits.take(1) << shift) as i16,
                        false => {
                            let mean = blocks::mean(&mut self.bits, dc()?, &mut part.mean)?;
                            (i32::from(mean) << shift) as i16
                        }
                    };
                    if self.bits.is_past_end() {
                        return None;
                    }
                    if let Some(first) = component.part.coefficients_of(at).first_mut() {
                        *first = if refines { *first | mean } else { mean };
                    }
                    *self.has_blocks = true;
                }
            }
        }
        Some(())
    }
}

/// Column and row of each unit; a row has `width` of them.
fn positions(units: Range<u32>, width: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut next = (units.start % width, units.start / width);
    units.map(move |_| {
        let (x, y) = next;
        next = if x + 1 == width { (0, y + 1) } else { (x + 1, y) };
        (x, y)
    })
}

/// Decodes a block of a sequential picture. `block` is all zeros before and after.
#[inline(always)]
fn sequential(
    bits: &mut Bits<'_>,
    (dc, ac): (&Table, &Table),
    before: &mut i32,
    component: &mut Component,
    at: (u32, u32),
    block: &mut [i16; 64],
) -> Option<()> {
    let mean = blocks::mean(bits, dc, before)?;
    if !component.part.contains(at) {
        bits.skip_coefficients(ac, 1)?;
        return (!bits.is_past_end()).then_some(());
    }
    let coefficients = &mut block[..component.part.stored()];
    coefficients[0] = mean;
    let used = blocks::others(bits, ac, coefficients);
    if let (Some(used), Some(quantisation), false) = (used, &component.quantisation, bits.is_past_end()) {
        component.part.put(at, &coefficients[..used], quantisation);
        coefficients[..used].fill(0);
        return Some(());
    }
    coefficients.fill(0);
    None
}

/// Decodes coefficients of blocks of a component of a progressive picture.
#[inline(never)] // As `Scan::sequential`.
fn progressive(
    bits: &mut Bits<'_>,
    blocks: &mut Progressive,
    component: &mut Component,
    table: &Table,
    units: Range<u32>,
    width: u32,
) -> Option<()> {
    let grid = component.grid.0;
    for at in positions(units, width) {
        let nonzero = component.nonzero.get_mut((at.1 * grid + at.0) as usize)?;
        let block = Stored { coefficients: component.part.coefficients_of(at), nonzero };
        if blocks.band.refines {
            blocks.refined(bits, table, block)?;
        } else {
            blocks.first(bits, table, block)?;
        }
        if bits.is_past_end() {
            return None;
        }
    }
    Some(())
}
