//! Product of one tile of tokens with the rows of a panel.
//!
//! A register tile is `V` vectors of rows × `T` vectors of tokens, which [`Lanes`] arranges in `N`
//! × `T` vectors of sums. For each sub-block of weights with its own scale, integer products are
//! summed exactly and then added once to f32 sums.
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by number")]
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

use std::marker::PhantomData;

use super::formats::Format;
use super::lanes::{Lanes, OneToken, Tiles};
use crate::activations::TileInput;
use crate::layout::{Minima, PANEL};
use crate::simd::{Job, Simd};

/// Distance in bytes at which a single tile prefetches packed bits.
const AHEAD: usize = 8192;

/// A range of columns, for one tile.
pub(super) struct Stretch {
    pub(super) groups: usize,
    pub(super) input: TileInput,
    pub(super) sums: *mut f32,
    /// True if the sums are of earlier columns.
    pub(super) add: bool,
    pub(super) ahead: Ahead,
}

/// Bytes in memory that a tile prefetches.
#[derive(Clone, Copy)]
pub(super) enum Ahead {
    /// Those of the tile's own columns, if it reads memory.
    Own,
    /// A part of the bytes behind the columns, which belong to this panel or the following one: so
    /// many cache lines for each sub-block.
    Part { from: *const u8, lines: usize },
}

impl Ahead {
    /// The bytes of tile `tile` of `tiles`, which multiply `groups` groups of `weights`.
    pub(super) fn new<W: Format>(weights: *const u8, groups: usize, tile: usize, tiles: usize) -> Self {
        if tiles == 1 {
            return Self::Own;
        }
        let (bytes, sub_blocks) = (groups * W::BYTES, groups * (W::GROUP / W::SUB));
        let lines = bytes.div_ceil(64).div_ceil(tiles * sub_blocks);
        Self::Part { from: weights.wrapping_add(bytes + tile * sub_blocks * lines * 64), lines }
    }
}

/// Multiplies all rows of a panel with one tile of 1 to 6 tokens, a multiple of [`Simd::TOKENS`]
/// unless it is 1.
pub(super) unsafe fn tile_product<S: Tiles, W: Format>(weights: *const u8, tokens: usize, stretch: &Stretch) {
    macro_rules! tile {
        ($tokens:literal, $vectors:literal) => {
            if const { $tokens <= S::TILE } {
                tile!(OneToken, $vectors, $vectors, $tokens);
            }
        };
        ($lanes:ty, $vectors:literal, $sums:literal, $tokens:literal) => {
            for row in (0..PANEL).step_by($vectors * S::LANES) {
                S::enter(Tile::<W, $lanes, $vectors, $sums, $tokens> {
                    weights,
                    row,
                    stretch,
                    _type: PhantomData,
                });
            }
        };
    }
    if const { S::TOKENS == 2 } && tokens > 1 {
        match tokens {
            2 => tile!(S::Many, 4, 8, 1),
            4 => tile!(S::Many, 2, 4, 2),
            6 => tile!(S::Many, 2, 4, 3),
            _ => unreachable!("tiles consist of one to three pairs of tokens"),
        }
        return;
    }
    match tokens {
        // One token leaves registers free. Sets with short vectors then compute all rows together,
        // so that memory is read in order.
        1 if const { S::LANES * 8 == PANEL } => tile!(1, 8),
        1 if const { S::LANES * 4 == PANEL } => tile!(1, 4),
        1 => tile!(1, 2),
        2 => tile!(2, 2),
        3 => tile!(3, 2),
        4 => tile!(4, 2),
        5 => tile!(5, 2),
        6 => tile!(6, 2),
        _ => unreachable!("tiles are at most 6 tokens wide"),
    }
}

struct Tile<'a, W, L, const V: usize, const N: usize, const T: usize> {
    weights: *const u8,
    /// First row within the panel.
    row: usize,
    /// A reference, because a copy would be read in wider pieces than it was written, which stalls
    /// until the preceding tile ends.
    stretch: &'a Stretch,
    _type: PhantomData<(W, L)>,
}

impl<S: Simd, W: Format, L: Lanes<S>, const V: usize, const N: usize, const T: usize> Job<S>
    for Tile<'_, W, L, V, N, T>
{
    #[inline(always)]
    unsafe fn run(self) {
        let Self { row, stretch, .. } = self;
        let out = stretch.sums.add(row);
        let mut totals = if stretch.add { L::load::<V, N, T>(out) } else { [[S::splat(0.0); T]; N] };
        for index in 0..stretch.groups {
            let group = self.weights.add(index * W::BYTES);
            if W::GROUP == 32 {
                group_of_32::<S, W, L, V, N, T>(group, index, row, stretch, &mut totals);
            } else {
                group_of_256::<S, W, L, V, N, T>(group, index, row, stretch, &mut totals);
            }
        }
        L::store::<V, N, T>(out, &totals);
    }
}

#[inline(always)]
unsafe fn group_of_32<S: Simd, W: Format, L: Lanes<S>, const V: usize, const N: usize, const T: usize>(
    group: *const u8,
    index: usize,
    row: usize,
    stretch: &Stretch,
    totals: &mut [[S::F; T]; N],
) {
    let input = &stretch.input;
    let sums = sub_block::<S, W, L, V, N, T>(group, 0, index, row, stretch);
    let scales = L::rows_f32::<V, N>(W::scale::<S, V>(group, 0, row));
    for t in 0..T {
        let scale = L::tokens_f32(input.scales.add((index * T + t) * L::TOKENS));
        for v in 0..N {
            totals[v][t] = S::mul_add(S::to_f32(sums[v][t]), S::mul(scales[v], scale), totals[v][t]);
        }
    }
    if matches!(W::MINIMA, Minima::Group) {
        let minima = L::rows_f32::<V, N>(W::minimum::<S, V>(group, row));
        for t in 0..T {
            let sum = L::tokens_f32(input.scaled_sums.add((index * T + t) * L::TOKENS));
            for v in 0..N {
                totals[v][t] = S::mul_add(minima[v], sum, totals[v][t]);
            }
        }
    }
}

#[inline(always)]
unsafe fn group_of_256<S: Simd, W: Format, L: Lanes<S>, const V: usize, const N: usize, const T: usize>(
    group: *const u8,
    index: usize,
    row: usize,
    stretch: &Stretch,
    totals: &mut [[S::F; T]; N],
) {
    let input = &stretch.input;
    let mut group_sums = [[S::splat(0.0); T]; N];
    if matches!(W::MINIMA, Minima::SubBlocks) {
        let mut taken = [[S::splat_i32(0); T]; N];
        let pairs = const { W::GROUP / W::SUB / 2 };
        let inputs = if W::SUB == 16 { input.pairs_of_16 } else { input.pairs_of_32 };
        for i in 0..pairs {
            let minima = L::rows_i32::<V, N>(W::minimum_pair::<S, V>(group, i, row));
            for t in 0..T {
                let sums = L::tokens_i32(inputs.add(((index * pairs + i) * T + t) * L::TOKENS));
                for v in 0..N {
                    taken[v][t] = S::dot_pairs(taken[v][t], minima[v], sums);
                }
            }
        }
        let scales = L::rows_f32::<V, N>(W::minimum::<S, V>(group, row));
        for v in 0..N {
            let scale = S::mul(scales[v], S::splat(-1.0));
            for t in 0..T {
                group_sums[v][t] = S::mul(S::to_f32(taken[v][t]), scale);
            }
        }
    }
    for first in (0..W::GROUP / W::SUB).step_by(W::TOGETHER) {
        // The inner loop is unrolled, so that shifts are constants.
        for i in 0..W::TOGETHER {
            let sub = first + i;
            let sums = sub_block::<S, W, L, V, N, T>(group, sub, index, row, stretch);
            let scales = L::rows_f32::<V, N>(W::scale::<S, V>(group, sub, row));
            for v in 0..N {
                for t in 0..T {
                    group_sums[v][t] = S::mul_add(S::to_f32(sums[v][t]), scales[v], group_sums[v][t]);
                }
            }
        }
    }
    for t in 0..T {
        let scale = L::tokens_f32(input.scales.add((index * T + t) * L::TOKENS));
        for v in 0..N {
            totals[v][t] = S::mul_add(group_sums[v][t], scale, totals[v][t]);
        }
    }
}

/// Sums the integer products of one sub-block, with offsets subtracted.
#[inline(always)]
unsafe fn sub_block<S: Simd, W: Format, L: Lanes<S>, const V: usize, const N: usize, const T: usize>(
    group: *const u8,
    sub: usize,
    index: usize,
    row: usize,
    stretch: &Stretch,
) -> [[S::I; T]; N] {
    let input = &stretch.input;
    let index = index * (W::GROUP / W::SUB) + sub;
    match stretch.ahead {
        Ahead::Own if W::MANY.is_some() => {
            let bytes = W::BYTES / (W::GROUP / W::SUB);
            for line in 0..bytes.div_ceil(64) {
                S::prefetch(group.wrapping_add(AHEAD + sub * bytes + line * 64));
            }
        }
        Ahead::Part { from, lines } if row == 0 => {
            for line in index * lines..(index + 1) * lines {
                S::prefetch_second_level(from.wrapping_add(line * 64));
            }
        }
        _ => {}
    }
    let mut sums = [[S::splat_i32(0); T]; N];
    if W::OFFSET != 0 && !(W::BITS == 8 && S::SIGNED_8) {
        for t in 0..T {
            let sum = if W::GROUP == 256 && W::SUB == 32 {
                // Sums are over 16 columns.
                let first = input.sums.add((2 * index * T + t) * L::TOKENS);
                L::tokens_of_sums(first, first.add(T * L::TOKENS))
            } else {
                L::tokens_i32(input.sums.add((index * T + t) * L::TOKENS))
            };
            let start = S::shl32(sum, W::OFFSET.ilog2() as i32);
            for v in 0..N {
                sums[v][t] = start;
            }
        }
    }
    let codes = input.codes.add(index * (W::SUB / 4) * T * L::TOKENS);
    L::dots::<W, V, N, T>(group, sub, row, codes, sums)
}
