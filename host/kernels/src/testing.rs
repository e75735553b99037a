//! Helpers of several test modules: random numbers from a seed, and blocks of every type.

use half::{bf16, f16};

use crate::WeightType;

/// A xorshift generator, with the same numbers on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A value in -1..1.
    pub(crate) fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.value()).collect()
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Offsets of the f16 scale of a block, and of its minimum or their scale.
fn places(ty: WeightType) -> &'static [usize] {
    match ty {
        WeightType::F32 | WeightType::Bf16 | WeightType::Mxfp4 => &[],
        WeightType::Q4_1 | WeightType::Q5_1 | WeightType::Q4K | WeightType::Q5K => &[0, 2],
        WeightType::Q2K => &[80, 82],
        WeightType::Q3K => &[108],
        WeightType::Q6K => &[208],
        _ => &[0],
    }
}

/// Blocks of random codes, with f16 scales from `scale`, or the nearest that the type has.
pub(crate) fn blocks(
    ty: WeightType,
    count: usize,
    random: &mut Random,
    mut scale: impl FnMut(&mut Random) -> f16,
) -> Vec<u8> {
    let size = ty.block_bytes();
    let mut bytes: Vec<u8> = (0..count * size).map(|_| random.next() as u8).collect();
    for block in bytes.chunks_exact_mut(size) {
        for &place in places(ty) {
            block[place..place + 2].copy_from_slice(&scale(random).to_le_bytes());
        }
        match ty {
            WeightType::F32 => block.copy_from_slice(&scale(random).to_f32().to_le_bytes()),
            WeightType::Bf16 => {
                block.copy_from_slice(&bf16::from_f32(scale(random).to_f32()).to_le_bytes());
            }
            // The exponent of an f32 is in bits 23 to 30.
            WeightType::Mxfp4 => block[0] = (scale(random).to_f32().to_bits() >> 23) as u8,
            _ => {}
        }
    }
    bytes
}

/// Random blocks with minima such that values are centred on zero, as in a trained model.
pub(crate) fn centred(ty: WeightType, count: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = blocks(ty, count, random, usual);
    let middle = match ty {
        WeightType::Q4_1 => -7.5,
        WeightType::Q5_1 => -15.5,
        WeightType::Q2K => 1.5,
        WeightType::Q4K => 7.5,
        WeightType::Q5K => 15.5,
        WeightType::F16 | WeightType::Bf16 | WeightType::F32 => {
            return blocks(ty, count, random, |random| f16::from_f32(0.1 * random.value()));
        }
        _ => return bytes,
    };
    let &[scale, minimum] = places(ty) else { unreachable!("types with minima have two f16") };
    for block in bytes.chunks_exact_mut(ty.block_bytes()) {
        let scale = f16::from_le_bytes([block[scale], block[scale + 1]]).to_f32();
        block[minimum..minimum + 2].copy_from_slice(&f16::from_f32(scale * middle).to_le_bytes());
    }
    bytes
}

/// Lines of 64 bytes, aligned to 64, at the end of their allocation, so that a sanitizer detects
/// reads beyond it.
pub(crate) struct Lines(Vec<Line>);

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "read through a pointer to all lines")] [u8; 64]);

impl Lines {
    /// Repeats `from` up to `len` bytes, a multiple of 64.
    pub(crate) fn repeat(from: &[u8], len: usize) -> Self {
        let mut lines = Vec::with_capacity(len / 64);
        while lines.len() * 64 < len {
            let rest = len - lines.len() * 64;
            lines.extend(from.chunks_exact(64).take(rest / 64).map(|line| Line(line.try_into().unwrap())));
        }
        Self(lines)
    }
}

impl AsRef<[u8]> for Lines {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the size of a line equals its alignment, 64 bytes, so there is no padding.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 64) }
    }
}

/// A scale as in trained models.
pub(crate) fn usual(random: &mut Random) -> f16 {
    f16::from_f32(0.01 * random.value() + 0.011)
}
