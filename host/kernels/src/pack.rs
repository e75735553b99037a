//! Layout of packed weights.
//!
//! A panel is 32 rows. Along the columns it consists of groups that share one activation scale (32
//! columns, or 256 for the K types). The bytes of a group are stored in the order of use, and take
//! as much space as in the file:
//!
//! | type | a group of a panel |
//! |---|---|
//! | Q4_0 | 32 scales (f16); low bits |
//! | Q4_1 | 32 scales; 32 minima (f16); low bits |
//! | Q5_0 | 32 scales; low bits; fifth bits |
//! | Q8_0 | 32 scales; codes |
//! | Q4_K | 32 scales; 32 scales of minima; six-bit numbers, 384 bytes; low bits |
//! | Q5_K | as Q4_K; fifth bits |
//! | Q6_K | 32 scales; 16 × 32 signed scales; low bits; upper two bits |
//! | F16, F32 | for each column, the 32 values |
//!
//! The six-bit numbers are scales and minima of 8 sub-blocks. Codes are stored in steps of four
//! columns: one instruction multiplies 32 rows × 4 bytes, a vector at a time, with four input
//! bytes. *Low bits* store two steps in one, the first one in the lower nibbles. *Fifth bits* store
//! one byte per row and column of four, for 32 columns, with one bit per step. *Upper two bits*
//! store the same for 16 columns.

use crate::WeightType;
use crate::dequantize::Block;

/// Version of the packed layout. Packed bytes of another version are rejected. Any change to
/// `put_block` increases it; the test `packed_bytes_change_with_the_layout` in matrix/tests.rs
/// detects one.
pub const PACKED_LAYOUT: u32 = 1;

/// Number of rows per panel.
pub(crate) const PANEL: usize = 32;

/// Number of columns that share one activation scale.
pub(crate) fn group_columns(ty: WeightType) -> usize {
    ty.block_elements()
}

/// Bytes of one group of a panel, the same as 32 blocks in the file.
pub(crate) fn group_bytes(ty: WeightType) -> usize {
    PANEL * ty.block_bytes()
}

/// Bytes of a packed matrix `(rows, columns)`: the size in the file, with rows padded to whole
/// panels. `None` if the shape is empty, has incomplete blocks, or overflows.
pub fn packed_bytes(ty: WeightType, rows: usize, columns: usize) -> Option<usize> {
    let size = ty.row_bytes(columns)?.checked_mul(rows.checked_next_multiple_of(PANEL)?)?;
    (size > 0).then_some(size)
}

/// Offsets of the parts of a group.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    /// Scales and minima of sub-blocks.
    pub(crate) sub: usize,
    pub(crate) codes: usize,
    pub(crate) high: usize,
}

pub(crate) const fn parts(ty: WeightType) -> Parts {
    match ty {
        WeightType::F32 | WeightType::F16 => Parts { sub: 0, codes: 0, high: 0 },
        WeightType::Q4_0 | WeightType::Q5_0 | WeightType::Q8_0 => Parts { sub: 64, codes: 64, high: 576 },
        WeightType::Q4_1 => Parts { sub: 64, codes: 128, high: 640 },
        WeightType::Q4K | WeightType::Q5K => Parts { sub: 128, codes: 512, high: 4608 },
        WeightType::Q6K => Parts { sub: 64, codes: 576, high: 4672 },
    }
}

/// Stores one block of row `row` of the panel in its group.
pub(crate) fn put_block(ty: WeightType, block: &Block, row: usize, group: &mut [u8]) {
    let parts = parts(ty);
    group[row * 2..][..2].copy_from_slice(&block.scale.to_le_bytes());
    if matches!(ty, WeightType::Q4_1 | WeightType::Q4K | WeightType::Q5K) {
        group[64 + row * 2..][..2].copy_from_slice(&block.minimum.to_le_bytes());
    }
    match ty {
        WeightType::Q4K | WeightType::Q5K => put_six_bits(block, row, &mut group[parts.sub..]),
        WeightType::Q6K => {
            for (sub, &scale) in block.sub_scales.iter().enumerate() {
                group[parts.sub + sub * PANEL + row] = scale;
            }
        }
        _ => {}
    }
    let codes = &block.codes[..ty.block_elements()];
    if ty == WeightType::Q8_0 {
        for (step, four) in codes.chunks_exact(4).enumerate() {
            group[parts.codes + (step * PANEL + row) * 4..][..4].copy_from_slice(four);
        }
        return;
    }
    for (pair, eight) in codes.chunks_exact(8).enumerate() {
        for j in 0..4 {
            group[parts.codes + (pair * PANEL + row) * 4 + j] = eight[j] & 15 | (eight[j + 4] & 15) << 4;
        }
    }
    let (covered, bits) = match ty {
        WeightType::Q5_0 | WeightType::Q5K => (32, 1),
        WeightType::Q6K => (16, 2),
        _ => return,
    };
    for (part, codes) in codes.chunks_exact(covered).enumerate() {
        for (step, four) in codes.chunks_exact(4).enumerate() {
            for (j, code) in four.iter().enumerate() {
                group[parts.high + (part * PANEL + row) * 4 + j] |= (code >> 4) << (step * bits);
            }
        }
    }
}

/// Stores one byte per sub-block, with its scale and the lower two bits of its minimum, and then
/// one byte per two sub-blocks, with the upper four bits of both minima.
fn put_six_bits(block: &Block, row: usize, to: &mut [u8]) {
    for (sub, (&scale, &minimum)) in block.sub_scales.iter().zip(&block.sub_minima).enumerate() {
        to[sub * PANEL + row] = scale | (minimum & 3) << 6;
        to[(8 + sub / 2) * PANEL + row] |= (minimum >> 2) << (sub % 2 * 4);
    }
}
