//! Blocks of a scan: reads their coefficients (ITU-T T.81, annexes F and G).

use super::bits::{Bits, Table};
use super::transform;

/// Highest position of a scan's lowest bit, as in libjpeg.
const MAX_SHIFT: u32 = 13;

/// Coefficients in a scan, and their bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub(super) first: u32,
    pub(super) last: u32,
    /// Position of the lowest bit in the scan before, if this one adds a bit to its coefficients.
    pub(super) before: Option<u32>,
    /// Position of the scan's lowest bit.
    pub(super) shift: u32,
}

impl Band {
    /// All bits of all coefficients.
    pub(super) const SEQUENTIAL: Band = Band { first: 0, last: 63, before: None, shift: 0 };

    /// Reads the end of a scan's header in a progressive file; `None` if it is invalid.
    pub(super) fn read([first, last, bits]: [u8; 3], components: usize) -> Option<Band> {
        let is_valid = match first {
            0 => last == 0,
            _ => first <= last && last < 64 && components == 1,
        };
        let (before, shift) = (Some(u32::from(bits >> 4)).filter(|&bit| bit > 0), u32::from(bits & 15));
        let is_valid = is_valid && shift <= MAX_SHIFT && before.is_none_or(|before| before == shift + 1);
        is_valid.then_some(Band { first: first.into(), last: last.into(), before, shift })
    }
}

/// Coefficients of a block of a progressive file: the first few in the order of scans, and which of
/// all are not 0.
pub(super) struct Stored<'c> {
    pub(super) coefficients: &'c mut [i16],
    pub(super) nonzero: &'c mut u64,
    /// Energy of those that are not stored, and the quantisation.
    pub(super) energy: Option<(&'c mut f32, &'c [u16; 64])>,
}

impl Stored<'_> {
    /// Sets a coefficient to its first bits. For its energy, the following scans, which add those
    /// below `bit`, are assumed to add a half of them.
    #[inline(always)]
    fn set(&mut self, at: u32, value: i16, bit: i32) {
        *self.nonzero |= u64::from(value != 0) << at;
        if let Some(coefficient) = self.coefficients.get_mut(at as usize) {
            *coefficient = value;
        } else if let Some((energy, quantisation)) = &mut self.energy {
            let magnitude = i32::from(value).abs() + (bit - 1) / 2;
            **energy += transform::energy(magnitude, quantisation[at as usize & 63]);
        }
    }
}

/// Reads the DC coefficient of a block, as the difference to that of the block before.
#[inline(always)]
pub(super) fn dc(bits: &mut Bits<'_>, table: &Table, before: &mut i16) -> Option<i16> {
    let (0, difference) = bits.coefficient(table)? else { return None };
    *before = i16::try_from(i32::from(*before) + difference).ok()?;
    Some(*before)
}

/// Reads the AC coefficients of a block in a sequential file, stores the first ones in
/// `coefficients`, in the order of scans, and returns the number of those up to the last that is
/// not 0, and a bound of the sum of the others' magnitudes.
#[inline(always)]
pub(super) fn ac(bits: &mut Bits<'_>, table: &Table, coefficients: &mut [i16]) -> Option<(usize, u32)> {
    let (mut at, mut used) = (1, 1);
    while at < coefficients.len() {
        let (zeros, value) = bits.coefficient(table)?;
        if value == 0 {
            if zeros < 15 {
                return Some((used, 0));
            }
            at += 16;
            continue;
        }
        at += zeros as usize;
        let Some(coefficient) = coefficients.get_mut(at) else {
            let sum = bits.skip_coefficients(table, at as u32 + 1)?;
            return Some((used, sum + value.unsigned_abs()));
        };
        *coefficient = value as i16;
        at += 1;
        used = at;
    }
    let sum = bits.skip_coefficients(table, at as u32)?;
    Some((used, sum))
}

/// Reader of the blocks of a scan of one component of a progressive file, in order.
pub(super) struct Progressive {
    pub(super) band: Band,
    /// Number of following blocks without codes of their own (EOB run).
    pub(super) eob_run: u32,
}

impl Progressive {
    /// Reads the first bits of coefficients.
    pub(super) fn first(&mut self, bits: &mut Bits<'_>, table: &Table, mut block: Stored<'_>) -> Option<()> {
        let bit = 1_i32 << self.band.shift;
        if self.eob_run > 0 {
            self.eob_run -= 1;
            return Some(());
        }
        let mut at = self.band.first;
        while at <= self.band.last {
            match bits.coefficient(table)? {
                (15, 0) => at += 16,
                (length, 0) => {
                    self.eob_run = (1 << length) - 1 + bits.take(length);
                    break;
                }
                (zeros, value) => {
                    at += zeros;
                    if at > self.band.last {
                        return None;
                    }
                    // A number that is too large may become 0.
                    block.set(at, (value << self.band.shift) as i16, bit);
                    at += 1;
                }
            }
        }
        Some(())
    }

    /// Reads one more bit of coefficients.
    pub(super) fn refined(
        &mut self,
        bits: &mut Bits<'_>,
        table: &Table,
        mut block: Stored<'_>,
    ) -> Option<()> {
        let bit = 1_i32 << self.band.shift;
        let mut at = self.band.first;
        while self.eob_run == 0 && at <= self.band.last {
            let symbol = bits.symbol(table)?;
            let (zeros, size) = (symbol >> 4, symbol & 15);
            let value = match (zeros, size) {
                (15, 0) => 0,
                (length, 0) => {
                    self.eob_run = (1 << length) + bits.take(length);
                    break;
                }
                (_, 1) if bits.take(1) == 1 => bit,
                (_, 1) => -bit,
                _ => return None,
            };
            // Nonzero coefficients before the next one have a bit each.
            let to = nth_zero(*block.nonzero, at, zeros).min(self.band.last + 1);
            refine(bits, block.coefficients, *block.nonzero, at..to, bit);
            at = to;
            if value != 0 {
                if at > self.band.last {
                    return None;
                }
                block.set(at, value as i16, bit);
            }
            at += 1;
        }
        if self.eob_run > 0 {
            refine(bits, block.coefficients, *block.nonzero, at..self.band.last + 1, bit);
            self.eob_run -= 1;
        }
        Some(())
    }
}

/// Position of the zero after `zeros` others in `nonzero`, at or after `from`; 64 or more if
/// `nonzero` has fewer zeros.
fn nth_zero(nonzero: u64, from: u32, zeros: u32) -> u32 {
    let mut free = !nonzero & (u64::MAX << from);
    for _ in 0..zeros {
        free &= free.wrapping_sub(1);
    }
    free.trailing_zeros()
}

/// Reads a bit of each nonzero coefficient at these positions.
#[inline(always)]
fn refine(
    bits: &mut Bits<'_>,
    coefficients: &mut [i16],
    nonzero: u64,
    positions: std::ops::Range<u32>,
    bit: i32,
) {
    if positions.is_empty() {
        return;
    }
    let mut left = nonzero & (u64::MAX << positions.start) & (u64::MAX >> (64 - positions.end));
    while left != 0 {
        let at = left.trailing_zeros() as usize;
        let Some(coefficient) = coefficients.get_mut(at) else { break };
        left &= left - 1;
        if bits.take(1) == 1 {
            let value = i32::from(*coefficient);
            *coefficient = (value + if value < 0 { -bit } else { bit }) as i16;
        }
    }
    let mut count = left.count_ones();
    while count > 0 {
        let step = count.min(16);
        bits.take(step);
        count -= step;
    }
}
