//! The frame of a JPEG file: its components, their sizes at a scale, and their samples.

use super::super::picture::Region;
use super::transform;

/// Size, kind and components of a picture.
pub(super) struct Frame {
    pub(super) size: (u32, u32),
    pub(super) is_progressive: bool,
    pub(super) components: Vec<Component>,
    /// Largest sampling factors of all components.
    pub(super) max: (u32, u32),
}

/// A channel, and what is decoded of it.
pub(super) struct Component {
    pub(super) id: u8,
    /// Number of its blocks in a unit of an interleaved scan, along both axes.
    pub(super) sampling: (u32, u32),
    /// Index of its quantisation table.
    pub(super) table: u8,
    /// The table, as it was at the first scan.
    pub(super) quantisation: Option<Box<[u16; 64]>>,
    /// Position of the lowest bit that the scans so far contain of each coefficient, in the order
    /// of scans; `None` before the first one.
    pub(super) lowest_bits: [Option<u32>; 64],
    /// Blocks that a scan of all components has.
    pub(super) grid: (u32, u32),
    /// Bits of the nonzero coefficients of each block of the grid, in a progressive file.
    pub(super) nonzero: Vec<u64>,
    /// The part that is decoded.
    pub(super) part: Part,
}

/// Blocks of a component that are decoded, and their samples.
#[derive(Default)]
pub(super) struct Part {
    /// The first block, and the first behind the last, along both axes.
    pub(super) from: (u32, u32),
    pub(super) to: (u32, u32),
    /// Samples per block along an axis.
    pub(super) side: u32,
    /// Size of the whole component at the scale, in samples.
    pub(super) size: (u32, u32),
    /// Coefficients of each block, in the order of scans, of a progressive file.
    pub(super) coefficients: Vec<i16>,
    /// Samples row by row, of whole blocks.
    pub(super) samples: Vec<u8>,
    /// Sum of magnitudes of a block's coefficients that are not stored, up to which their energy is
    /// within [`transform::MAX_ENERGY`] for certain.
    pub(super) max_skipped: u32,
    /// Energy of each block's coefficients that are not stored, in a progressive file.
    pub(super) energies: Vec<f32>,
    /// True if a number is so large that decoders differ in the picture.
    pub(super) is_excessive: bool,
}

/// Sample of a component without data.
const GREY: u8 = 128;

impl Frame {
    /// Reads the header of a frame; `None` if it is invalid.
    pub(super) fn read(segment: &[u8], is_progressive: bool) -> Option<Frame> {
        let [8, y0, y1, x0, x1, count, components @ ..] = segment else { return None };
        let read = |component: &[u8]| Component {
            id: component[0],
            sampling: (u32::from(component[1] >> 4), u32::from(component[1] & 15)),
            table: component[2],
            quantisation: None,
            lowest_bits: [None; 64],
            grid: (0, 0),
            nonzero: Vec::new(),
            part: Part::default(),
        };
        if components.len() != 3 * usize::from(*count) {
            return None;
        }
        let mut components: Vec<_> = components.chunks_exact(3).map(read).collect();
        let is_valid = |&(x, y): &(u32, u32)| (1..=4).contains(&x) && (1..=4).contains(&y);
        if !components.iter().all(|component| is_valid(&component.sampling)) {
            return None;
        }
        let max = |axis: fn(&Component) -> u32| components.iter().map(axis).max();
        let max = (max(|component| component.sampling.0)?, max(|component| component.sampling.1)?);
        let side = |high: &u8, low: &u8| u32::from(u16::from_be_bytes([*high, *low]));
        let size = (side(x0, x1), side(y0, y1));
        for component in &mut components {
            let blocks = |size: u32, own: u32, max: u32| size.div_ceil(8 * max) * own;
            let (x, y) = component.sampling;
            component.grid = (blocks(size.0, x, max.0), blocks(size.1, y, max.1));
        }
        Some(Frame { size, is_progressive, components, max })
    }

    /// True if a component has more samples along an axis than the first.
    pub(super) fn samples_chroma_more_finely(&self) -> bool {
        self.components.first().is_some_and(|first| first.sampling != self.max)
    }

    /// True if the scans contained DC coefficients of each component.
    pub(super) fn is_complete(&self) -> bool {
        self.components.iter().all(|component| component.lowest_bits[0].is_some())
    }

    /// Number of blocks of a component along both axes, in a scan of that component only.
    pub(super) fn blocks(&self, component: &Component) -> (u32, u32) {
        let blocks = |size: u32, own: u32, max: u32| (size * own).div_ceil(8 * max);
        let (x, y) = component.sampling;
        (blocks(self.size.0, x, self.max.0), blocks(self.size.1, y, self.max.1))
    }

    /// Number of units of a scan of several components, along both axes.
    pub(super) fn units(&self) -> (u32, u32) {
        (self.size.0.div_ceil(8 * self.max.0), self.size.1.div_ceil(8 * self.max.1))
    }

    /// Size of the picture at a scale in eighths.
    pub(super) fn scaled(&self, scale: u32) -> (u32, u32) {
        ((self.size.0 * scale).div_ceil(8), (self.size.1 * scale).div_ceil(8))
    }

    /// Prepares to decode a window of the picture at a scale. Returns the bytes that it takes.
    pub(super) fn select(&mut self, scale: u32, window: Region) -> u64 {
        // Upsampling reads the samples around a pixel.
        const AROUND: u32 = 2;
        let units = self.units();
        let range = |start: u32, length: u32, unit: u32, units: u32| {
            let from = start.saturating_sub(AROUND) / unit;
            (from, (start + length + AROUND).div_ceil(unit).clamp(from + 1, units.max(from + 1)))
        };
        let x = range(window.left, window.width, self.max.0 * scale, units.0);
        let y = range(window.top, window.height, self.max.1 * scale, units.1);
        let (size, max, is_progressive) = (self.size, self.max, self.is_progressive);
        let mut bytes = 0;
        for component in &mut self.components {
            let sampling = component.sampling;
            let doubles = |side: u32| {
                side < 8
                    && (max.0 * scale) % (2 * sampling.0 * side) == 0
                    && (max.1 * scale) % (2 * sampling.1 * side) == 0
            };
            let mut side = scale;
            while doubles(side) {
                side *= 2;
            }
            let length = |size: u32, own: u32, max: u32| (size * own * side).div_ceil(8 * max);
            component.part = Part {
                from: (x.0 * sampling.0, y.0 * sampling.1),
                to: (x.1 * sampling.0, y.1 * sampling.1),
                side,
                size: (length(size.0, sampling.0, max.0), length(size.1, sampling.1, max.1)),
                ..Part::default()
            };
            let part = &component.part;
            let energy = if side < 8 { 4 } else { 0 };
            let stored = if is_progressive { 2 * part.stored() as u64 + energy } else { 0 };
            bytes += part.blocks() * (stored + u64::from(side * side));
            if is_progressive {
                bytes += 8 * u64::from(component.grid.0) * u64::from(component.grid.1);
            }
        }
        bytes
    }

    /// Takes the memory for the selected part.
    pub(super) fn allocate(&mut self) {
        for component in &mut self.components {
            let part = &mut component.part;
            let blocks = part.blocks() as usize;
            if self.is_progressive {
                component.nonzero = vec![0; component.grid.0 as usize * component.grid.1 as usize];
                part.coefficients = vec![0; blocks * part.stored()];
                part.energies = vec![0.0; if part.side < 8 { blocks } else { 0 }];
            } else {
                part.samples = vec![GREY; blocks * (part.side * part.side) as usize];
            }
        }
    }

    /// Computes the samples of a progressive picture, one component after the other, so that the
    /// samples of one take the place of another's coefficients.
    pub(super) fn transform(&mut self) {
        for component in &mut self.components {
            component.nonzero = Vec::new();
            let part = &mut component.part;
            let coefficients = std::mem::take(&mut part.coefficients);
            let energies = std::mem::take(&mut part.energies);
            part.is_excessive |= energies.into_iter().any(|energy| energy > transform::MAX_ENERGY);
            part.samples = vec![GREY; part.blocks() as usize * (part.side * part.side) as usize];
            let Some(quantisation) = component.quantisation.take() else { continue };
            let mut blocks = coefficients.chunks_exact(part.stored());
            for y in part.from.1..part.to.1 {
                for x in part.from.0..part.to.0 {
                    let Some(block) = blocks.next() else { break };
                    let used = block.iter().rposition(|&value| value != 0).map_or(0, |last| last + 1);
                    part.put((x, y), &block[..used], &quantisation);
                }
            }
        }
    }
}

impl Part {
    /// Number of blocks.
    fn blocks(&self) -> u64 {
        u64::from(self.to.0 - self.from.0) * u64::from(self.to.1 - self.from.1)
    }

    /// Number of coefficients of a block that are stored.
    pub(super) fn stored(&self) -> usize {
        transform::coefficients(self.side)
    }

    /// True if the block is decoded.
    #[inline(always)]
    pub(super) fn contains(&self, (x, y): (u32, u32)) -> bool {
        (self.from.0..self.to.0).contains(&x) && (self.from.1..self.to.1).contains(&y)
    }

    /// Samples per row.
    pub(super) fn stride(&self) -> usize {
        (self.to.0 - self.from.0) as usize * self.side as usize
    }

    /// The stored coefficients of a block, and the energy of the others; none of a block that is
    /// not decoded.
    pub(super) fn coefficients_of(&mut self, (x, y): (u32, u32)) -> (&mut [i16], Option<&mut f32>) {
        if !self.contains((x, y)) {
            return (&mut [], None);
        }
        let index = (y - self.from.1) as usize * (self.to.0 - self.from.0) as usize;
        let (stored, index) = (self.stored(), index + (x - self.from.0) as usize);
        (&mut self.coefficients[index * stored..][..stored], self.energies.get_mut(index))
    }

    /// Stores the samples of a block that is decoded.
    #[inline(always)]
    pub(super) fn put(&mut self, (x, y): (u32, u32), coefficients: &[i16], quantisation: &[u16; 64]) {
        let (stride, side) = (self.stride(), self.side as usize);
        let start = (y - self.from.1) as usize * side * stride + (x - self.from.0) as usize * side;
        let rows = &mut self.samples[start..];
        self.is_excessive |= transform::samples(coefficients, quantisation, self.side, rows, stride);
    }

    /// A row of samples of the whole component at the scale, clamped to its height, and the number
    /// of its first sample.
    pub(super) fn row(&self, y: u32) -> (&[u8], u32) {
        let first = self.from.1 * self.side;
        let y = y.min(self.size.1.saturating_sub(1)).saturating_sub(first) as usize;
        let row = &self.samples[y * self.stride()..][..self.stride()];
        let start = self.from.0 * self.side;
        // Samples behind the picture are not part of it.
        let length = (self.size.0.max(start + 1) - start).min(row.len() as u32);
        (&row[..length as usize], start)
    }
}
