//! Inverse DCT of a block to 8, 4, 2 or 1 samples along both axes, in integers.
//!
//! The transform to eight is libjpeg's accurate one (Loeffler, Ligtenberg and Moschytz, 1989), bit
//! for bit, with dot products of pairs for sums of products. The others are shorter transforms of
//! the lowest coefficients, which is an ideal low-pass filter (Independent JPEG Group, from libjpeg
//! 7).

use std::array::from_fn;

use super::lanes::{I16x8, I32x4};

/// Position of each coefficient, in the order of scans, row by row.
pub(super) const NATURAL: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7,
    14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39,
    46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Bits of fraction of the constants.
const FRACTION: u32 = 13;

/// The constant 1.
const ONE: i16 = 1 << FRACTION;

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

/// Largest norm of a block's AC coefficients. That of samples in range is at most 8 * 128, and
/// quantisation adds a third at worst (black and white noise at the lowest quality of libjpeg).
pub(super) const MAX_NORM: u16 = 1_536;

/// Largest energy of a block's AC coefficients: the sum of their squares.
pub(super) const MAX_ENERGY: f32 = MAX_NORM as f32 * MAX_NORM as f32;

/// Energy of a coefficient.
pub(super) fn energy(coefficient: i32, quantisation: u16) -> f32 {
    let value = coefficient as f32 * f32::from(quantisation);
    value * value
}

/// Transforms the coefficients of a block, in the order of scans and without any behind the last
/// that is not 0, to `side` rows of `side` samples, `stride` apart. Numbers of damaged files are
/// clamped. Returns true if a sample is so far out of range that decoders differ in it: libjpeg
/// wraps those beyond four times the range, and its vector instructions wrap at other places.
#[inline(always)]
pub(super) fn samples(
    coefficients: &[i16],
    quantisation: &[u16; 64],
    side: u32,
    rows: &mut [u8],
    stride: usize,
) -> bool {
    match (coefficients.len(), side) {
        (0 | 1, _) => {
            let dc = coefficients.first().map_or(0, |&dc| value(dc, quantisation[0]));
            let difference = (i32::from(dc) + 4) >> 3;
            let level = level(difference);
            rows.chunks_mut(stride).take(side as usize).for_each(|row| row[..side as usize].fill(level));
            exceed_512([difference])
        }
        (_, 8) => eight(coefficients, quantisation, rows, stride),
        (_, 4) => four(coefficients, quantisation, rows, stride),
        _ => two(coefficients, quantisation, rows, stride),
    }
}

/// Value of a coefficient; larger numbers than a valid file has are clamped.
fn value(coefficient: i16, quantisation: u16) -> i16 {
    let product = i32::from(coefficient) * i32::from(quantisation);
    product.clamp(i16::MIN.into(), i16::MAX.into()) as i16
}

/// True if a difference to the middle is outside of -512 to 511.
fn exceed_512<const N: usize>(differences: [i32; N]) -> bool {
    differences.into_iter().fold(0, |bits, difference| bits | (difference + 512)) & !1023 != 0
}

/// A sample from its difference to the middle.
fn level(difference: i32) -> u8 {
    difference.saturating_add(128).clamp(0, 255) as u8
}

fn eight(coefficients: &[i16], quantisation: &[u16; 64], rows: &mut [u8], stride: usize) -> bool {
    let mut block = [[0; 8]; 8];
    for (at, &coefficient) in coefficients.iter().enumerate().take(64) {
        let natural = usize::from(NATURAL[at]);
        block[natural >> 3][natural & 7] = value(coefficient, quantisation[at]);
    }
    let columns = pass_of_eight(block.map(I16x8::new), FRACTION - BETWEEN);
    let samples = transposed(pass_of_eight(transposed(columns), FRACTION + BETWEEN + 3));
    for (pair, two) in rows.chunks_mut(2 * stride).zip(samples.chunks_exact(2)) {
        let levels = two[0].levels(two[1]);
        pair[..8].copy_from_slice(&levels[..8]);
        pair[stride..stride + 8].copy_from_slice(&levels[8..]);
    }
    I16x8::exceed_512(samples)
}

/// Transforms eight columns, and divides by 2^`down`.
#[inline(always)]
fn pass_of_eight(rows: [I16x8; 8], down: u32) -> [I16x8; 8] {
    let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
    let half = |zip: fn(I16x8, I16x8) -> I16x8| {
        let (outer, inner) = (zip(r0, r4), zip(r2, r6));
        let (t0, t1) = (outer.dot(ONE, ONE), outer.dot(ONE, -ONE));
        let (t2, t3) = (inner.dot(4_433, -10_704), inner.dot(10_703, 4_433));
        let even = [t0.add(t3), t1.add(t2), t1.sub(t2), t0.sub(t3)];
        let (outer, inner) = (zip(r1, r7), zip(r3, r5));
        let odd = [
            outer.dot(11_363, 2_260).add(inner.dot(9_633, 6_437)),
            outer.dot(9_633, -6_436).add(inner.dot(-2_259, -11_362)),
            outer.dot(6_437, 9_633).add(inner.dot(-11_362, 2_261)),
            outer.dot(2_260, -11_363).add(inner.dot(-6_436, 9_633)),
        ];
        let row = |row: usize| match row {
            0..4 => even[row].add(odd[row]),
            _ => even[7 - row].sub(odd[7 - row]),
        };
        from_fn::<I32x4, 8, _>(|at| row(at).down(down))
    };
    let (low, high) = (half(I16x8::zip_low), half(I16x8::zip_high));
    from_fn(|row| I16x8::clamped(low[row], high[row]))
}

#[inline(always)]
fn transposed(mut rows: [I16x8; 8]) -> [I16x8; 8] {
    for _ in 0..3 {
        let [r0, r1, r2, r3, r4, r5, r6, r7] = rows;
        let zipped = |one: I16x8, other: I16x8| (one.zip_low(other), one.zip_high(other));
        let ((a, b), (c, d)) = (zipped(r0, r4), zipped(r1, r5));
        let ((e, f), (g, h)) = (zipped(r2, r6), zipped(r3, r7));
        rows = [a, b, c, d, e, f, g, h];
    }
    rows
}

fn four(coefficients: &[i16], quantisation: &[u16; 64], rows: &mut [u8], stride: usize) -> bool {
    let (mut block, mut is_excessive) = ([0; 16], false);
    for (at, &coefficient) in coefficients.iter().enumerate().take(64) {
        let (row, column) = (NATURAL[at] >> 3, NATURAL[at] & 7);
        if row < 4 && column < 4 {
            block[usize::from(4 * row + column)] = value(coefficient, quantisation[at]);
        } else {
            is_excessive |= value(coefficient, quantisation[at]).unsigned_abs() > MAX_NORM;
        }
    }
    let (upper, lower) = block.split_at(8);
    let two_rows = |rows: &[i16]| I16x8::new(from_fn(|at| rows[at]));
    let columns = pass_of_four([two_rows(upper), two_rows(lower)], FRACTION - BETWEEN);
    let [upper, lower] = pass_of_four(columns, FRACTION + BETWEEN + 3);
    for (row, levels) in rows.chunks_mut(stride).zip(upper.levels(lower).chunks_exact(4)) {
        row[..4].copy_from_slice(levels);
    }
    is_excessive || I16x8::exceed_512([upper, lower])
}

/// Transforms four columns of four rows, two rows in each vector, divides by 2^`down`, and
/// exchanges rows and columns.
#[inline(always)]
fn pass_of_four([upper, lower]: [I16x8; 2], down: u32) -> [I16x8; 2] {
    let (even, odd) = (upper.zip_low(lower), upper.zip_high(lower));
    let (t0, t1) = (even.dot(ONE, ONE), even.dot(ONE, -ONE));
    let (t2, t3) = (odd.dot(10_703, 4_433), odd.dot(4_433, -10_704));
    let rows = [t0.add(t2), t1.add(t3), t1.sub(t3), t0.sub(t2)].map(|row| row.down(down));
    let (upper, lower) = (I16x8::clamped(rows[0], rows[1]), I16x8::clamped(rows[2], rows[3]));
    let (first, second) = (upper.zip_low(lower), upper.zip_high(lower));
    [first.zip_low(second), first.zip_high(second)]
}

fn two(coefficients: &[i16], quantisation: &[u16; 64], rows: &mut [u8], stride: usize) -> bool {
    // Those of the first two rows and columns.
    let [dc, right, down, both] = [0, 1, 2, 4].map(|at| {
        coefficients.get(at).map_or(0, |&coefficient| i32::from(value(coefficient, quantisation[at])))
    });
    let samples = [[dc + down, right + both], [dc - down, right - both]];
    let samples = samples.map(|[even, odd]| [(even + odd + 4) >> 3, (even - odd + 4) >> 3]);
    for (row, samples) in rows.chunks_mut(stride).zip(samples) {
        row[..2].copy_from_slice(&samples.map(level));
    }
    let [[a, b], [c, d]] = samples;
    let unread = coefficients.get(3).map_or(0, |&coefficient| value(coefficient, quantisation[3]));
    unread.unsigned_abs() > MAX_NORM || exceed_512([a, b, c, d])
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
                assert!(!samples(&block[..used], &[1; 64], side, &mut found, 10));
                let found: Vec<u8> = found.chunks(10).flat_map(|row| row[..side as usize].to_vec()).collect();
                for (found, exact) in found.iter().zip(exact(&block, side as usize)) {
                    let apart = (f64::from(*found) - exact).abs();
                    assert!(apart < 0.6, "{case}, {side} samples: {found} instead of {exact}");
                }
            }
        }
    }

    #[test]
    fn excessive_coefficients_are_reported() {
        for side in [1, 2, 4, 8] {
            for value in [i16::MIN, i16::MAX] {
                for quantisation in [1, u16::MAX] {
                    assert!(samples(&[value; 64], &[quantisation; 64], side, &mut [0; 64], 8));
                }
            }
        }
    }
}
