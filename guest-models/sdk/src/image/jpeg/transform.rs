//! Inverse DCT of a block to 8, 4, 2 or 1 samples along both axes, in integers.
//!
//! The transform to eight is libjpeg's accurate one (Loeffler, Ligtenberg and Moschytz, 1989), bit
//! for bit. The others are shorter transforms of the lowest coefficients, which is an ideal
//! low-pass filter (Independent JPEG Group, from libjpeg 7).

use std::array::from_fn;

/// Position of each coefficient, in the order of scans, row by row.
pub(super) const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Bits of fraction of the constants.
const FRACTION: u32 = 13;

/// More bits of the samples between the two passes.
const BETWEEN: u32 = 2;

/// Number of coefficients, in the order of scans, that a transform to `side` samples reads.
pub(super) fn coefficients(side: u32) -> usize {
    match side {
        1 => 1,
        2 => 5,
        4 => 25,
        _ => 64,
    }
}

/// Transforms the coefficients of a block, in the order of scans and without any behind the last
/// that is not 0, to `side` rows of `side` samples, `stride` apart.
pub(super) fn samples(
    coefficients: &[i16],
    quantisation: &[u16; 64],
    side: u32,
    rows: &mut [u8],
    stride: usize,
) {
    let value = |at: usize| i32::from(coefficients[at]).wrapping_mul(quantisation[at].into());
    if coefficients.len() <= 1 {
        let mean = level(coefficients.first().map_or(0, |_| value(0)).wrapping_add(4) >> 3);
        rows.chunks_mut(stride).take(side as usize).for_each(|row| row[..side as usize].fill(mean));
        return;
    }
    let mut block = [[0; 8]; 8];
    for at in 0..coefficients.len().min(64) {
        let natural = usize::from(NATURAL[at]);
        block[natural >> 3][natural & 7] = value(at);
    }
    match side {
        8 => write(eight(&block), rows, stride),
        4 => write(four(&block), rows, stride),
        _ => write(two(&block), rows, stride),
    }
}

fn write<const N: usize>(from: [[u8; N]; N], rows: &mut [u8], stride: usize) {
    for (row, from) in rows.chunks_mut(stride).zip(from) {
        row[..N].copy_from_slice(&from);
    }
}

/// A sample from its difference to the middle.
fn level(difference: i32) -> u8 {
    difference.saturating_add(128).clamp(0, 255) as u8
}

/// Numbers that are computed at once. Sums of damaged files wrap.
#[derive(Clone, Copy)]
struct Lanes<const N: usize>([i32; N]);

impl<const N: usize> Lanes<N> {
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Lanes(from_fn(|lane| self.0[lane].wrapping_add(other.0[lane])))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Lanes(from_fn(|lane| self.0[lane].wrapping_sub(other.0[lane])))
    }

    #[inline(always)]
    fn times(self, factor: i32) -> Self {
        Lanes(self.0.map(|value| value.wrapping_mul(factor)))
    }

    #[inline(always)]
    fn up(self, bits: u32) -> Self {
        Lanes(self.0.map(|value| value << bits))
    }

    /// Divides by a power of two, and rounds.
    #[inline(always)]
    fn down(self, bits: u32) -> Self {
        Lanes(self.0.map(|value| value.wrapping_add(1 << (bits - 1)) >> bits))
    }
}

#[inline(always)]
fn transposed<const N: usize>(rows: [Lanes<N>; N]) -> [Lanes<N>; N] {
    from_fn(|row| Lanes(from_fn(|column| rows[column].0[row])))
}

#[inline(always)]
fn levels<const N: usize>(rows: [Lanes<N>; N]) -> [[u8; N]; N] {
    rows.map(|row| row.0.map(level))
}

fn eight(block: &[[i32; 8]; 8]) -> [[u8; 8]; 8] {
    let columns = pass_of_eight(block.map(Lanes), FRACTION - BETWEEN);
    levels(transposed(pass_of_eight(transposed(columns), FRACTION + BETWEEN + 3)))
}

#[inline(always)]
fn pass_of_eight(rows: [Lanes<8>; 8], down: u32) -> [Lanes<8>; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let z1 = r2.add(r6).times(4_433);
    let (t2, t3) = (z1.sub(r6.times(15_137)), z1.add(r2.times(6_270)));
    let (t0, t1) = (r0.add(r4).up(FRACTION), r0.sub(r4).up(FRACTION));
    let even = [t0.add(t3), t1.add(t2), t1.sub(t2), t0.sub(t3)];

    let z5 = r7.add(r3).add(r5.add(r1)).times(9_633);
    let (z1, z2) = (r7.add(r1).times(7_373), r5.add(r3).times(20_995));
    let z3 = z5.sub(r7.add(r3).times(16_069));
    let z4 = z5.sub(r5.add(r1).times(3_196));
    let odd = [
        r1.times(12_299).sub(z1).add(z4),
        r3.times(25_172).sub(z2).add(z3),
        r5.times(16_819).sub(z2).add(z4),
        r7.times(2_446).sub(z1).add(z3),
    ];
    from_fn(|row| {
        let sum = if row < 4 { even[row].add(odd[row]) } else { even[7 - row].sub(odd[7 - row]) };
        sum.down(down)
    })
}

fn four(block: &[[i32; 8]; 8]) -> [[u8; 4]; 4] {
    let rows = from_fn(|row| Lanes(from_fn(|column| block[row][column])));
    let columns = pass_of_four(rows, FRACTION - BETWEEN);
    levels(transposed(pass_of_four(transposed(columns), FRACTION + BETWEEN + 3)))
}

#[inline(always)]
fn pass_of_four(rows: [Lanes<4>; 4], down: u32) -> [Lanes<4>; 4] {
    let [r0, r1, r2, r3] = rows;
    let z1 = r1.add(r3).times(4_433);
    let (t0, t1) = (r0.add(r2).up(FRACTION), r0.sub(r2).up(FRACTION));
    let (t2, t3) = (z1.add(r1.times(6_270)), z1.sub(r3.times(15_137)));
    [t0.add(t2), t1.add(t3), t1.sub(t3), t0.sub(t2)].map(|row| row.down(down))
}

fn two(block: &[[i32; 8]; 8]) -> [[u8; 2]; 2] {
    let rows: [Lanes<2>; 2] = from_fn(|row| Lanes(from_fn(|column| block[row][column])));
    let pass = |[r0, r1]: [Lanes<2>; 2]| [r0.add(r1), r0.sub(r1)];
    levels(transposed(pass(transposed(pass(rows)))).map(|row| row.down(3)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The transform by its definition, to `side` samples.
    fn exact(block: &[i16; 64], side: usize) -> Vec<f64> {
        let cosine = |at: usize, of: usize| {
            let scale = if of == 0 { 0.5_f64.sqrt() } else { 1.0 };
            scale * ((2 * at + 1) as f64 * of as f64 * std::f64::consts::PI / (2 * side) as f64).cos()
        };
        let mut samples = Vec::new();
        for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
            let mut sum = 0.0;
            for (at, natural) in NATURAL.into_iter().enumerate() {
                let (v, u) = (usize::from(natural) / 8, usize::from(natural) % 8);
                if v < side && u < side {
                    sum += f64::from(block[at]) * cosine(y, v) * cosine(x, u);
                }
            }
            samples.push((sum / 4.0 + 128.0).clamp(0.0, 255.0));
        }
        samples
    }

    #[test]
    fn transforms_follow_their_definition() {
        let mut state = 7_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for case in 0..400 {
            let mut block = [0_i16; 64];
            let used = if case % 4 == 0 { 64 } else { 1 + next(20) as usize };
            block[0] = next(1_600) as i16 - 800;
            (1..used).for_each(|at| block[at] = next(120) as i16 - 60);
            for side in [1, 2, 4, 8] {
                let mut found = vec![0; (side * 10) as usize];
                let used = used.min(coefficients(side));
                samples(&block[..used], &[1; 64], side, &mut found, 10);
                let found: Vec<u8> = found.chunks(10).flat_map(|row| row[..side as usize].to_vec()).collect();
                for (found, exact) in found.iter().zip(exact(&block, side as usize)) {
                    let apart = (f64::from(*found) - exact).abs();
                    assert!(apart < 0.6, "{case}, {side} samples: {found} instead of {exact}");
                }
            }
        }
    }

    #[test]
    fn huge_coefficients_wrap() {
        for side in [1, 2, 4, 8] {
            for value in [i16::MIN, i16::MAX] {
                samples(&[value; 64], &[u16::MAX; 64], side, &mut [0; 64], 8);
            }
        }
    }
}
