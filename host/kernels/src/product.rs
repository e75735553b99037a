//! Product of a packed matrix with int8 activations, generic over instruction sets and weight
//! types.
//!
//! A task of the pool takes panels, and of each panel a range of columns at a time, which stays in
//! the first cache for all tiles of tokens ([`tile`]). With few tokens, each tile decodes the
//! packed bits itself; with many, they are unpacked once.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

pub(crate) mod floats;
pub(crate) mod formats;
mod lanes;
pub(crate) mod output;
#[cfg(target_arch = "aarch64")]
mod pairs;
mod tile;
mod unpacked;

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::activations::Quantized;
use crate::layout::PANEL;
use crate::simd::Job;
use formats::Format;
use lanes::{Lanes, Tiles};
use output::{Finish, Target};
use tile::{Ahead, Stretch, tile_product};
use unpacked::Unpacked;

/// Bytes of weights, packed or unpacked, that all tiles read before the next: with the input and
/// the sums of a tile, they fit into a first-level cache of 32 KB.
const STRETCH: usize = 24 << 10;

/// Number of tiles whose sums are stored between ranges of columns: at most 192 tokens, 24 KB.
const TILES: usize = 32;

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
pub(crate) unsafe fn panels<S: Tiles, W: Format>(
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
    let direct = W::MANY.is_some_and(|many| input.rows() < many.min(S::Many::MANY));
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
            let tokens = tokens.start..tokens.end.min(input.rows());
            S::enter(Finish { sums, tokens, panel, target });
        }
    }
}

struct Unpack<W> {
    from: *const u8,
    to: *mut u8,
    groups: usize,
    _type: PhantomData<W>,
}

impl<S: Tiles, W: Format> Job<S> for Unpack<W> {
    #[inline(always)]
    unsafe fn run(self) {
        const { assert!(Unpacked::<W>::BYTES <= STRETCH, "the scratch memory holds at least one group") };
        for group in 0..self.groups {
            Unpacked::<W>::unpack::<S, S::Many>(
                self.from.add(group * W::BYTES),
                self.to.add(group * Unpacked::<W>::BYTES),
            );
        }
    }
}
