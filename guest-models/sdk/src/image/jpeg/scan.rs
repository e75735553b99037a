//! Scans: the blocks of one or several components in order, between restart markers.

use std::array::from_fn;
use std::ops::Range;

use super::Jpeg;
use super::bits::{Bits, Codes, Table, next_marker};
use super::blocks::{self, Band, Progressive, Stored};
use super::frame::{Component, Frame};
use super::transform;

/// Maximum number of scans in a file. Encoders write up to ten.
const MAX_SCANS: u32 = 100;

/// Number of blocks of a component from which tables for skipping coefficients pay.
const MANY_BLOCKS: u32 = 20_000;

/// A component in a scan, with the indices of its tables.
struct Part {
    component: usize,
    dc: usize,
    ac: usize,
    /// DC coefficient of the block before.
    dc_before: i16,
}

/// A scan in progress.
struct Scan<'s, 'f> {
    bits: Bits<'f>,
    frame: &'s mut Frame,
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
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
            Some(Part { component, dc, ac, dc_before: 0 })
        };
        let parts = selectors.chunks_exact(2).map(part).collect::<Option<Vec<_>>>()?;
        let band: [u8; 3] = band.try_into().ok()?;
        let band = match frame.is_progressive {
            true => Band::read(band, parts.len())?,
            false => Band::SEQUENTIAL,
        };
        if self.scans > MAX_SCANS || parts.is_empty() || parts.len() > 4 {
            return None;
        }
        let mut is_next = true;
        for part in &parts {
            let component = &mut frame.components[part.component];
            // Decoders differ in bits that a file contains twice, or out of order.
            for lowest in &mut component.lowest_bits[band.first as usize..=band.last as usize] {
                is_next &= *lowest == band.before;
                *lowest = Some(band.shift);
            }
            if component.quantisation.is_none() {
                component.quantisation = self.tables.quantisation.get(usize::from(component.table))?.clone();
                let largest = *component.quantisation.as_ref()?.iter().max()?;
                component.part.max_skipped = (transform::MAX_NORM / largest.max(1)).into();
            }
        }
        let is_large = parts.iter().any(|part| {
            let (width, height) = frame.components[part.component].grid;
            width * height >= MANY_BLOCKS
        });
        let is_used = |index: usize, of: fn(&Part) -> usize| parts.iter().any(|part| of(part) == index);
        let tables = |codes: &[Option<Codes>; 4], of: fn(&Part) -> usize, has_many_blocks: bool| {
            from_fn(|index| {
                let codes = codes[index].as_ref().filter(|_| is_used(index, of))?;
                Some(Table::new(codes, has_many_blocks))
            })
        };
        let mut scan = Scan {
            bits: Bits::new(data),
            dc: tables(&self.tables.dc, |part| part.dc, false),
            ac: tables(&self.tables.ac, |part| part.ac, is_large && !frame.is_progressive),
            frame,
            parts,
            blocks: Progressive { band, eob_run: 0 },
            has_blocks: &mut self.has_blocks,
            block: [0; 64],
        };
        let is_whole = scan.intervals(self.tables.restart_interval);
        Some((scan.bits.rest(), is_whole && is_next))
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
            self.blocks.eob_run = 0;
            self.parts.iter_mut().for_each(|part| part.dc_before = 0);
        }
    }

    /// Decodes units (MCU): blocks, or one group of blocks of each component; a row has `width` of
    /// them.
    fn units(&mut self, units: Range<u32>, width: u32) -> Option<()> {
        if let ([part], true) = (&mut *self.parts, self.frame.is_progressive) {
            let component = &mut self.frame.components[part.component];
            return match (self.blocks.band.first, self.ac.get(part.ac)) {
                (0, _) => self.progressive_dc(units, width),
                (_, Some(Some(table))) => {
                    let blocks = &mut self.blocks;
                    progressive_ac(&mut self.bits, blocks, component, table, units, width)?;
                    *self.has_blocks = true;
                    Some(())
                }
                _ => None,
            };
        }
        match self.frame.is_progressive {
            true => self.progressive_dc(units, width),
            false => self.sequential(units, width),
        }
    }

    /// Decodes units of a sequential picture.
    #[inline(never)] // Inlined, its loops would share the registers of much other code.
    fn sequential(&mut self, units: Range<u32>, width: u32) -> Option<()> {
        let is_alone = self.parts.len() == 1;
        let tables = |part: &Part| Some((self.dc.get(part.dc)?.as_ref()?, self.ac.get(part.ac)?.as_ref()?));
        let tables = self.parts.iter().map(tables).collect::<Option<Vec<_>>>()?;
        for (x, y) in positions(units, width) {
            for (part, &tables) in self.parts.iter_mut().zip(&tables) {
                let component = &mut self.frame.components[part.component];
                let (wide, high) = if is_alone { (1, 1) } else { component.sampling };
                for j in 0..high {
                    for i in 0..wide {
                        let at = (x * wide + i, y * high + j);
                        sequential(
                            &mut self.bits,
                            tables,
                            &mut part.dc_before,
                            component,
                            at,
                            &mut self.block,
                        )?;
                    }
                }
            }
            *self.has_blocks = true;
        }
        Some(())
    }

    /// Decodes DC coefficients of a progressive picture.
    fn progressive_dc(&mut self, units: Range<u32>, width: u32) -> Option<()> {
        let is_alone = self.parts.len() == 1;
        let Band { before, shift, .. } = self.blocks.band;
        let refines = before.is_some();
        for (x, y) in positions(units, width) {
            for part in &mut self.parts {
                let component = &mut self.frame.components[part.component];
                let (wide, high) = if is_alone { (1, 1) } else { component.sampling };
                let table = || self.dc.get(part.dc)?.as_ref();
                for at in (0..high).flat_map(|j| (0..wide).map(move |i| (x * wide + i, y * high + j))) {
                    let dc = match refines {
                        true => (self.bits.take(1) << shift) as i16,
                        false => {
                            let dc = blocks::dc(&mut self.bits, table()?, &mut part.dc_before)?;
                            (i32::from(dc) << shift) as i16
                        }
                    };
                    if self.bits.is_past_end() {
                        return None;
                    }
                    if let Some(first) = component.part.coefficients_of(at).0.first_mut() {
                        *first = if refines { *first | dc } else { dc };
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
    before: &mut i16,
    component: &mut Component,
    at: (u32, u32),
    block: &mut [i16; 64],
) -> Option<()> {
    let dc = blocks::dc(bits, dc, before)?;
    if !component.part.contains(at) {
        bits.skip_coefficients(ac, 1)?;
        return (!bits.is_past_end()).then_some(());
    }
    let coefficients = &mut block[..component.part.stored()];
    coefficients[0] = dc;
    let start = *bits;
    let read = blocks::ac(bits, ac, coefficients);
    if let (Some((used, skipped)), Some(quantisation), false) =
        (read, &component.quantisation, bits.is_past_end())
    {
        if skipped > component.part.max_skipped {
            component.part.is_excessive |= ac_energy(start, ac, quantisation) > transform::MAX_ENERGY;
        }
        component.part.put(at, &coefficients[..used], quantisation);
        coefficients[..used].fill(0);
        return Some(());
    }
    coefficients.fill(0);
    None
}

/// Energy of the AC coefficients of a block in a sequential file.
#[cold]
#[inline(never)]
fn ac_energy(mut bits: Bits<'_>, table: &Table, quantisation: &[u16; 64]) -> f32 {
    let mut block = [0; 64];
    blocks::ac(&mut bits, table, &mut block);
    let energies = block.iter().zip(quantisation);
    energies.map(|(&value, &quantisation)| transform::energy(value.into(), quantisation)).sum()
}

/// Decodes AC coefficients of blocks of a component of a progressive picture.
#[inline(never)] // As `Scan::sequential`.
fn progressive_ac(
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
        let (coefficients, energy) = component.part.coefficients_of(at);
        let block = Stored { coefficients, nonzero, energy: energy.zip(component.quantisation.as_deref()) };
        if blocks.band.before.is_some() {
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
