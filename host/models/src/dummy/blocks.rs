//! Blocks of random weights in the layouts of ggml's quantised types.
//!
//! Codes are uniform. Scales give the weights a standard deviation of about 0.02 and a mean of 0.
//! The mean is exact for types with minima; for other types the scales have random signs.

use half::f16;

/// Elements of a block of the types with `K` in their names.
const SUPER: usize = 256;

/// Storage types of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockType {
    /// Plain floats; here always 1, as the weights of a norm.
    F32,
    /// A scale and 32 codes of 4 bits.
    Q4_0,
    /// A scale and 32 codes of 5 bits.
    Q5_0,
    /// A scale and 32 codes of 8 bits.
    Q8_0,
    /// 8 scales and minima of 6 bits, and 256 codes of 4 bits.
    Q4K,
    /// 8 scales and minima of 6 bits, and 256 codes of 5 bits.
    Q5K,
    /// 16 scales of 8 bits, and 256 codes of 6 bits.
    Q6K,
}

impl BlockType {
    /// The type's number in ggml.
    pub(super) fn number(self) -> u32 {
        match self {
            BlockType::F32 => 0,
            BlockType::Q4_0 => 2,
            BlockType::Q5_0 => 6,
            BlockType::Q8_0 => 8,
            BlockType::Q4K => 12,
            BlockType::Q5K => 13,
            BlockType::Q6K => 14,
        }
    }

    /// Elements per block.
    pub(super) fn elements(self) -> usize {
        match self {
            BlockType::F32 => 1,
            BlockType::Q4_0 | BlockType::Q5_0 | BlockType::Q8_0 => 32,
            BlockType::Q4K | BlockType::Q5K | BlockType::Q6K => SUPER,
        }
    }

    /// Bytes per block.
    pub(super) fn bytes(self) -> usize {
        match self {
            BlockType::F32 => 4,
            BlockType::Q4_0 => 18,
            BlockType::Q5_0 => 22,
            BlockType::Q8_0 => 34,
            BlockType::Q4K => 144,
            BlockType::Q5K => 176,
            BlockType::Q6K => 210,
        }
    }

    /// Fills whole blocks with random weights.
    pub(super) fn fill(self, random: &mut Random, blocks: &mut [u8]) {
        if self == BlockType::F32 {
            for value in blocks.chunks_exact_mut(4) {
                value.copy_from_slice(&1_f32.to_le_bytes());
            }
            return;
        }
        random.fill(blocks);
        for block in blocks.chunks_exact_mut(self.bytes()) {
            match self {
                BlockType::F32 => {}
                // Codes minus 8: standard deviation 4.61, mean -0.5.
                BlockType::Q4_0 => half(&mut block[..2], random.signed(0.0043)),
                // Codes minus 16: standard deviation 9.23, mean -0.5.
                BlockType::Q5_0 => half(&mut block[..2], random.signed(0.002_15)),
                // Codes: standard deviation 73.9, mean -0.5.
                BlockType::Q8_0 => half(&mut block[..2], random.signed(0.00027)),
                // Codes from 0 to 15: standard deviation 4.61; scales from 16 to 31.
                BlockType::Q4K => minima(block, random, 48, 7.5),
                // Codes from 0 to 31: standard deviation 9.23.
                BlockType::Q5K => minima(block, random, 24, 15.5),
                BlockType::Q6K => {
                    // Codes minus 32: standard deviation 18.5; scales from 32 to 63, of either
                    // sign.
                    for scale in &mut block[192..208] {
                        let size = 32 + (*scale & 31);
                        *scale = if *scale & 32 == 0 { size } else { size.wrapping_neg() };
                    }
                    half(&mut block[208..], random.near(0.000_022_6));
                }
            }
        }
    }
}

/// Writes the scale, the minimum and the eight pairs of a block of Q4_K or Q5_K. Both numbers of a
/// pair are equal, and the block's minimum is its scale times `middle`, so that codes equal to
/// `middle` mean 0. A scale of about `scale` / 2^18 times `middle` is an exact f16.
fn minima(block: &mut [u8], random: &mut Random, scale: u64, middle: f32) {
    let scale = (scale - 4 + random.next() % 9) as f32 / 262_144.0;
    half(&mut block[..2], scale);
    half(&mut block[2..4], scale * middle);
    let bits = random.next();
    let pair = |index: usize| 16 + (bits >> (4 * index) & 15) as u8;
    for index in 0..4 {
        let (low, high) = (pair(index), pair(index + 4));
        block[4 + index] = low | high >> 4 << 6;
        block[8 + index] = low | high >> 4 << 6;
        block[12 + index] = (high & 15) | (high & 15) << 4;
    }
}

fn half(place: &mut [u8], value: f32) {
    place.copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// SplitMix64 (Steele, Lea, Flood 2014). Its own code, because a dummy file has the same bytes in
/// every version of the program.
pub(super) struct Random(u64);

impl Random {
    /// Seeds the sequence number `stream` of `seed`.
    pub(super) fn new(seed: u64, stream: u64) -> Self {
        Random(Random(Random(seed).next() ^ stream).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            eight.copy_from_slice(&self.next().to_le_bytes()[..eight.len()]);
        }
    }

    /// Returns a number from 7/8 to 9/8 of `size`.
    fn near(&mut self, size: f32) -> f32 {
        size * (7.0 / 8.0 + (self.next() >> 40) as f32 / (1_u64 << 26) as f32)
    }

    /// As [`Random::near`], with a random sign.
    fn signed(&mut self, size: f32) -> f32 {
        let near = self.near(size);
        if self.next() & 1 == 0 { near } else { -near }
    }
}
