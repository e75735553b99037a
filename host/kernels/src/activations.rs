//! Inputs of products: f32 rows and, on demand, their int8 forms.
//!
//! There is one int8 form for weight types with blocks of 32 columns and one for blocks of 256.
//! Codes are stored in the order in which a tile of tokens reads them.
#![allow(unsafe_op_in_unsafe_fn, reason = "vector code; each job documents its contract at the call")]

use std::ops::Range;

use crate::norm;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::simd::dispatch::{InstructionSet, with_simd};
use crate::simd::{Job, Simd};

/// Rows of f32 features, one per token, with their int8 forms. Buffers are reused by the next
/// `set`.
#[derive(Default)]
pub struct Activations {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
    by_32: Quantized,
    by_256: Quantized,
}

impl Activations {
    /// Returns activations without rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of rows (tokens).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (features).
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Values as f32, row-major `(rows, columns)`.
    pub fn values(&self) -> &[f32] {
        &self.values[..self.rows * self.columns]
    }

    fn resize(&mut self, rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        if self.values.len() < rows * columns {
            self.values.resize(rows * columns, 0.0);
        }
        self.by_32.made = false;
        self.by_256.made = false;
    }

    /// Copies `values`, `(rows, columns)`.
    ///
    /// # Panics
    /// If `values` has another length.
    pub fn set(&mut self, pool: &Pool, values: &[f32], rows: usize, columns: usize) {
        assert_eq!(values.len(), rows * columns, "values of {rows} rows and {columns} columns");
        self.resize(rows, columns);
        let out = Shared::new(&mut self.values);
        pool.run(rows, |row| {
            // SAFETY: `values` and `self.values` have `rows * columns` elements, and this task
            // alone writes this row.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    values.as_ptr().add(row * columns),
                    out.get().add(row * columns),
                    columns,
                );
            };
        });
    }

    /// Stores `values / rms(values) * weight` for each row, where rms is the root of the mean
    /// square plus `epsilon`. The number of columns is `weight.len()`.
    ///
    /// # Panics
    /// If `values` does not hold `rows` rows.
    pub fn set_rms_norm(&mut self, pool: &Pool, values: &[f32], weight: &[f32], epsilon: f32, rows: usize) {
        let columns = weight.len();
        assert_eq!(values.len(), rows * columns, "values of {rows} rows and {columns} columns");
        self.resize(rows, columns);
        let out = Shared::new(&mut self.values);
        let set = InstructionSet::chosen();
        pool.run(rows, |row| {
            // SAFETY: `self.values` has `rows * columns` elements, and this task alone writes this
            // row.
            let out = unsafe { std::slice::from_raw_parts_mut(out.get().add(row * columns), columns) };
            norm::rms_norm_row(set, &values[row * columns..][..columns], weight, epsilon, out);
        });
    }

    /// Returns a buffer of `rows` × `columns` values, row-major, for the caller to fill. Its
    /// initial content is unspecified.
    pub fn room(&mut self, rows: usize, columns: usize) -> &mut [f32] {
        self.resize(rows, columns);
        &mut self.values[..rows * columns]
    }

    /// Returns the int8 form with one scale per `group` columns, in tiles for `set`.
    pub(crate) fn quantized(&mut self, pool: &Pool, set: InstructionSet, group: usize) -> &Quantized {
        let form = if group == 32 { &mut self.by_32 } else { &mut self.by_256 };
        let tile = with_simd!(set, S => Tile {
            width: S::TILE,
            multiple: if self.rows == 1 { 1 } else { S::TOKENS },
        });
        if !form.made || form.tile != tile {
            form.make(
                pool,
                set,
                tile,
                &self.values[..self.rows * self.columns],
                self.rows,
                self.columns,
                group,
            );
        }
        form
    }
}

/// Width of tiles in tokens: at most `width`, a multiple of `multiple`.
#[derive(Clone, Copy, Default, PartialEq)]
struct Tile {
    width: usize,
    multiple: usize,
}

/// Int8 codes with their scales and sums. Tokens are split into tiles of nearly equal width. Within
/// a tile, the data of one range of columns is contiguous, token after token. If the width has to
/// be even and the number of tokens is odd, a token of zeros follows the last one.
#[derive(Default)]
pub(crate) struct Quantized {
    made: bool,
    tile: Tile,
    rows: usize,
    columns: usize,
    group: usize,
    /// `[tile][columns / step][token of the tile][step]`, where a step is 4 columns × the multiple
    /// of the width.
    codes: Vec<i8>,
    /// `[tile][columns / group][token]`
    scales: Vec<f32>,
    /// Scale × sum of codes, for groups of 32.
    scaled_sums: Vec<f32>,
    /// `[tile][columns / sub][token]`: negated sums of codes over 32 columns, or over 16 where the
    /// group is 256. Multiplied by a type's offset, they are the initial values of its products.
    sums: Vec<i32>,
    /// `[tile][columns / 32][token]` and `[tile][columns / 64][token]`: two sums over 16 or over 32
    /// columns as 16-bit numbers, for groups of 256.
    pairs_of_16: Vec<i32>,
    pairs_of_32: Vec<i32>,
}

/// Pointers to the input of one tile, starting at a given group.
#[derive(Clone, Copy)]
pub(crate) struct TileInput {
    pub(crate) codes: *const i32,
    pub(crate) scales: *const f32,
    pub(crate) scaled_sums: *const f32,
    pub(crate) sums: *const i32,
    pub(crate) pairs_of_16: *const i32,
    pub(crate) pairs_of_32: *const i32,
}

impl Quantized {
    /// Number of tokens.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of tiles.
    pub(crate) fn tiles(&self) -> usize {
        self.rows.div_ceil(self.tile.width)
    }

    /// Rows of a tile, including a row of zeros in the last one if the width has to be even. Widths
    /// differ by at most one multiple.
    pub(crate) fn tile_rows(&self, tile: usize) -> Range<usize> {
        let (tiles, multiple) = (self.tiles(), self.tile.multiple);
        let multiples = self.rows.div_ceil(multiple);
        tile * multiples / tiles * multiple..(tile + 1) * multiples / tiles * multiple
    }

    /// Returns pointers to group `group` of the tile with these rows.
    #[inline]
    pub(crate) fn input(&self, rows: &Range<usize>, group: usize) -> TileInput {
        let width = rows.len();
        // All divisors are powers of two, which the compiler cannot see.
        let at = |columns: usize| {
            (self.columns * rows.start + group * self.group * width) >> columns.trailing_zeros()
        };
        let whole = self.group == 32;
        TileInput {
            codes: self.codes[at(1)..].as_ptr().cast(),
            scales: self.scales[at(self.group)..].as_ptr(),
            scaled_sums: if whole { self.scaled_sums[at(32)..].as_ptr() } else { std::ptr::null() },
            sums: self.sums[at(if whole { 32 } else { 16 })..].as_ptr(),
            pairs_of_16: if whole { std::ptr::null() } else { self.pairs_of_16[at(32)..].as_ptr() },
            pairs_of_32: if whole { std::ptr::null() } else { self.pairs_of_32[at(64)..].as_ptr() },
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one private call")]
    fn make(
        &mut self,
        pool: &Pool,
        set: InstructionSet,
        tile: Tile,
        values: &[f32],
        rows: usize,
        columns: usize,
        group: usize,
    ) {
        debug_assert!(columns.is_multiple_of(group));
        (self.made, self.tile, self.rows, self.columns, self.group) = (true, tile, rows, columns, group);
        let elements = rows.next_multiple_of(tile.multiple) * columns;
        grow(&mut self.codes, elements);
        grow(&mut self.scales, elements / group);
        grow(&mut self.sums, elements / if group == 32 { 32 } else { 16 });
        grow(&mut self.scaled_sums, if group == 32 { elements / 32 } else { 0 });
        grow(&mut self.pairs_of_16, if group == 256 { elements / 32 } else { 0 });
        grow(&mut self.pairs_of_32, if group == 256 { elements / 64 } else { 0 });
        let to = Targets {
            codes: Shared::new(&mut self.codes),
            scales: Shared::new(&mut self.scales),
            scaled_sums: Shared::new(&mut self.scaled_sums),
            sums: Shared::new(&mut self.sums),
            pairs_of_16: Shared::new(&mut self.pairs_of_16),
            pairs_of_32: Shared::new(&mut self.pairs_of_32),
        };
        // One task handles a whole tile, because its tokens share cache lines. If there are few
        // tiles, they are split along the columns.
        let groups = columns / group;
        let parts = (2 * pool.threads()).div_ceil(self.tiles()).min(groups);
        let this = &*self;
        pool.run(self.tiles() * parts, |task| {
            let (tile, part) = (task / parts, task % parts);
            let tokens = this.tile_rows(tile);
            let job = QuantizeTile {
                values: &values[tokens.start * columns..tokens.end.min(rows) * columns],
                columns,
                to,
                group,
                groups: groups * part / parts..groups * (part + 1) / parts,
                tokens,
            };
            // SAFETY: `set` is available; the targets hold all tiles, and only this task writes
            // these groups of this tile.
            unsafe { with_simd!(set, S => <S as Simd>::enter(job)) };
        });
    }
}

fn grow<T: Clone + Default>(values: &mut Vec<T>, len: usize) {
    if values.len() < len {
        values.resize(len, T::default());
    }
}

#[derive(Clone, Copy)]
struct Targets {
    codes: Shared<i8>,
    scales: Shared<f32>,
    scaled_sums: Shared<f32>,
    sums: Shared<i32>,
    pairs_of_16: Shared<i32>,
    pairs_of_32: Shared<i32>,
}

struct QuantizeTile<'a> {
    /// `(tokens, columns)`, without a last token of zeros.
    values: &'a [f32],
    columns: usize,
    to: Targets,
    group: usize,
    groups: Range<usize>,
    /// Range among all rows.
    tokens: Range<usize>,
}

impl<S: Simd> Job<S> for QuantizeTile<'_> {
    #[inline(always)]
    unsafe fn run(self) {
        if self.group == 32 { self.quantize::<S, 32>() } else { self.quantize::<S, 256>() }
    }
}

impl QuantizeTile<'_> {
    #[inline(always)]
    unsafe fn quantize<S: Simd, const GROUP: usize>(self) {
        let Self { values, columns, to, groups, tokens, .. } = self;
        let (width, rows) = (tokens.len(), values.len() / columns);
        for index in groups {
            let base = tokens.start * columns + index * GROUP * width;
            for token in 0..width {
                let mut codes = [0i8; GROUP];
                let scale = if token < rows {
                    quantize::<S, GROUP>(values.as_ptr().add(token * columns + index * GROUP), &mut codes)
                } else {
                    0.0
                };
                let to_codes = to.codes.get().cast::<i32>().add(base / 4 + token * S::TOKENS);
                for i in 0..GROUP / 4 {
                    to_codes
                        .add(i / S::TOKENS * S::TOKENS * width + i % S::TOKENS)
                        .write_unaligned(codes.as_ptr().add(i * 4).cast::<i32>().read_unaligned());
                }
                *to.scales.get().add(base / GROUP + token) = scale;
                let sum = |from: usize, len: usize| {
                    codes[from..from + len].iter().map(|&code| i32::from(code)).sum::<i32>()
                };
                if GROUP == 32 {
                    let sum = sum(0, 32);
                    *to.sums.get().add(base / 32 + token) = -sum;
                    *to.scaled_sums.get().add(base / 32 + token) = scale * sum as f32;
                    continue;
                }
                let mut sums = [0i32; 16];
                for (i, value) in sums.iter_mut().enumerate() {
                    *value = sum(i * 16, 16);
                    *to.sums.get().add(base / 16 + i * width + token) = -*value;
                }
                let pair = |first: i32, second: i32| first & 0xffff | second << 16;
                for (i, four) in sums.chunks_exact(4).enumerate() {
                    let of_16 = to.pairs_of_16.get().add(base / 32 + 2 * i * width + token);
                    *of_16 = pair(four[0], four[1]);
                    *of_16.add(width) = pair(four[2], four[3]);
                    let of_32 = to.pairs_of_32.get().add(base / 64 + i * width + token);
                    *of_32 = pair(four[0] + four[1], four[2] + four[3]);
                }
            }
        }
    }
}

/// Quantises a group of whole vectors and returns its scale. The largest magnitude becomes 127. A
/// group with magnitudes below 1e-30 becomes zeros, since the inverse scale would overflow. If a
/// value is infinite or NaN, the scale is NaN, and so is every result of the group.
#[inline(always)]
unsafe fn quantize<S: Simd, const GROUP: usize>(values: *const f32, codes: &mut [i8; GROUP]) -> f32 {
    let mut max = S::splat(0.0);
    let mut nan_check = S::splat(0.0);
    for i in (0..GROUP).step_by(S::LANES) {
        let value = S::load_f32(values.add(i));
        max = S::max(max, S::abs(value));
        // Zero times infinity is NaN as well.
        nan_check = S::mul_add(value, S::splat(0.0), nan_check);
    }
    if S::reduce_add(nan_check).is_nan() {
        return f32::NAN;
    }
    let max = S::reduce_max(max);
    if max < 1e-30 {
        return 0.0;
    }
    let scale = max / 127.0;
    let inverse = S::splat(1.0 / scale);
    for i in (0..GROUP).step_by(S::LANES) {
        S::store_i8(codes.as_mut_ptr().add(i), S::to_i32(S::mul(S::load_f32(values.add(i)), inverse)));
    }
    scale
}
