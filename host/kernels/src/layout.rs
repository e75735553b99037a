//! Description of each quantised type: the meaning of its numbers, and their places in a group of a
//! packed panel. The products, packing, dequantisation and the tests all read it.

use half::f16;

use crate::WeightType;

/// Number of rows per panel.
pub(crate) const PANEL: usize = 32;

/// Encoding of a block's scale.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    F16,
    /// One byte `e` for 2^(e - 128): the scale of a microscaling block, halved, because its codes
    /// are doubled to be integers.
    Power,
}

/// Encoding of the scales of sub-blocks, and of their minima.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SubScales {
    /// The block has no sub-blocks.
    None,
    /// Signed bytes.
    Bytes,
    /// Six bits, from which 32 is subtracted.
    SixBits,
    /// Six bits each for the scale and the minimum.
    SixBitPairs,
    /// Four bits each for the scale and the minimum.
    FourBitPairs,
}

/// Minima that are added or subtracted, besides the offset.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Minima {
    None,
    /// One f16 per group, added.
    Group,
    /// Numbers per sub-block with an f16 scale, subtracted.
    SubBlocks,
}

/// A quantised type. Its values are `scale · sub-scale · (code - offset)`, plus or minus a minimum.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// Number of columns of a block, which share one activation scale.
    pub(crate) group: usize,
    /// Number of columns of a sub-block.
    pub(crate) sub: usize,
    /// Stored bits per weight: 4 or 2 *low* bits, and 1 or 2 *high* bits, or 8.
    pub(crate) bits: usize,
    /// Codes by stored bits, for types whose codes are not evenly spaced.
    pub(crate) table: Option<&'static [u8; 16]>,
    /// Zero or a power of two, so that offsets are subtracted with a shift.
    pub(crate) offset: i32,
    pub(crate) scale: Scale,
    pub(crate) minima: Minima,
    pub(crate) sub_scales: SubScales,
}

/// Values of IQ4_NL and IQ4_XS, from `kvalues_iq4nl` in ggml-common.h, plus 128.
const NON_LINEAR: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Values of 4-bit floats (OCP Microscaling Formats 1.0, E2M1), doubled, plus 16.
const E2M1: [u8; 16] = [16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4];

/// Returns the layout of a quantised type.
///
/// # Panics
/// For F32, F16 and BF16, which have no blocks.
pub(crate) const fn layout(ty: WeightType) -> Layout {
    let block = Layout {
        group: ty.block_elements(),
        sub: 32,
        bits: 4,
        table: None,
        offset: 0,
        scale: Scale::F16,
        minima: Minima::None,
        sub_scales: SubScales::None,
    };
    match ty {
        WeightType::F32 | WeightType::F16 | WeightType::Bf16 => panic!("plain types have no blocks"),
        WeightType::Q4_0 => Layout { offset: 8, ..block },
        WeightType::Q4_1 => Layout { minima: Minima::Group, ..block },
        WeightType::Q5_0 => Layout { bits: 5, offset: 16, ..block },
        WeightType::Q5_1 => Layout { bits: 5, minima: Minima::Group, ..block },
        WeightType::Q8_0 => Layout { bits: 8, offset: 128, ..block },
        WeightType::Q2K => Layout {
            sub: 16,
            bits: 2,
            minima: Minima::SubBlocks,
            sub_scales: SubScales::FourBitPairs,
            ..block
        },
        WeightType::Q3K => Layout { sub: 16, bits: 3, offset: 4, sub_scales: SubScales::SixBits, ..block },
        WeightType::Q4K => Layout { minima: Minima::SubBlocks, sub_scales: SubScales::SixBitPairs, ..block },
        WeightType::Q5K => {
            Layout { bits: 5, minima: Minima::SubBlocks, sub_scales: SubScales::SixBitPairs, ..block }
        }
        WeightType::Q6K => Layout { sub: 16, bits: 6, offset: 32, sub_scales: SubScales::Bytes, ..block },
        WeightType::Iq4Nl => Layout { table: Some(&NON_LINEAR), offset: 128, ..block },
        WeightType::Iq4Xs => {
            Layout { table: Some(&NON_LINEAR), offset: 128, sub_scales: SubScales::SixBits, ..block }
        }
        WeightType::Mxfp4 => Layout { table: Some(&E2M1), offset: 16, scale: Scale::Power, ..block },
    }
}

impl Layout {
    /// Number of sub-blocks.
    pub(crate) const fn subs(&self) -> usize {
        self.group / self.sub
    }

    /// Bits that codes take after the table.
    pub(crate) const fn code_bits(&self) -> u32 {
        let Some(table) = self.table else { return self.bits as u32 };
        let (mut all, mut i) = (0, 0);
        while i < table.len() {
            all |= table[i];
            i += 1;
        }
        u8::BITS - all.leading_zeros()
    }

    pub(crate) const fn low_bits(&self) -> usize {
        match self.bits {
            2 | 3 => 2,
            8 => 8,
            _ => 4,
        }
    }

    pub(crate) const fn high_bits(&self) -> usize {
        self.bits - self.low_bits()
    }

    /// Offset of the minima of a group, after the scales.
    pub(crate) const fn minima_at(&self) -> usize {
        match self.scale {
            Scale::F16 => 2 * PANEL,
            Scale::Power => PANEL,
        }
    }

    /// Offset of the numbers of sub-blocks.
    pub(crate) const fn subs_at(&self) -> usize {
        match self.minima {
            Minima::None => self.minima_at(),
            _ => self.minima_at() + 2 * PANEL,
        }
    }

    /// Offset of the low bits.
    pub(crate) const fn low_at(&self) -> usize {
        let lines = match self.sub_scales {
            SubScales::None => 0,
            SubScales::Bytes | SubScales::FourBitPairs => self.subs(),
            SubScales::SixBits => self.subs() / 4 * 3,
            SubScales::SixBitPairs => self.subs() / 2 * 3,
        };
        self.subs_at() + lines * PANEL
    }

    /// Offset of the high bits.
    pub(crate) const fn high_at(&self) -> usize {
        self.low_at() + self.group * PANEL / 8 * self.low_bits()
    }

    /// Bytes of a group of a panel, the same as 32 blocks in the file.
    pub(crate) const fn bytes(&self) -> usize {
        self.high_at() + self.group * PANEL / 8 * self.high_bits()
    }

    /// Value of a block's scale.
    pub(crate) fn scale_value(&self, bits: u16) -> f32 {
        match self.scale {
            Scale::F16 => f16::from_bits(bits).to_f32(),
            Scale::Power => (2.0f64.powi(i32::from(bits) - 128)) as f32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_take_the_bytes_of_their_blocks() {
        for ty in WeightType::ALL.into_iter().filter(|ty| ty.block_elements() > 1) {
            assert_eq!(layout(ty).bytes(), PANEL * ty.block_bytes(), "{ty}");
        }
        assert_eq!(layout(WeightType::Mxfp4).code_bits(), 5);
        assert_eq!(layout(WeightType::Iq4Nl).code_bits(), 8);
    }
}
