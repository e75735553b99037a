//! Product of a packed matrix with int8 activations, generic over instruction sets and weight
//! types.
//!
//! A register tile is `V` vectors of rows × `TOKENS` tokens. For each sub-block of weights with its
//! own scale, integer products are summed exactly and then added once to f32 sums. A task of the
//! pool takes panels, and of each panel a range of columns at a time, which stays in the first
//! cache for all tiles. With few tokens, each tile decodes the packed bits itself; with many, they
//! are unpacked once.
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by number")]
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

pub(crate) mod floats;
pub(crate) mod formats;
pub(crate) mod output;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::activations::{Quantized, TileInput};
use crate::layout::{Minima, PANEL};
use crate::simd::{Job, Simd};
use formats::{Format, Unpacked};
use output::{Finish, Target};

/// Bytes of weights, packed or unpacked, that all tiles read before the next: with the input and
/// the sums of a tile, they fit into a first-level cache of 32 KB.
const STRETCH: usize = 24 << 10;

/// Number of tiles whose sums are stored between ranges of columns: at most 192 tokens, 24 KB.
const TILES: usize = 32;

/// Distance in bytes at which a single tile prefetches packed bits.
const AHEAD: usize = 8192;

/// Scratch memory of a task.
#[repr(C, align(64))]
struct Scratch {
    /// Unpacked columns.
    weights: [u8; STRETCH],
    /// `[token][row of the panel]`. Sums are not accumulated in the output, whose rows are often a
    /// power of two apart and would compete for few cache sets.
    sums: [f32; TILES * 6 * PANEL],
}

/// Computes the product of the panels in `panels` with all of `input`.
///
/// # Safety
/// `S` is available; `weights` holds whole panels of `groups` groups of `W`; `input` was made for
/// `S` and `W::GROUP` with the same number of groups; `target` has room for all its rows, and no
/// other task writes the rows of these panels.
pub(crate) unsafe fn panels<S: Simd, W: Format>(
    weights: *const u8,
    groups: usize,
    panels: Range<usize>,
    input: &Quantized,
    target: Target,
) {
    let mut scratch = MaybeUninit::<Scratch>::uninit();
    let unpacked = (&raw mut (*scratch.as_mut_ptr()).weights).cast::<u8>();
    let sums = (&raw mut (*scratch.as_mut_ptr()).sums).cast::<f32>();
    let tiles = input.tiles();
    let direct = W::MANY.is_some_and(|many| input.tile_rows(tiles - 1).end < many);
    let most = match (tiles, direct) {
        (1, _) => groups,
        (_, true) => STRETCH / W::BYTES,
        (_, false) => STRETCH / Unpacked::<W>::BYTES,
    };
    // Ranges of about the same length.
    let length = groups.div_ceil(groups.div_ceil(most));
    for panel in panels {
        let weights = weights.add(panel * groups * W::BYTES);
        for first in (0..tiles).step_by(TILES) {
            let last = tiles.min(first + TILES);
            let tokens = input.tile_rows(first).start..input.tile_rows(last - 1).end;
            for start in (0..groups).step_by(length) {
                let groups = start..groups.min(start + length);
                let from = weights.add(start * W::BYTES);
                if !direct {
                    S::enter(Unpack::<W> { from, to: unpacked, groups: groups.len(), _type: PhantomData });
                }
                for tile in first..last {
                    let rows = input.tile_rows(tile);
                    let stretch = Stretch {
                        groups: groups.len(),
                        input: input.input(&rows, start),
                        sums: sums.add((rows.start - tokens.start) * PANEL),
                        add: start > 0,
                        ahead: Ahead::new::<W>(from, groups.len(), tile - first, last - first),
                    };
                    if direct {
                        tile_product::<S, W>(from, rows.len(), &stretch);
                    } else {
                        tile_product::<S, Unpacked<W>>(unpacked, rows.len(), &stretch);
                    }
                }
            }
            S::enter(Finish { sums, tokens, panel, target });
        }
    }
}

/// A range of columns, for one tile.
struct Stretch {
    groups: usize,
    input: TileInput,
    sums: *mut f32,
    /// True if the sums are of earlier columns.
    add: bool,
    ahead: Ahead,
}

/// Bytes in memory that a tile prefetches.
#[derive(Clone, Copy)]
enum Ahead {
    /// Those of the tile's own columns, if it reads memory.
    Own,
    /// A part of the bytes behind the columns, which belong to this panel or the following one: so
    /// many cache lines for each sub-block.
    Part { from: *const u8, lines: usize },
}

impl Ahead {
    /// The bytes of tile `tile` of `tiles`, which multiply `groups` groups of `weights`.
    fn new<W: Format>(weights: *const u8, groups: usize, tile: usize, tiles: usize) -> Self {
        if tiles == 1 {
            return Self::Own;
        }
        let (bytes, sub_blocks) = (groups * W::BYTES, groups * (W::GROUP / W::SUB));
        let lines = bytes.div_ceil(64).div_ceil(tiles * sub_blocks);
        Self::Part { from: weights.wrapping_add(bytes + tile * sub_blocks * lines * 64), lines }
    }
}

struct Unpack<W> {
    from: *const u8,
    to: *mut u8,
    groups: usize,
    _type: PhantomData<W>,
}

impl<S: Simd, W: Format> Job<S> for Unpack<W> {
    #[inline(always)]
    unsafe fn run(self) {
        const { assert!(Unpacked::<W>::BYTES <= STRETCH, "the scratch memory holds at least one group") };
        for group in 0..self.groups {
            Unpacked::<W>::unpack::<S>(
                self.from.add(group * W::BYTES),
                self.to.add(group * Unpacked::<W>::BYTES),
            );
        }
    }
}

/// Multiplies all rows of a panel with one tile of 1 to 6 tokens.
unsafe fn tile_product<S: Simd, W: Format>(weights: *const u8, tokens: usize, stretch: &Stretch) {
    macro_rules! tile {
        ($tokens:literal, $vectors:literal) => {
            if const { $tokens <= S::TILE } {
                for row in (0..PANEL).step_by($vectors * S::LANES) {
                    S::enter(Tile::<W, $vectors, $tokens> { weights, row, stretch, _type: PhantomData });
                }
            }
        };
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

struct Tile<'a, W, const V: usize, const TOKENS: usize> {
    weights: *const u8,
    /// First row within the panel.
    row: usize,
    /// A reference, because a copy would be read in wider pieces than it was written, which stalls
    /// until the preceding tile ends.
    stretch: &'a Stretch,
    _type: PhantomData<W>,
}

impl<S: Simd, W: Format, const V: usize, const TOKENS: usize> Job<S> for Tile<'_, W, V, TOKENS> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { row, stretch, .. } = self;
        let out = stretch.sums.add(row);
        let mut totals = [[S::splat(0.0); TOKENS]; V];
        if stretch.add {
            for v in 0..V {
                for t in 0..TOKENS {
                    totals[v][t] = S::load_f32(out.add(t * PANEL + v * S::LANES));
                }
            }
        }
        for index in 0..stretch.groups {
            let group = self.weights.add(index * W::BYTES);
            if W::GROUP == 32 {
                group_of_32::<S, W, V, TOKENS>(group, index, row, stretch, &mut totals);
            } else {
                group_of_256::<S, W, V, TOKENS>(group, index, row, stretch, &mut totals);
            }
        }
        for v in 0..V {
            for t in 0..TOKENS {
                S::store_f32(out.add(t * PANEL + v * S::LANES), totals[v][t]);
            }
        }
    }
}

#[inline(always)]
unsafe fn group_of_32<S: Simd, W: Format, const V: usize, const TOKENS: usize>(
    group: *const u8,
    index: usize,
    row: usize,
    stretch: &Stretch,
    totals: &mut [[S::F; TOKENS]; V],
) {
    let input = &stretch.input;
    let sums = sub_block::<S, W, V, TOKENS>(group, 0, index, row, stretch);
    let scales = W::scale::<S, V>(group, 0, row);
    for t in 0..TOKENS {
        let scale = S::splat(*input.scales.add(index * TOKENS + t));
        for v in 0..V {
            totals[v][t] = S::mul_add(S::to_f32(sums[v][t]), S::mul(scales[v], scale), totals[v][t]);
        }
    }
    if matches!(W::MINIMA, Minima::Group) {
        let minima = W::minimum::<S, V>(group, row);
        for t in 0..TOKENS {
            let sum = S::splat(*input.scaled_sums.add(index * TOKENS + t));
            for v in 0..V {
                totals[v][t] = S::mul_add(minima[v], sum, totals[v][t]);
            }
        }
    }
}

#[inline(always)]
unsafe fn group_of_256<S: Simd, W: Format, const V: usize, const TOKENS: usize>(
    group: *const u8,
    index: usize,
    row: usize,
    stretch: &Stretch,
    totals: &mut [[S::F; TOKENS]; V],
) {
    let input = &stretch.input;
    let mut group_sums = [[S::splat(0.0); TOKENS]; V];
    if matches!(W::MINIMA, Minima::SubBlocks) {
        let mut taken = [[S::splat_i32(0); TOKENS]; V];
        let pairs = const { W::GROUP / W::SUB / 2 };
        let inputs = if W::SUB == 16 { input.pairs_of_16 } else { input.pairs_of_32 };
        for i in 0..pairs {
            let minima = W::minimum_pair::<S, V>(group, i, row);
            for t in 0..TOKENS {
                let sums = S::splat_i32(*inputs.add((index * pairs + i) * TOKENS + t));
                for v in 0..V {
                    taken[v][t] = S::dot_pairs(taken[v][t], minima[v], sums);
                }
            }
        }
        let scales = W::minimum::<S, V>(group, row);
        for v in 0..V {
            let scale = S::mul(scales[v], S::splat(-1.0));
            for t in 0..TOKENS {
                group_sums[v][t] = S::mul(S::to_f32(taken[v][t]), scale);
            }
        }
    }
    for first in (0..W::GROUP / W::SUB).step_by(W::TOGETHER) {
        // The inner loop is unrolled, so that shifts are constants.
        for i in 0..W::TOGETHER {
            let sub = first + i;
            let sums = sub_block::<S, W, V, TOKENS>(group, sub, index, row, stretch);
            let scales = W::scale::<S, V>(group, sub, row);
            for v in 0..V {
                for t in 0..TOKENS {
                    group_sums[v][t] = S::mul_add(S::to_f32(sums[v][t]), scales[v], group_sums[v][t]);
                }
            }
        }
    }
    for t in 0..TOKENS {
        let scale = S::splat(*input.scales.add(index * TOKENS + t));
        for v in 0..V {
            totals[v][t] = S::mul_add(group_sums[v][t], scale, totals[v][t]);
        }
    }
}

/// Sums the integer products of one sub-block, with offsets subtracted.
#[inline(always)]
unsafe fn sub_block<S: Simd, W: Format, const V: usize, const TOKENS: usize>(
    group: *const u8,
    sub: usize,
    index: usize,
    row: usize,
    stretch: &Stretch,
) -> [[S::I; TOKENS]; V] {
    let input = &stretch.input;
    let run = S::run_length(W::BITS).min(W::SUB / 4);
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
    let mut sums = [[S::splat_i32(0); TOKENS]; V];
    if W::OFFSET != 0 && !(W::BITS == 8 && S::SIGNED_8) {
        for t in 0..TOKENS {
            let sum = if W::GROUP == 256 && W::SUB == 32 {
                // Sums are over 16 columns.
                let first = input.sums.add(2 * index * TOKENS + t);
                *first + *first.add(TOKENS)
            } else {
                *input.sums.add(index * TOKENS + t)
            };
            let start = S::shl32(S::splat_i32(sum), W::OFFSET.ilog2() as i32);
            for v in 0..V {
                sums[v][t] = start;
            }
        }
    }
    let codes = input.codes.add(index * (W::SUB / 4) * TOKENS);
    let mut partial = sums;
    for pair in 0..W::SUB / 8 {
        let both = W::codes::<S, V>(group, sub * (W::SUB / 8) + pair, row);
        for (half, weights) in both.iter().enumerate() {
            let step = pair * 2 + half;
            for t in 0..TOKENS {
                let four = S::splat_i32(codes.add(step * TOKENS + t).read_unaligned());
                for v in 0..V {
                    if step % run == 0 {
                        partial[v][t] = S::begin(sums[v][t]);
                    }
                    partial[v][t] = S::dot(W::BITS, partial[v][t], weights[v], four);
                    if step % run == run - 1 {
                        sums[v][t] = S::end(sums[v][t], partial[v][t]);
                    }
                }
            }
        }
    }
    sums
}
