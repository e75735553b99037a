//! Conversion of GGUF blocks to f32, one block at a time and in scalar code. Embedding rows are
//! read this way, packing starts here, and tests use it as the definition of each type.

use half::f16;

use crate::WeightType;

/// A decoded block: `value = scales[i / sub] * code - minima[i / sub]`, where `sub` is 16 for Q6_K
/// and 32 for the others.
pub(crate) struct Block {
    /// Unsigned codes: 0..16, 0..32, 0..64 or 0..256. The offset of the type is not yet subtracted.
    pub(crate) codes: [u8; 256],
    /// Scale of the block, and its minimum where the type has one (for Q4_K and Q5_K: the scale of
    /// the minima), as f16 bits.
    pub(crate) scale: u16,
    pub(crate) minimum: u16,
    /// Q4_K and Q5_K: six-bit scales and minima of 8 sub-blocks. Q6_K: signed scales of 16
    /// sub-blocks.
    pub(crate) sub_scales: [u8; 16],
    pub(crate) sub_minima: [u8; 8],
}

/// Offset that is subtracted from each code before scaling.
pub(crate) fn offset(ty: WeightType) -> i32 {
    match ty {
        WeightType::Q4_0 => 8,
        WeightType::Q5_0 => 16,
        WeightType::Q6K => 32,
        WeightType::Q8_0 => 128,
        _ => 0,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Splits bytes into codes: low nibbles are the first half, high nibbles the second.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    for (j, byte) in bytes.iter().enumerate() {
        codes[j] = byte & 15;
        codes[j + bytes.len()] = byte >> 4;
    }
}

impl Block {
    pub(crate) fn empty() -> Self {
        Self { codes: [0; 256], scale: 0, minimum: 0, sub_scales: [0; 16], sub_minima: [0; 8] }
    }

    /// Decodes one block of a quantised type; `bytes` has `block_bytes` bytes.
    pub(crate) fn read(&mut self, ty: WeightType, bytes: &[u8]) {
        match ty {
            WeightType::F32 | WeightType::F16 => unreachable!("plain types have no blocks"),
            WeightType::Q4_0 => {
                self.scale = u16_at(bytes, 0);
                nibbles(&bytes[2..18], &mut self.codes);
            }
            WeightType::Q4_1 => {
                self.scale = u16_at(bytes, 0);
                self.minimum = u16_at(bytes, 2);
                nibbles(&bytes[4..20], &mut self.codes);
            }
            WeightType::Q5_0 => {
                self.scale = u16_at(bytes, 0);
                let high = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
                nibbles(&bytes[6..22], &mut self.codes);
                for (j, code) in self.codes[..32].iter_mut().enumerate() {
                    *code |= ((high >> j & 1) as u8) << 4;
                }
            }
            WeightType::Q8_0 => {
                self.scale = u16_at(bytes, 0);
                for (code, byte) in self.codes.iter_mut().zip(&bytes[2..34]) {
                    *code = byte ^ 0x80;
                }
            }
            WeightType::Q4K => {
                self.read_scales(bytes);
                self.read_k_nibbles(&bytes[16..144]);
            }
            WeightType::Q5K => {
                self.read_scales(bytes);
                self.read_k_nibbles(&bytes[48..176]);
                let high = &bytes[16..48];
                for (i, code) in self.codes.iter_mut().enumerate() {
                    *code |= (high[i % 32] >> (i / 32) & 1) << 4;
                }
            }
            WeightType::Q6K => self.read_q6(bytes),
        }
    }

    fn read_k_nibbles(&mut self, bytes: &[u8]) {
        for (pair, codes) in self.codes.chunks_exact_mut(64).enumerate() {
            nibbles(&bytes[pair * 32..][..32], codes);
        }
    }

    /// Decodes eight pairs of six bits from twelve bytes: the first four pairs are stored directly,
    /// and the upper bits of the others in the top bits of the first eight bytes.
    fn read_scales(&mut self, bytes: &[u8]) {
        self.scale = u16_at(bytes, 0);
        self.minimum = u16_at(bytes, 2);
        let s = &bytes[4..16];
        for j in 0..4 {
            self.sub_scales[j] = s[j] & 63;
            self.sub_minima[j] = s[j + 4] & 63;
            self.sub_scales[j + 4] = s[j + 8] & 15 | s[j] >> 6 << 4;
            self.sub_minima[j + 4] = s[j + 8] >> 4 | s[j + 4] >> 6 << 4;
        }
    }

    fn read_q6(&mut self, bytes: &[u8]) {
        self.scale = u16_at(bytes, 208);
        self.sub_scales.copy_from_slice(&bytes[192..208]);
        for (half, codes) in self.codes.chunks_exact_mut(128).enumerate() {
            let (low, high) = (&bytes[half * 64..][..64], &bytes[128 + half * 32..][..32]);
            for (i, code) in codes.iter_mut().enumerate() {
                let nibble = if i < 64 { low[i] & 15 } else { low[i - 64] >> 4 };
                *code = nibble | (high[i % 32] >> (i / 32 * 2) & 3) << 4;
            }
        }
    }

    /// Writes the values of the block to `out`.
    pub(crate) fn write(&self, ty: WeightType, out: &mut [f32]) {
        let scale = f16::from_bits(self.scale).to_f32();
        let minimum = f16::from_bits(self.minimum).to_f32();
        let codes = self.codes.iter().map(|&code| (i32::from(code) - offset(ty)) as f32);
        for (i, (value, code)) in out.iter_mut().zip(codes).enumerate() {
            *value = match ty {
                WeightType::Q4_1 => scale * code + minimum,
                WeightType::Q4K | WeightType::Q5K => {
                    scale * f32::from(self.sub_scales[i / 32]) * code
                        - minimum * f32::from(self.sub_minima[i / 32])
                }
                WeightType::Q6K => scale * f32::from(self.sub_scales[i / 16] as i8) * code,
                _ => scale * code,
            };
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
        _ => {
            let mut block = Block::empty();
            for (out, bytes) in
                out.chunks_exact_mut(ty.block_elements()).zip(row.chunks_exact(ty.block_bytes()))
            {
                block.read(ty, bytes);
                block.write(ty, out);
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
