//! Product of an F32, F16 or BF16 matrix with f32 activations, on the same panels with one value
//! per column and row.
#![allow(clippy::needless_range_loop, reason = "register tiles are indexed by number")]
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each function documents its contract")]

use std::marker::PhantomData;
use std::ops::Range;

use super::output::{Finish, Target};
use crate::layout::PANEL;
use crate::simd::{Job, Simd};

/// Number of tokens in a register tile.
const TILE: usize = 4;

/// A type of plain numbers.
pub(crate) trait Float {
    const BYTES: usize;
    /// Loads a vector of numbers as f32.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn load<S: Simd>(from: *const u8) -> S::F;
}

macro_rules! floats {
    ($($name:ident: $bits:ty, $load:ident;)*) => {$(
        pub(crate) struct $name;

        impl Float for $name {
            const BYTES: usize = size_of::<$bits>();
            #[inline(always)]
            unsafe fn load<S: Simd>(from: *const u8) -> S::F {
                S::$load(from.cast::<$bits>())
            }
        }
    )*};
}

floats! {
    F32: f32, load_f32;
    F16: u16, load_f16;
    Bf16: u16, load_bf16;
}

/// Computes the product of `panels` with `tokens` rows of `values`, each of length `columns`.
///
/// # Safety
/// `S` is available; `weights` holds whole panels of `columns` numbers of type `W` per row;
/// `values` holds the rows; `target` has room for all its rows, and no other task writes the rows
/// of these panels.
pub(crate) unsafe fn panels<S: Simd, W: Float>(
    weights: *const u8,
    columns: usize,
    panels: Range<usize>,
    values: *const f32,
    tokens: usize,
    target: Target,
) {
    let bytes = columns * PANEL * W::BYTES;
    for panel in panels {
        let weights = weights.add(panel * bytes);
        for token in (0..tokens).step_by(TILE) {
            let tokens = token..tokens.min(token + TILE);
            let values = values.add(token * columns);
            let mut sums = [0.0f32; TILE * PANEL];
            for row in (0..PANEL).step_by(2 * S::LANES) {
                macro_rules! run {
                    ($tokens:literal) => {
                        S::enter(Tile::<W, $tokens> {
                            weights,
                            columns,
                            row,
                            values,
                            sums: &mut sums,
                            _type: PhantomData,
                        })
                    };
                }
                match tokens.len() {
                    1 => run!(1),
                    2 => run!(2),
                    3 => run!(3),
                    _ => run!(4),
                }
            }
            S::enter(Finish { sums: sums.as_ptr(), tokens, panel, target });
        }
    }
}

struct Tile<'a, W, const TOKENS: usize> {
    weights: *const u8,
    columns: usize,
    row: usize,
    values: *const f32,
    /// `[token][row of the panel]`
    sums: &'a mut [f32; TILE * PANEL],
    _type: PhantomData<W>,
}

impl<S: Simd, W: Float, const TOKENS: usize> Job<S> for Tile<'_, W, TOKENS> {
    #[inline(always)]
    unsafe fn run(self) {
        let mut sums = [[S::splat(0.0); TOKENS]; 2];
        for column in 0..self.columns {
            let mut weights = [S::splat(0.0); 2];
            for (v, weight) in weights.iter_mut().enumerate() {
                let at = column * PANEL + self.row + v * S::LANES;
                *weight = W::load::<S>(self.weights.add(at * W::BYTES));
            }
            for t in 0..TOKENS {
                let value = S::splat(*self.values.add(t * self.columns + column));
                for v in 0..2 {
                    sums[v][t] = S::mul_add(weights[v], value, sums[v][t]);
                }
            }
        }
        for t in 0..TOKENS {
            for v in 0..2 {
                S::store_f32(self.sums.as_mut_ptr().add(t * PANEL + self.row + v * S::LANES), sums[v][t]);
            }
        }
    }
}
