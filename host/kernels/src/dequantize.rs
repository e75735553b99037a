//! Conversion of GGUF blocks to f32, one block at a time and in scalar code. Embedding rows are
//! read this way, packing starts here, and tests use it as the definition of each type.

use half::{bf16, f16};

use crate::WeightType;
use crate::layout::{Layout, Minima, layout};

/// A decoded block: `value = scale · sub_scales[i / sub] · (code - offset) - minimum · sub_minima[i
/// / sub]`, where the minimum of a whole block is added instead. Numbers that a type lacks are 1,
/// and a minimum that it lacks is 0.
pub(crate) struct Block {
    /// Unsigned bits as stored: from them a table or the type's offset gives a code.
    pub(crate) bits: [u8; 256],
    /// Scale of the block, and its minimum where the type has one (for K types: the scale of the
    /// minima), as f16 bits. The scale of MXFP4 is one byte.
    pub(crate) scale: u16,
    pub(crate) minimum: u16,
    pub(crate) sub_scales: [i8; 16],
    pub(crate) sub_minima: [u8; 16],
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Splits bytes into numbers of four bits: low nibbles are the first half, high nibbles the second.
fn nibbles(bytes: &[u8], bits: &mut [u8]) {
    for (j, byte) in bytes.iter().enumerate() {
        bits[j] = byte & 15;
        bits[j + bytes.len()] = byte >> 4;
    }
}

impl Block {
    pub(crate) fn empty() -> Self {
        Self { bits: [0; 256], scale: 0, minimum: 0, sub_scales: [1; 16], sub_minima: [1; 16] }
    }

    /// Decodes one block of a quantised type; `bytes` has `block_bytes` bytes.
    pub(crate) fn read(&mut self, ty: WeightType, bytes: &[u8]) {
        self.scale = u16_at(bytes, 0);
        match ty {
            WeightType::F32 | WeightType::F16 | WeightType::Bf16 => {
                unreachable!("plain types have no blocks")
            }
            WeightType::Q4_0 | WeightType::Iq4Nl => nibbles(&bytes[2..18], &mut self.bits),
            WeightType::Q4_1 => {
                self.minimum = u16_at(bytes, 2);
                nibbles(&bytes[4..20], &mut self.bits);
            }
            WeightType::Q5_0 => {
                nibbles(&bytes[6..22], &mut self.bits);
                self.read_fifth_bits(&bytes[2..6]);
            }
            WeightType::Q5_1 => {
                self.minimum = u16_at(bytes, 2);
                nibbles(&bytes[8..24], &mut self.bits);
                self.read_fifth_bits(&bytes[4..8]);
            }
            WeightType::Q8_0 => {
                for (bits, byte) in self.bits.iter_mut().zip(&bytes[2..34]) {
                    *bits = byte ^ 0x80;
                }
            }
            WeightType::Q2K => {
                (self.scale, self.minimum) = (u16_at(bytes, 80), u16_at(bytes, 82));
                for (sub, byte) in bytes[..16].iter().enumerate() {
                    self.sub_scales[sub] = (byte & 15) as i8;
                    self.sub_minima[sub] = byte >> 4;
                }
                self.read_two_bits(&bytes[16..80]);
            }
            WeightType::Q3K => {
                self.scale = u16_at(bytes, 108);
                self.read_two_bits(&bytes[32..96]);
                self.read_bit_planes(&bytes[..32], 2);
                let (low, high) = (&bytes[96..104], &bytes[104..108]);
                for (sub, scale) in self.sub_scales.iter_mut().enumerate() {
                    let six = low[sub % 8] >> (sub / 8 * 4) & 15 | (high[sub % 4] >> (sub / 4 * 2) & 3) << 4;
                    *scale = six as i8 - 32;
                }
            }
            WeightType::Q4K => {
                self.read_pairs(bytes);
                self.read_k_nibbles(&bytes[16..144]);
            }
            WeightType::Q5K => {
                self.read_pairs(bytes);
                self.read_k_nibbles(&bytes[48..176]);
                self.read_bit_planes(&bytes[16..48], 4);
            }
            WeightType::Q6K => self.read_q6(bytes),
            WeightType::Iq4Xs => {
                let high = u16_at(bytes, 2);
                for (sub, codes) in self.bits.chunks_exact_mut(32).enumerate() {
                    let six = bytes[4 + sub / 2] >> (sub % 2 * 4) & 15 | ((high >> (sub * 2) & 3) as u8) << 4;
                    self.sub_scales[sub] = six as i8 - 32;
                    nibbles(&bytes[8 + sub * 16..][..16], codes);
                }
            }
            WeightType::Mxfp4 => {
                self.scale = u16::from(bytes[0]);
                nibbles(&bytes[1..17], &mut self.bits);
            }
        }
    }

    /// Adds one bit to each of 32 numbers of four bits.
    fn read_fifth_bits(&mut self, bytes: &[u8]) {
        for (i, bits) in self.bits[..32].iter_mut().enumerate() {
            *bits |= (bytes[i / 8] >> (i % 8) & 1) << 4;
        }
    }

    /// Adds one bit to each of 256 numbers: bit `i / 32` of byte `i % 32` becomes bit `to`.
    fn read_bit_planes(&mut self, bytes: &[u8], to: u32) {
        for (i, bits) in self.bits.iter_mut().enumerate() {
            *bits |= (bytes[i % 32] >> (i / 32) & 1) << to;
        }
    }

    /// Decodes 256 numbers of two bits: each 32 bytes hold 4 × 32, the first 32 in the lowest bits.
    fn read_two_bits(&mut self, bytes: &[u8]) {
        for (i, bits) in self.bits.iter_mut().enumerate() {
            *bits = bytes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        }
    }

    fn read_k_nibbles(&mut self, bytes: &[u8]) {
        for (pair, bits) in self.bits.chunks_exact_mut(64).enumerate() {
            nibbles(&bytes[pair * 32..][..32], bits);
        }
    }

    /// Decodes eight pairs of six bits from twelve bytes: the first four pairs are stored directly,
    /// and the upper bits of the others in the top bits of the first eight bytes.
    fn read_pairs(&mut self, bytes: &[u8]) {
        self.minimum = u16_at(bytes, 2);
        let s = &bytes[4..16];
        for j in 0..4 {
            self.sub_scales[j] = (s[j] & 63) as i8;
            self.sub_minima[j] = s[j + 4] & 63;
            self.sub_scales[j + 4] = (s[j + 8] & 15 | s[j] >> 6 << 4) as i8;
            self.sub_minima[j + 4] = s[j + 8] >> 4 | s[j + 4] >> 6 << 4;
        }
    }

    fn read_q6(&mut self, bytes: &[u8]) {
        self.scale = u16_at(bytes, 208);
        for (scale, byte) in self.sub_scales.iter_mut().zip(&bytes[192..208]) {
            *scale = *byte as i8;
        }
        for (half, bits) in self.bits.chunks_exact_mut(128).enumerate() {
            let (low, high) = (&bytes[half * 64..][..64], &bytes[128 + half * 32..][..32]);
            for (i, bits) in bits.iter_mut().enumerate() {
                let nibble = if i < 64 { low[i] & 15 } else { low[i - 64] >> 4 };
                *bits = nibble | (high[i % 32] >> (i / 32 * 2) & 3) << 4;
            }
        }
    }

    /// Minimum of each sub-block, which is subtracted.
    pub(crate) fn minimum_of(&self, layout: &Layout, sub: usize) -> f32 {
        let minimum = f16::from_bits(self.minimum).to_f32();
        match layout.minima {
            Minima::None => 0.0,
            Minima::Group => -minimum,
            Minima::SubBlocks => minimum * f32::from(self.sub_minima[sub]),
        }
    }

    /// Writes the values of the block to `out`.
    pub(crate) fn write(&self, layout: &Layout, out: &mut [f32]) {
        let scale = layout.scale_value(self.scale);
        for (sub, (out, bits)) in
            out.chunks_exact_mut(layout.sub).zip(self.bits.chunks_exact(layout.sub)).enumerate()
        {
            let scale = scale * f32::from(self.sub_scales[sub]);
            let minimum = self.minimum_of(layout, sub);
            for (value, &bits) in out.iter_mut().zip(bits) {
                let code = layout.table.map_or(bits, |table| table[usize::from(bits)]);
                *value = scale * (i32::from(code) - layout.offset) as f32 - minimum;
            }
        }
    }
}

/// Writes the values of one row, in the encoding of GGUF files, to `out`.
///
/// # Panics
/// If `row` does not have `ty.row_bytes(out.len())` bytes.
pub fn dequantize_row(ty: WeightType, row: &[u8], out: &mut [f32]) {
    assert_eq!(Some(row.len()), ty.row_bytes(out.len()), "bytes of a row of {} columns of {ty}", out.len());
    match ty {
        WeightType::F32 => {
            for (value, bytes) in out.iter_mut().zip(row.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        }
        WeightType::F16 => {
            for (value, bytes) in out.iter_mut().zip(row.chunks_exact(2)) {
                *value = f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        WeightType::Bf16 => {
            for (value, bytes) in out.iter_mut().zip(row.chunks_exact(2)) {
                *value = bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            }
        }
        _ => {
            let layout = layout(ty);
            let mut block = Block::empty();
            for (out, bytes) in
                out.chunks_exact_mut(ty.block_elements()).zip(row.chunks_exact(ty.block_bytes()))
            {
                block.read(ty, bytes);
                block.write(&layout, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks and their values, written by golden.py.
    const GOLDEN: &[u8] = include_bytes!("dequantize/golden.bin");

    #[test]
    fn values_match_gguf_package() {
        let mut rest = GOLDEN;
        let mut types = Vec::new();
        while !rest.is_empty() {
            let (head, after) = rest.split_at(12);
            let number = |i: usize| u32::from_le_bytes(head[i * 4..i * 4 + 4].try_into().unwrap());
            let ty = WeightType::from_ggml(number(0)).unwrap();
            let (blocks, after) = after.split_at(number(1) as usize);
            let (values, after) = after.split_at(number(2) as usize * 4);
            let expected: Vec<f32> =
                values.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
            let mut found = vec![0.0; expected.len()];
            dequantize_row(ty, blocks, &mut found);
            assert_eq!(found, expected, "{ty}");
            types.push(ty);
            rest = after;
        }
        assert_eq!(types, WeightType::ALL);
    }

    #[test]
    #[should_panic(expected = "bytes of a row of 64 columns of Q4_0")]
    fn wrong_row_length_panics() {
        dequantize_row(WeightType::Q4_0, &[0; 35], &mut [0.0; 64]);
    }
}
