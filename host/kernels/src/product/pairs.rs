//! Sums of two rows and two tokens per vector, for products of matrices (I8MM).
//!
//! One instruction adds the products of two rows × eight columns with eight columns × two tokens:
//! twice as many as a product of four rows with one token. Only the lanes differ: integer sums are
//! exact, and the operations on f32 are the same, so results have the same bits.
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by number")]
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Lanes`")]

use super::formats::Format;
use super::lanes::{Lanes, Tiles};
use crate::layout::PANEL;
use crate::simd::Simd;
use crate::simd::neon::NeonI8mm;

impl Tiles for NeonI8mm {
    type Many = TwoTokens;
}

/// Vectors `[row 0 of token 0, row 0 of token 1, row 1 of token 0, row 1 of token 1]`.
pub(crate) struct TwoTokens;

type I = <NeonI8mm as Simd>::I;
type F = <NeonI8mm as Simd>::F;

impl Lanes<NeonI8mm> for TwoTokens {
    const TOKENS: usize = 2;
    // By the number of instructions, with 2 to 128 tokens.
    const MANY: usize = 16;

    #[inline(always)]
    unsafe fn rows_i32<const V: usize, const N: usize>(rows: [I; V]) -> [I; N] {
        let mut lanes = [NeonI8mm::splat_i32(0); N];
        for v in 0..V {
            [lanes[2 * v], lanes[2 * v + 1]] = NeonI8mm::zip_i32(rows[v], rows[v]);
        }
        lanes
    }

    #[inline(always)]
    unsafe fn rows_f32<const V: usize, const N: usize>(rows: [F; V]) -> [F; N] {
        let mut lanes = [NeonI8mm::splat(0.0); N];
        for v in 0..V {
            [lanes[2 * v], lanes[2 * v + 1]] = NeonI8mm::zip_f32(rows[v], rows[v]);
        }
        lanes
    }

    #[inline(always)]
    unsafe fn tokens_i32(from: *const i32) -> I {
        NeonI8mm::splat_two_i32(from)
    }

    #[inline(always)]
    unsafe fn tokens_f32(from: *const f32) -> F {
        NeonI8mm::splat_two_f32(from)
    }

    #[inline(always)]
    unsafe fn tokens_of_sums(first: *const i32, second: *const i32) -> I {
        NeonI8mm::add_i32(NeonI8mm::splat_two_i32(first), NeonI8mm::splat_two_i32(second))
    }

    #[inline(always)]
    unsafe fn load<const V: usize, const N: usize, const T: usize>(from: *const f32) -> [[F; T]; N] {
        let mut sums = [[NeonI8mm::splat(0.0); T]; N];
        for t in 0..T {
            for v in 0..V {
                let from = from.add(2 * t * PANEL + v * NeonI8mm::LANES);
                let of_token = |token: usize| NeonI8mm::load_f32(from.add(token * PANEL));
                [sums[2 * v][t], sums[2 * v + 1][t]] = NeonI8mm::zip_f32(of_token(0), of_token(1));
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn store<const V: usize, const N: usize, const T: usize>(to: *mut f32, sums: &[[F; T]; N]) {
        for t in 0..T {
            for v in 0..V {
                let to = to.add(2 * t * PANEL + v * NeonI8mm::LANES);
                let [first, second] = NeonI8mm::unzip_f32(sums[2 * v][t], sums[2 * v + 1][t]);
                NeonI8mm::store_f32(to, first);
                NeonI8mm::store_f32(to.add(PANEL), second);
            }
        }
    }

    #[inline(always)]
    unsafe fn interleave(first: I, second: I) -> [I; 2] {
        NeonI8mm::zip_i32(first, second)
    }

    #[inline(always)]
    unsafe fn dots<W: Format, const V: usize, const N: usize, const T: usize>(
        group: *const u8,
        sub: usize,
        row: usize,
        input: *const i32,
        mut sums: [[I; T]; N],
    ) -> [[I; T]; N] {
        let interleaved = W::MANY.is_none();
        for pair in 0..W::SUB / 8 {
            let [first, second] = W::codes::<NeonI8mm, V>(group, sub * (W::SUB / 8) + pair, row);
            let mut weights = [NeonI8mm::splat_i32(0); N];
            for v in 0..V {
                [weights[2 * v], weights[2 * v + 1]] =
                    if interleaved { [first[v], second[v]] } else { Self::interleave(first[v], second[v]) };
            }
            for t in 0..T {
                let eight = NeonI8mm::load(input.add((pair * T + t) * 4).cast());
                for n in 0..N {
                    sums[n][t] = NeonI8mm::dot_matrices(sums[n][t], weights[n], eight);
                }
            }
        }
        sums
    }
}
