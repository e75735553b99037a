//! Blocks of random weights in the layouts of ggml's quantised types.
//!
//! Codes are uniform. Scales give the weights a standard deviation of about 0.02 and a mean of 0.
//! The mean is exact for types with minima; for other types the scales have random signs.

use half::{bf16, f16};
use infer_kernels::WeightType;

/// Fills whole blocks of `ty` with random weights. Plain floats are always 1, as the weights of a
/// norm.
pub(super) fn fill(ty: WeightType, random: &mut Random, blocks: &mut [u8]) {
    random.fill(blocks);
    for block in blocks.chunks_exact_mut(ty.block_bytes()) {
        match ty {
            WeightType::F32 => block.copy_from_slice(&1_f32.to_le_bytes()),
            WeightType::F16 | WeightType::Q4_1 => unreachable!("no mix has this type"),
            // Evenly distributed up to 0.0346.
            WeightType::Bf16 => {
                let even = (random.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
                block.copy_from_slice(&bf16::from_f32(0.0346 * even).to_le_bytes());
            }
            // Codes minus 8: standard deviation 4.61, mean -0.5.
            WeightType::Q4_0 => half(&mut block[..2], random.signed(0.0043)),
            // Codes minus 16: standard deviation 9.23, mean -0.5.
            WeightType::Q5_0 => half(&mut block[..2], random.signed(0.002_15)),
            // Codes from 0 to 31: standard deviation 9.23. A scale of about 36 / 2^14 times
            // 15.5 is an exact f16.
            WeightType::Q5_1 => {
                let scale = (31 + random.next() % 9) as f32 / 16_384.0;
                half(&mut block[..2], scale);
                half(&mut block[2..4], scale * -15.5);
            }
            // Codes: standard deviation 73.9, mean -0.5.
            WeightType::Q8_0 => half(&mut block[..2], random.signed(0.00027)),
            // Codes from 0 to 3: standard deviation 1.12, mean 1.5; scales from 8 to 15, equal
            // to their minima.
            WeightType::Q2K => {
                block[..16].iter_mut().for_each(|pair| *pair = (8 + (*pair & 7)) * 0x11);
                let scale = (21 + random.next() % 9) as f32 / 16_384.0;
                half(&mut block[80..82], scale);
                half(&mut block[82..84], scale * 1.5);
            }
            // Codes minus 4: root mean square 2.35.
            WeightType::Q3K => {
                block[96..108].fill(0);
                for index in 0..16 {
                    let six = six_bits(random);
                    block[96 + index % 8] |= (six & 15) << (index / 8 * 4);
                    block[104 + index % 4] |= (six >> 4) << (index / 4 * 2);
                }
                half(&mut block[108..], random.near(0.000_356));
            }
            // Codes from 0 to 15: standard deviation 4.61; scales from 16 to 31.
            WeightType::Q4K => minima(block, random, 48, 7.5),
            // Codes from 0 to 31: standard deviation 9.23.
            WeightType::Q5K => minima(block, random, 24, 15.5),
            WeightType::Q6K => {
                // Codes minus 32: standard deviation 18.5; scales from 32 to 63, of either
                // sign.
                for scale in &mut block[192..208] {
                    let size = 32 + (*scale & 31);
                    *scale = if *scale & 32 == 0 { size } else { size.wrapping_neg() };
                }
                half(&mut block[208..], random.near(0.000_022_6));
            }
            // Entries of the table: root mean square 67.4, mean -5.9.
            WeightType::Iq4Nl => half(&mut block[..2], random.signed(0.000_297)),
            WeightType::Iq4Xs => {
                block[2..8].fill(0);
                for index in 0..8 {
                    let six = six_bits(random);
                    block[4 + index / 2] |= (six & 15) << (index % 2 * 4);
                    block[2 + index / 4] |= (six >> 4) << (index % 4 * 2);
                }
                half(&mut block[..2], random.near(0.000_012_4));
            }
            // Values: root mean square 2.93, mean 0. Scales are 2^-7, or 2^-8 in one of four.
            WeightType::Mxfp4 => block[0] = 120 - u8::from(random.next() & 3 == 0),
        }
    }
}

/// Returns a six-bit scale from -31 to -16 or from 16 to 31, plus 32.
fn six_bits(random: &mut Random) -> u8 {
    let bits = random.next();
    let size = 16 + (bits & 15) as u8;
    if bits & 16 == 0 { 32 + size } else { 32 - size }
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
