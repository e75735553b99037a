//! Packing of weights into panels.
//!
//! A panel is 32 rows. Along the columns it consists of groups that share one activation scale (32
//! columns, or 256 for the types with sub-blocks). The bytes of a group are stored in the order of
//! use, and take as much space as in the file:
//!
//! | type | a group of a panel |
//! |---|---|
//! | Q4_0, IQ4_NL | 32 scales (f16); low bits |
//! | Q4_1 | 32 scales; 32 minima (f16); low bits |
//! | Q5_0 | 32 scales; low bits; high bits |
//! | Q5_1 | 32 scales; 32 minima; low bits; high bits |
//! | Q8_0 | 32 scales; codes |
//! | MXFP4 | 32 exponents (bytes); low bits |
//! | Q2_K | 32 scales; 32 scales of minima; four-bit pairs, 16 × 32 bytes; low bits |
//! | Q3_K | 32 scales; six-bit scales, 12 × 32 bytes; low bits; high bits |
//! | Q4_K | 32 scales; 32 scales of minima; six-bit pairs, 12 × 32 bytes; low bits |
//! | Q5_K | as Q4_K; high bits |
//! | Q6_K | 32 scales; 16 × 32 signed scales; low bits; high bits |
//! | IQ4_XS | 32 scales; six-bit scales, 6 × 32 bytes; low bits |
//! | F16, BF16, F32 | for each column, the 32 values |
//!
//! Pairs are scales and minima of sub-blocks. Codes are stored in steps of four columns: one
//! instruction multiplies 32 rows × 4 bytes, a vector at a time, with four input bytes. A byte of n
//! bits per code stores 8 / n steps, the first one in the lowest bits. *Low bits* are 4 per code,
//! or 2 for Q2_K and Q3_K. *High bits* are 1 for the types of 3 and 5 bits, 2 for Q6_K. `layout`
//! has the offsets.

use crate::WeightType;
use crate::dequantize::Block;
use crate::layout::{Layout, Minima, PANEL, Scale, SubScales};

/// Version of the packed layout. Packed bytes of another version are rejected. Any change to
/// `put_block` increases it; the test `packed_bytes_change_with_the_layout` in matrix/tests.rs
/// detects one.
pub const PACKED_LAYOUT: u32 = 1;

/// Bytes of a packed matrix `(rows, columns)`: the size in the file, with rows padded to whole
/// panels. `None` if the shape is empty, has incomplete blocks, or overflows.
pub fn packed_bytes(ty: WeightType, rows: usize, columns: usize) -> Option<usize> {
    let size = ty.row_bytes(columns)?.checked_mul(rows.checked_next_multiple_of(PANEL)?)?;
    (size > 0).then_some(size)
}

/// Stores one block of row `row` of the panel in its group, which is zeroed.
pub(crate) fn put_block(layout: &Layout, block: &Block, row: usize, group: &mut [u8]) {
    match layout.scale {
        Scale::F16 => group[row * 2..][..2].copy_from_slice(&block.scale.to_le_bytes()),
        Scale::Power => group[row] = block.scale as u8,
    }
    if layout.minima != Minima::None {
        group[layout.minima_at() + row * 2..][..2].copy_from_slice(&block.minimum.to_le_bytes());
    }
    put_sub_scales(layout, block, row, &mut group[layout.subs_at()..]);
    let (low, high) = (layout.low_bits(), layout.high_bits());
    let bits = &block.bits[..layout.group];
    put_bits(bits, 0, low, row, &mut group[layout.low_at()..]);
    if high > 0 {
        put_bits(bits, low, high, row, &mut group[layout.high_at()..]);
    }
}

/// Stores `width` bits of each code, from bit `first`.
fn put_bits(bits: &[u8], first: usize, width: usize, row: usize, to: &mut [u8]) {
    let mask = (0xff_u8) >> (8 - width);
    for (step, four) in bits.chunks_exact(4).enumerate() {
        let (line, shift) = (step * width / 8, step * width % 8);
        for (j, code) in four.iter().enumerate() {
            to[(line * PANEL + row) * 4 + j] |= (code >> first & mask) << shift;
        }
    }
}

/// Stores the scales and minima of sub-blocks, in lines of one byte per row.
fn put_sub_scales(layout: &Layout, block: &Block, row: usize, to: &mut [u8]) {
    let subs = layout.subs();
    for (sub, (&scale, &minimum)) in block.sub_scales.iter().zip(&block.sub_minima).take(subs).enumerate() {
        let mut put = |line: usize, bits: u8| to[line * PANEL + row] |= bits;
        match layout.sub_scales {
            SubScales::None => {}
            SubScales::Bytes => put(sub, scale as u8),
            SubScales::FourBitPairs => put(sub, scale as u8 | minimum << 4),
            // Low bits: a line for two sub-blocks. High bits: a line for four.
            SubScales::SixBits => {
                let six = (scale + 32) as u8;
                put(sub / 2, (six & 15) << (sub % 2 * 4));
                put(subs / 2 + sub / 4, (six >> 4) << (sub % 4 * 2));
            }
            // A line for each scale with the lower two bits of its minimum, and a line for the
            // upper bits of two minima.
            SubScales::SixBitPairs => {
                put(sub, scale as u8 | (minimum & 3) << 6);
                put(subs + sub / 2, (minimum >> 2) << (sub % 2 * 4));
            }
        }
    }
}
