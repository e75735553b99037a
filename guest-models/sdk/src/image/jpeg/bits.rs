//! Markers, bits and Huffman codes of a JPEG file.

/// A Huffman table of a file: the number of codes of each length, and their values in order.
pub(super) struct Codes {
    counts: [u8; 16],
    values: [u8; 256],
}

impl Codes {
    /// Reads a table, and returns the data after it; `None` if it is invalid.
    pub(super) fn read(segment: &[u8]) -> Option<(Codes, &[u8])> {
        let (counts, rest) = segment.split_first_chunk::<16>()?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let (found, rest) = rest.split_at_checked(total)?;
        let mut values = [0; 256];
        values.get_mut(..total)?.copy_from_slice(found);
        // Each length has twice the codes that the one before left.
        counts.iter().try_fold(1_u32, |left, &count| (2 * left).checked_sub(count.into()))?;
        Some((Codes { counts: *counts, values }, rest))
    }
}

/// Lookup tables of Huffman codes.
pub(super) struct Table {
    /// By the next bits: length, and value from bit 8; 0 if the code is longer.
    short: Box<[u16; 1 << SHORT_BITS]>,
    /// By the next bits, for codes of coefficients: length with the coefficient's bits, number of
    /// zeros before it from bit 8, coefficient from bit 16; 0 if they are longer.
    coefficients: Box<[i32; 1 << SHORT_BITS]>,
    /// By the next bits: length of as many whole codes of a block as they contain, with their
    /// coefficients' bits; number of those coefficients from bit 4, from bit 10 if a code ends the
    /// block, and from bit 11 the sum of their largest magnitudes. 0 if they contain none, or if
    /// the picture is too small for it to pay.
    skips: Box<[u16; 1 << SKIP_BITS]>,
    /// By length: the first code after those of this length, and its index minus that code.
    ends: [(u32, i32); 17],
    values: [u8; 256],
}

/// Maximum length of a code in the lookup tables.
const SHORT_BITS: u32 = 10;

/// Number of bits by which codes are skipped.
const SKIP_BITS: u32 = 12;

impl Table {
    /// Computes the tables, with those to skip coefficients if many blocks follow.
    pub(super) fn new(codes: &Codes, has_many_blocks: bool) -> Table {
        let mut table = Table {
            short: Box::new([0; 1 << SHORT_BITS]),
            coefficients: Box::new([0; 1 << SHORT_BITS]),
            skips: Box::new([0; 1 << SKIP_BITS]),
            ends: [(0, 0); 17],
            values: codes.values,
        };
        let (mut code, mut index) = (0_u32, 0_u32);
        for (length, &count) in (1_u32..).zip(&codes.counts) {
            for _ in 0..count {
                if length <= SHORT_BITS {
                    let free = SHORT_BITS - length;
                    let entry = u16::from(codes.values[index as usize]) << 8 | length as u16;
                    table.short[(code << free) as usize..][..1 << free].fill(entry);
                }
                (code, index) = (code + 1, index + 1);
            }
            table.ends[length as usize] = (code, index as i32 - code as i32);
            code <<= 1;
        }
        for (next, (entry, short)) in (0_u32..).zip(table.coefficients.iter_mut().zip(&*table.short)) {
            let (length, value) = (u32::from(short & 0xff), u32::from(short >> 8));
            let (zeros, size) = (value >> 4, value & 15);
            if length > 0 && length + size <= SHORT_BITS {
                let bits = next >> (SHORT_BITS - length - size) & ((1 << size) - 1);
                *entry = signed(bits, size) << 16 | (zeros << 8 | (length + size)) as i32;
            }
        }
        if has_many_blocks {
            for (next, skip) in (0..).zip(table.skips.iter_mut()) {
                *skip = skipped(&table.short, next);
            }
        }
        table
    }
}

/// The entry of [`Table::skips`] for the next bits.
fn skipped(short: &[u16; 1 << SHORT_BITS], next: u32) -> u16 {
    let (mut bits, mut count, mut sum) = (0, 0, 0);
    loop {
        let code = next << (32 - SKIP_BITS) << bits >> (32 - SHORT_BITS);
        let code = u32::from(short[code as usize]);
        let (length, zeros, size) = (code & 0xff, code >> 12, code >> 8 & 15);
        let (is_end, magnitude) = (size == 0 && zeros < 15, max_magnitude(size));
        let is_too_many = !is_end && count + zeros + 1 > 63 || sum + magnitude > 31;
        if code == 0 || bits + length + size > SKIP_BITS || is_too_many {
            return (sum << 11 | count << 4 | bits) as u16;
        }
        bits += length + size;
        if is_end {
            return (sum << 11 | 1 << 10 | count << 4 | bits) as u16;
        }
        count += zeros + 1;
        sum += magnitude;
    }
}

/// Largest magnitude of a coefficient with this number of bits.
fn max_magnitude(size: u32) -> u32 {
    (1 << size) - 1
}

/// Value of a coefficient with these bits: those that start with 0 are negative.
fn signed(bits: u32, size: u32) -> i32 {
    let is_negative = size > 0 && bits >> (size - 1) == 0;
    bits as i32 - if is_negative { (1 << size) - 1 } else { 0 }
}

/// Reader of the bits of a scan, up to the next marker.
///
/// Codes may be read past the end: [`Bits::is_past_end`] tells.
#[derive(Clone, Copy)]
pub(super) struct Bits<'f> {
    rest: &'f [u8],
    /// The highest `count` bits are unread; those behind are part of the next byte or 0.
    buffer: u64,
    /// Negative if more bits were read than exist.
    count: i32,
}

impl<'f> Bits<'f> {
    pub(super) fn new(rest: &'f [u8]) -> Self {
        Bits { rest, buffer: 0, count: 0 }
    }

    /// Data after the bits, of which some may be unread.
    pub(super) fn rest(&self) -> &'f [u8] {
        self.rest
    }

    /// True if more bits were read than the scan has.
    pub(super) fn is_past_end(&self) -> bool {
        self.count < 0
    }

    /// Fills the buffer with 32 bits at least, unless the scan ends.
    #[inline(always)]
    fn fill(&mut self) {
        if self.count < 32 {
            if let Some(chunk) = self.rest.first_chunk::<8>() {
                let next = u64::from_be_bytes(*chunk);
                // No byte is 0xff: none of the complement's is 0.
                if (!next).wrapping_sub(0x0101_0101_0101_0101) & next & 0x8080_8080_8080_8080 == 0 {
                    self.buffer |= next >> self.count;
                    let bytes = (63 - self.count) as usize >> 3;
                    self.rest = &self.rest[bytes..];
                    self.count |= 56;
                    return;
                }
            }
            self.fill_bytewise();
        }
    }

    #[cold]
    #[inline(never)]
    fn fill_bytewise(&mut self) {
        while (0..=56).contains(&self.count) {
            let byte = match *self.rest {
                [0xff, 0, ref behind @ ..] => {
                    self.rest = behind;
                    0xff
                }
                [0xff, ..] | [] => return,
                [byte, ref behind @ ..] => {
                    self.rest = behind;
                    byte
                }
            };
            self.buffer |= u64::from(byte) << 56 >> self.count;
            self.count += 8;
        }
    }

    #[inline(always)]
    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits as i32;
    }

    /// Reads a number of up to 16 bits from a filled buffer.
    #[inline(always)]
    fn number(&mut self, bits: u32) -> u32 {
        let number = (self.buffer >> 1 >> (63 - bits)) as u32;
        self.skip(bits);
        number
    }

    /// Reads a code from a filled buffer, and returns its value; 16 bits are left in the buffer.
    #[inline(always)]
    fn value(&mut self, table: &Table) -> Option<u32> {
        let short = table.short[(self.buffer >> (64 - SHORT_BITS)) as usize];
        if short != 0 {
            self.skip(u32::from(short & 0xff));
            return Some(u32::from(short >> 8));
        }
        self.long_value(table)
    }

    #[cold]
    #[inline(never)]
    fn long_value(&mut self, table: &Table) -> Option<u32> {
        let next = (self.buffer >> 48) as u32;
        let length =
            (SHORT_BITS + 1..=16).find(|&length| next >> (16 - length) < table.ends[length as usize].0)?;
        let index = (next >> (16 - length)) as i32 + table.ends[length as usize].1;
        self.skip(length);
        table.values.get(usize::try_from(index).ok()?).map(|&value| value.into())
    }

    /// Reads a code, and returns its value.
    #[inline(always)]
    pub(super) fn symbol(&mut self, table: &Table) -> Option<u32> {
        self.fill();
        self.value(table)
    }

    /// Reads a number of up to 16 bits.
    #[inline(always)]
    pub(super) fn take(&mut self, bits: u32) -> u32 {
        self.fill();
        self.number(bits)
    }

    /// Reads the next coefficient: the upper four bits of its code, which are the number of zeros
    /// before it, and the coefficient; 0 for a code that has none.
    #[inline(always)]
    pub(super) fn coefficient(&mut self, table: &Table) -> Option<(u32, i32)> {
        self.fill();
        let entry = table.coefficients[(self.buffer >> (64 - SHORT_BITS)) as usize];
        if entry != 0 {
            self.skip(entry as u32 & 0xff);
            return Some((entry as u32 >> 8 & 0xff, entry >> 16));
        }
        let value = self.value(table)?;
        let (zeros, size) = (value >> 4, value & 15);
        Some((zeros, signed(self.number(size), size)))
    }

    /// Reads over the coefficients of a block in a sequential file from this one. Returns the sum
    /// of the largest magnitudes that their sizes permit.
    #[inline(always)]
    pub(super) fn skip_coefficients(&mut self, table: &Table, mut at: u32) -> Option<u32> {
        let mut sum = 0;
        while at < 64 {
            self.fill();
            let skip = u32::from(table.skips[(self.buffer >> (64 - SKIP_BITS)) as usize]);
            let behind = at + (skip >> 4 & 63);
            if skip != 0 && behind < 64 {
                self.skip(skip & 15);
                sum += skip >> 11;
                if skip >> 10 & 1 != 0 {
                    return Some(sum);
                }
                at = behind;
                continue;
            }
            let value = self.value(table)?;
            let (zeros, size) = (value >> 4, value & 15);
            self.skip(size);
            if size == 0 && zeros < 15 {
                return Some(sum);
            }
            at += zeros + 1;
            sum += max_magnitude(size);
        }
        (at == 64).then_some(sum)
    }
}

/// Returns the next marker and the data after it. Skips fill bytes, and bytes outside of segments.
pub(super) fn next_marker(mut rest: &[u8]) -> Option<(u8, &[u8])> {
    loop {
        rest = &rest[rest.iter().position(|&byte| byte == 0xff)?..];
        match rest {
            [_, 0xff, ..] => rest = &rest[1..],
            [_, 0, behind @ ..] => rest = behind,
            [_, marker, behind @ ..] => return Some((*marker, behind)),
            _ => return None,
        }
    }
}
