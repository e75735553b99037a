//! Blocks of a scan: reads the codes of their coefficients.

use super::bits::{Bits, Table};

/// Coefficients in a scan.
pub(super) struct Band {
    pub(super) first: u32,
    pub(super) last: u32,
    /// True if the scan adds a bit to coefficients of earlier scans.
    pub(super) refines: bool,
}

/// Reader of the blocks of a scan, in order.
pub(super) struct Blocks<'f> {
    bits: Bits<'f>,
    pub(super) band: Band,
    /// Number of following blocks without codes of their own.
    run: u32,
}

impl<'f> Blocks<'f> {
    pub(super) fn new(bits: Bits<'f>, band: Band) -> Self {
        Blocks { bits, band, run: 0 }
    }

    /// Continues after the restart marker of this number.
    pub(super) fn restart(&mut self, number: u32) -> Option<()> {
        self.run = 0;
        self.bits.restart(number)
    }

    /// Skips the bit that refines the mean of a block.
    pub(super) fn skip_bit(&mut self) -> Option<()> {
        self.bits.skip(1)
    }

    /// Data after the scan.
    pub(super) fn rest(&self) -> &'f [u8] {
        self.bits.rest
    }

    /// Reads the mean of a block.
    pub(super) fn mean(&mut self, table: &Table) -> Option<()> {
        let size = self.bits.symbol(table)?;
        self.bits.skip(Some(size.into()).filter(|size| *size <= 16)?)
    }

    /// Reads the other coefficients of a block in a sequential file.
    pub(super) fn others(&mut self, table: &Table) -> Option<()> {
        let mut at = 1;
        while at < 64 {
            let symbol = u32::from(self.bits.symbol(table)?);
            match (symbol >> 4, symbol & 15) {
                (15, 0) => at += 16,
                (_, 0) => return Some(()),
                (zeros, size) => {
                    at += zeros + 1;
                    self.bits.skip(size)?;
                }
            }
        }
        (at == 64).then_some(())
    }

    /// Reads the first bits of coefficients in a progressive file.
    pub(super) fn first(&mut self, table: &Table, nonzero: &mut u64) -> Option<()> {
        if self.run > 0 {
            self.run -= 1;
            return Some(());
        }
        let mut at = self.band.first;
        while at <= self.band.last {
            let symbol = u32::from(self.bits.symbol(table)?);
            match (symbol >> 4, symbol & 15) {
                (15, 0) => at += 16,
                (bits, 0) => {
                    self.run = (1 << bits) - 1 + self.bits.take(bits)?;
                    break;
                }
                (zeros, size) => {
                    at += zeros;
                    if at > self.band.last {
                        return None;
                    }
                    self.bits.skip(size)?;
                    *nonzero |= 1 << at;
                    at += 1;
                }
            }
        }
        Some(())
    }

    /// Reads one more bit of coefficients in a progressive file.
    pub(super) fn refined(&mut self, table: &Table, nonzero: &mut u64) -> Option<()> {
        let mut at = self.band.first;
        while self.run == 0 && at <= self.band.last {
            let symbol = u32::from(self.bits.symbol(table)?);
            let (mut zeros, size) = (symbol >> 4, symbol & 15);
            match (zeros, size) {
                (15, 0) => {}
                (bits, 0) => {
                    self.run = (1 << bits) + self.bits.take(bits)?;
                    break;
                }
                (_, 1) => self.bits.skip(1)?,
                _ => return None,
            }
            // Nonzero coefficients before the next one have a bit each.
            while at <= self.band.last {
                if *nonzero >> at & 1 == 1 {
                    self.bits.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if size == 1 {
                *nonzero |= 1 << Some(at).filter(|at| *at <= self.band.last)?;
            }
            at += 1;
        }
        if self.run > 0 {
            for at in at..=self.band.last {
                self.bits.skip((*nonzero >> at & 1) as u32)?;
            }
            self.run -= 1;
        }
        Some(())
    }
}
