//! Markers, bits and Huffman codes of a JPEG file.

/// Codes of up to 16 bits and their values.
pub(super) struct Table {
    /// Length and value of a code by the next bits; 0 if the code is longer.
    short: Box<[u16; 1 << SHORT_BITS]>,
    /// By length: the first code after those of this length, and its index minus that code.
    ends: [(u32, i32); 17],
    values: [u8; 256],
}

/// Maximum length of a code in the lookup table.
const SHORT_BITS: u32 = 9;

impl Table {
    pub(super) fn read(segment: &[u8]) -> Option<(Table, &[u8])> {
        let (counts, rest) = segment.split_first_chunk::<16>()?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let (found, rest) = rest.split_at_checked(total)?;
        let mut values = [0; 256];
        values.get_mut(..total)?.copy_from_slice(found);
        let mut table = Table { short: Box::new([0; 1 << SHORT_BITS]), ends: [(0, 0); 17], values };
        let (mut code, mut index) = (0_u32, 0_u32);
        for (length, &count) in (1_u32..).zip(counts) {
            for _ in 0..count {
                // There are more codes than this length permits.
                if code >> length != 0 {
                    return None;
                }
                if length <= SHORT_BITS {
                    let free = SHORT_BITS - length;
                    let entry = (length as u16) << 8 | u16::from(values[index as usize]);
                    table.short[(code << free) as usize..][..1 << free].fill(entry);
                }
                (code, index) = (code + 1, index + 1);
            }
            table.ends[length as usize] = (code, index as i32 - code as i32);
            code <<= 1;
        }
        Some((table, rest))
    }
}

/// Reader of the bits of a scan, up to the next marker.
pub(super) struct Bits<'f> {
    pub(super) rest: &'f [u8],
    /// The lowest `count` bits are unread.
    buffer: u64,
    count: u32,
}

impl<'f> Bits<'f> {
    pub(super) fn new(rest: &'f [u8]) -> Self {
        Bits { rest, buffer: 0, count: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
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
            self.buffer = self.buffer << 8 | u64::from(byte);
            self.count += 8;
        }
    }

    /// Reads a code, and returns its value.
    pub(super) fn symbol(&mut self, table: &Table) -> Option<u8> {
        if self.count < 16 {
            self.fill();
        }
        // Missing bits are ones, with which encoders fill the last byte.
        let next = match self.count {
            count @ 16.. => self.buffer >> (count - 16),
            count => self.buffer << (16 - count) | ((1 << (16 - count)) - 1),
        };
        let next = next as u32 & 0xffff;
        let short = table.short[(next >> (16 - SHORT_BITS)) as usize];
        let (length, value) = if short != 0 {
            (u32::from(short >> 8), short as u8)
        } else {
            let length = (SHORT_BITS + 1..=16)
                .find(|&length| next >> (16 - length) < table.ends[length as usize].0)?;
            let index = (next >> (16 - length)) as i32 + table.ends[length as usize].1;
            (length, *table.values.get(usize::try_from(index).ok()?)?)
        };
        self.count = self.count.checked_sub(length)?;
        Some(value)
    }

    /// Skips up to 16 bits.
    pub(super) fn skip(&mut self, bits: u32) -> Option<()> {
        if self.count < bits {
            self.fill();
        }
        self.count = self.count.checked_sub(bits)?;
        Some(())
    }

    /// Reads a number of up to 16 bits.
    pub(super) fn take(&mut self, bits: u32) -> Option<u32> {
        self.skip(bits)?;
        Some((self.buffer >> self.count) as u32 & ((1 << bits) - 1))
    }

    /// Continues after the restart marker of this number, of which the last three bits are stored.
    pub(super) fn restart(&mut self, number: u32) -> Option<()> {
        let (marker, behind) = next_marker(self.rest)?;
        (u32::from(marker) == 0xd0 + number % 8).then_some(())?;
        *self = Bits::new(behind);
        Some(())
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
