//! Arrangement of a tile's sums in vectors.
//!
//! Most instruction sets multiply a vector of rows with one token. Sets that multiply small
//! matrices have the sums of two rows and two tokens in a vector: `pairs`.
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by number")]
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code under the contract of `Lanes`")]

use super::formats::Format;
use crate::layout::PANEL;
use crate::simd::Simd;

/// Arrangement of the sums of `V` vectors of rows and `T` × `TOKENS` tokens in `N` × `T` vectors,
/// where `N` is `V` × `TOKENS`.
///
/// # Safety
/// As for [`Simd`] and [`Format`]. Pointers to numbers of tokens are valid for `TOKENS` of them.
pub(crate) trait Lanes<S: Simd> {
    /// Number of tokens per vector.
    const TOKENS: usize;
    /// Number of tokens from which weights of every type are unpacked, because that also saves
    /// reordering their codes in each tile.
    const MANY: usize;

    /// Repeats numbers of rows for each token of a vector of sums.
    unsafe fn rows_i32<const V: usize, const N: usize>(rows: [S::I; V]) -> [S::I; N];
    unsafe fn rows_f32<const V: usize, const N: usize>(rows: [S::F; V]) -> [S::F; N];
    /// Repeats numbers of tokens for each row of a vector of sums.
    unsafe fn tokens_i32(from: *const i32) -> S::I;
    unsafe fn tokens_f32(from: *const f32) -> S::F;
    /// As `tokens_i32`, of the sums of two numbers per token.
    unsafe fn tokens_of_sums(first: *const i32, second: *const i32) -> S::I;
    /// Loads f32 sums, `[token][row of the panel]`.
    unsafe fn load<const V: usize, const N: usize, const T: usize>(from: *const f32) -> [[S::F; T]; N];
    unsafe fn store<const V: usize, const N: usize, const T: usize>(to: *mut f32, sums: &[[S::F; T]; N]);
    /// Reorders a vector of codes of four columns and one of the next four, for `dots` of
    /// unpacked weights.
    unsafe fn interleave(first: S::I, second: S::I) -> [S::I; 2];
    /// Adds the products of a sub-block to `sums`.
    unsafe fn dots<W: Format, const V: usize, const N: usize, const T: usize>(
        group: *const u8,
        sub: usize,
        row: usize,
        input: *const i32,
        sums: [[S::I; T]; N],
    ) -> [[S::I; T]; N];
}

/// Instruction sets with their arrangement of more than one token.
pub(crate) trait Tiles: Simd {
    type Many: Lanes<Self>;
}

macro_rules! one_token {
    ($($set:path)*) => {$(
        impl Tiles for $set {
            type Many = OneToken;
        }
    )*};
}

one_token! { crate::simd::portable::Portable }
#[cfg(target_arch = "x86_64")]
one_token! { crate::simd::avx2::Avx2 crate::simd::avx2::AvxVnni crate::simd::avx512::Avx512Vnni }
#[cfg(target_arch = "aarch64")]
one_token! { crate::simd::neon::NeonDotprod }

/// Vectors of rows for one token each.
pub(crate) struct OneToken;

impl<S: Simd> Lanes<S> for OneToken {
    const TOKENS: usize = 1;
    const MANY: usize = usize::MAX;

    #[inline(always)]
    unsafe fn rows_i32<const V: usize, const N: usize>(rows: [S::I; V]) -> [S::I; N] {
        let mut lanes = [S::splat_i32(0); N];
        lanes.copy_from_slice(&rows);
        lanes
    }

    #[inline(always)]
    unsafe fn rows_f32<const V: usize, const N: usize>(rows: [S::F; V]) -> [S::F; N] {
        let mut lanes = [S::splat(0.0); N];
        lanes.copy_from_slice(&rows);
        lanes
    }

    #[inline(always)]
    unsafe fn tokens_i32(from: *const i32) -> S::I {
        S::splat_i32(*from)
    }

    #[inline(always)]
    unsafe fn tokens_f32(from: *const f32) -> S::F {
        S::splat(*from)
    }

    #[inline(always)]
    unsafe fn tokens_of_sums(first: *const i32, second: *const i32) -> S::I {
        S::splat_i32(*first + *second)
    }

    #[inline(always)]
    unsafe fn load<const V: usize, const N: usize, const T: usize>(from: *const f32) -> [[S::F; T]; N] {
        let mut sums = [[S::splat(0.0); T]; N];
        for v in 0..N {
            for t in 0..T {
                sums[v][t] = S::load_f32(from.add(t * PANEL + v * S::LANES));
            }
        }
        sums
    }

    #[inline(always)]
    unsafe fn store<const V: usize, const N: usize, const T: usize>(to: *mut f32, sums: &[[S::F; T]; N]) {
        for v in 0..N {
            for t in 0..T {
                S::store_f32(to.add(t * PANEL + v * S::LANES), sums[v][t]);
            }
        }
    }

    #[inline(always)]
    unsafe fn interleave(first: S::I, second: S::I) -> [S::I; 2] {
        [first, second]
    }

    #[inline(always)]
    unsafe fn dots<W: Format, const V: usize, const N: usize, const T: usize>(
        group: *const u8,
        sub: usize,
        row: usize,
        input: *const i32,
        mut sums: [[S::I; T]; N],
    ) -> [[S::I; T]; N] {
        let steps = W::SUB / 4;
        let run = S::run_length(W::BITS);
        // Conditions on the step are evaluated at run time if the compiler keeps the loop, which
        // sums that hold any number of products do not need.
        let (any, run) = (run == usize::MAX, run.min(steps));
        let mut partial = sums;
        if any {
            for v in 0..N {
                for t in 0..T {
                    partial[v][t] = S::begin(sums[v][t]);
                }
            }
        }
        for pair in 0..steps / 2 {
            let both = W::codes::<S, N>(group, sub * (steps / 2) + pair, row);
            for (half, weights) in both.iter().enumerate() {
                let step = pair * 2 + half;
                for t in 0..T {
                    let four = S::splat_i32(input.add(step * T + t).read_unaligned());
                    for v in 0..N {
                        if !any && step % run == 0 {
                            partial[v][t] = S::begin(sums[v][t]);
                        }
                        partial[v][t] = S::dot(W::BITS, partial[v][t], weights[v], four);
                        if !any && step % run == run - 1 {
                            sums[v][t] = S::end(sums[v][t], partial[v][t]);
                        }
                    }
                }
            }
        }
        if any {
            for v in 0..N {
                for t in 0..T {
                    sums[v][t] = S::end(sums[v][t], partial[v][t]);
                }
            }
        }
        sums
    }
}
