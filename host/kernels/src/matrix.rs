//! Matrices of weights, packed into panels once and multiplied with activations often.

use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use crate::WeightType;
use crate::activations::Activations;
use crate::buffer::Buffer;
use crate::dequantize::Block;
use crate::pack::{self, PANEL};
use crate::pool::Pool;
use crate::product::output::{Target, Write};
use crate::product::{self, floats, formats};
use crate::shared::Shared;
use crate::simd::dispatch::{InstructionSet, with_simd};

/// Why bytes do not make a matrix.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PackError {
    /// No rows or no columns.
    #[error("`{ty}` matrix: expected at least one row and one column, found ({rows}, {columns})")]
    Empty {
        /// The type asked for.
        ty: WeightType,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
    },
    /// Columns that are no whole blocks.
    #[error("`{ty}` matrix: expected columns to be a multiple of {}, found {columns}; take a type with smaller blocks", ty.block_elements())]
    Columns {
        /// The type asked for.
        ty: WeightType,
        /// Columns asked for.
        columns: usize,
    },
    /// Another number of bytes than the shape has.
    #[error("`{ty}` matrix of ({rows}, {columns}): expected {expected} bytes, found {found}")]
    Length {
        /// The type asked for.
        ty: WeightType,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
        /// Bytes of the shape; `usize::MAX` where that overflows.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// Packed bytes of another holder that are not where they should be.
    #[error(
        "packed `{ty}` matrix of ({rows}, {columns}): expected {expected} bytes at a multiple of {ALIGNMENT} within {held}, \
         found bytes {start} to {end}; pack it again"
    )]
    Place {
        /// The type asked for.
        ty: WeightType,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
        /// Bytes of the packed shape; `usize::MAX` where there is no such shape.
        expected: usize,
        /// Bytes that the holder has.
        held: usize,
        /// Where the bytes are said to begin.
        start: usize,
        /// Where they are said to end.
        end: usize,
    },
    /// The system has no such memory.
    #[error(
        "`{ty}` matrix of ({rows}, {columns}): {bytes} bytes of memory are not to be had; load a smaller model"
    )]
    Memory {
        /// The type asked for.
        ty: WeightType,
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
        /// Bytes of the packed matrix.
        bytes: usize,
    },
}

/// What holds packed bytes of many matrices, such as a mapped file. The bytes must stay where they
/// are and as they are.
pub type PackedSource = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Where packed bytes begin: at a multiple of a cache line, which is also the widest vector.
const ALIGNMENT: usize = 64;

/// A matrix `(rows, columns)` = (outputs, inputs), packed.
pub struct QuantizedMatrix {
    ty: WeightType,
    rows: usize,
    columns: usize,
    source: PackedSource,
    /// The packed bytes in `source`.
    range: Range<usize>,
}

impl QuantizedMatrix {
    /// Packs `bytes`, row-major blocks of `ty` as they lie in a GGUF file. The original is not
    /// needed afterwards.
    ///
    /// # Errors
    /// If the shape is empty, is not whole blocks, or does not go with the number of bytes; if
    /// memory is lacking.
    pub fn pack(
        pool: &Pool,
        ty: WeightType,
        bytes: &[u8],
        rows: usize,
        columns: usize,
    ) -> Result<Self, PackError> {
        if rows == 0 || columns == 0 {
            return Err(PackError::Empty { ty, rows, columns });
        }
        if !columns.is_multiple_of(ty.block_elements()) {
            return Err(PackError::Columns { ty, columns });
        }
        let expected = ty.row_bytes(columns).and_then(|row| row.checked_mul(rows)).unwrap_or(usize::MAX);
        if expected != bytes.len() {
            return Err(PackError::Length { ty, rows, columns, expected, found: bytes.len() });
        }
        let row_bytes = expected / rows;
        // Rows that fill up the last panel have zero scales.
        let size = pack::packed_bytes(ty, rows, columns).unwrap_or(usize::MAX);
        let memory = PackError::Memory { ty, rows, columns, bytes: size };
        let mut panels = Buffer::new(size).ok_or(memory)?;
        let to = Shared::new(panels.as_mut_slice());
        pool.run(rows.div_ceil(PANEL), |panel| {
            // SAFETY: the buffer holds all panels, and this task alone writes this one.
            let to = unsafe {
                std::slice::from_raw_parts_mut(to.get().add(panel * row_bytes * PANEL), row_bytes * PANEL)
            };
            let from = &bytes[panel * PANEL * row_bytes..rows.min((panel + 1) * PANEL) * row_bytes];
            pack_panel(ty, from, row_bytes, to);
        });
        Ok(Self { ty, rows, columns, source: Arc::new(panels), range: 0..size })
    }

    /// The matrix whose packed bytes, as [`QuantizedMatrix::packed`] gave them, are `range` of
    /// `source`. They are read where they are.
    ///
    /// # Errors
    /// If `range` is not within `source`, or has another length or alignment than such bytes have.
    /// What they say is not checked: any bytes are numbers.
    pub fn from_packed(
        ty: WeightType,
        source: PackedSource,
        range: Range<usize>,
        rows: usize,
        columns: usize,
    ) -> Result<Self, PackError> {
        let expected = pack::packed_bytes(ty, rows, columns);
        let found = (*source).as_ref();
        let fits = found.get(range.clone()).is_some_and(|bytes| {
            Some(bytes.len()) == expected && bytes.as_ptr().addr().is_multiple_of(ALIGNMENT)
        });
        if !fits {
            let (expected, held) = (expected.unwrap_or(usize::MAX), found.len());
            let Range { start, end } = range;
            return Err(PackError::Place { ty, rows, columns, expected, held, start, end });
        }
        Ok(Self { ty, rows, columns, source, range })
    }

    /// The packed bytes, as this version of the layout ([`crate::PACKED_LAYOUT`]) has them on every
    /// machine.
    pub fn packed(&self) -> &[u8] {
        // Within bounds when it was made; a source that has shrunk since panics here and is never
        // read beyond.
        &(*self.source).as_ref()[self.range.clone()]
    }

    /// The matrix of the first `row` rows and that of the others, over the same packed bytes; none
    /// unless `row` is a multiple of 32 within the matrix.
    pub fn split(self, row: usize) -> Option<(Self, Self)> {
        if row == 0 || row >= self.rows || !row.is_multiple_of(PANEL) {
            return None;
        }
        let Self { ty, rows, columns, source, range } = self;
        let middle = range.start + pack::packed_bytes(ty, row, columns)?;
        let first = Self { ty, rows: row, columns, source: source.clone(), range: range.start..middle };
        Some((first, Self { ty, rows: rows - row, columns, source, range: middle..range.end }))
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The type of the weights.
    pub fn weight_type(&self) -> WeightType {
        self.ty
    }

    /// Bytes of memory that the packed weights take.
    pub fn size_bytes(&self) -> usize {
        self.packed().len()
    }

    /// The product with each row of `input`: `out[r * stride + n]` for row `r` of the input and row
    /// `n` of the matrix. What lies between the rows of `out` is left alone.
    ///
    /// # Panics
    /// If `input` has other columns than the matrix, `stride` is less than its rows, or `out` is
    /// too short.
    pub fn matmul(&self, pool: &Pool, input: &mut Activations, out: &mut [f32], stride: usize, write: Write) {
        self.matmul_on(InstructionSet::chosen(), pool, input, out, stride, write);
    }

    pub(crate) fn matmul_on(
        &self,
        set: InstructionSet,
        pool: &Pool,
        input: &mut Activations,
        out: &mut [f32],
        stride: usize,
        write: Write,
    ) {
        assert_eq!(input.columns(), self.columns, "columns of the input of a product");
        let tokens = input.rows();
        if tokens == 0 {
            return;
        }
        assert!(stride >= self.rows, "stride {stride} of the output of {} rows", self.rows);
        let needed = (tokens - 1).checked_mul(stride).and_then(|last| last.checked_add(self.rows));
        assert!(
            needed.is_some_and(|needed| needed <= out.len()),
            "output of {tokens} tokens, {} rows each",
            self.rows
        );

        let panels = self.rows.div_ceil(PANEL);
        let chunk = chunk_of_panels(panels, pool.threads(), tokens);
        let shared = Shared::new(out);
        let weights = self.packed();
        let tasks = panels.div_ceil(chunk);
        let range = |task: usize| task * chunk..panels.min((task + 1) * chunk);
        let target = |shared: Shared<f32>| Target { out: shared.get(), stride, rows: self.rows, write };

        macro_rules! floats {
            ($half:literal) => {{
                let values = input.values();
                pool.run(tasks, |task| {
                    let (from, weights) = (values.as_ptr(), weights.as_ptr());
                    // SAFETY: `set` is available, the shapes were compared above, and panels are
                    // rows of their own.
                    unsafe {
                        with_simd!(set, S => floats::panels::<S, $half>(
                            weights, self.columns, range(task), from, tokens, target(shared)
                        ));
                    }
                });
            }};
        }
        macro_rules! blocks {
            ($format:ident) => {{
                let groups = self.columns / pack::group_columns(self.ty);
                let input = input.quantized(pool, set, pack::group_columns(self.ty));
                pool.run(tasks, |task| {
                    // SAFETY: `set` is available, `input` was made for it and this type, the shapes
                    // were compared above, and panels are rows of their own.
                    unsafe {
                        with_simd!(set, S => product::panels::<S, formats::$format>(
                            weights.as_ptr(), groups, range(task), input, target(shared)
                        ));
                    }
                });
            }};
        }
        match self.ty {
            WeightType::F32 => floats!(false),
            WeightType::F16 => floats!(true),
            WeightType::Q4_0 => blocks!(Q4_0),
            WeightType::Q4_1 => blocks!(Q4_1),
            WeightType::Q5_0 => blocks!(Q5_0),
            WeightType::Q8_0 => blocks!(Q8_0),
            WeightType::Q4K => blocks!(Q4K),
            WeightType::Q5K => blocks!(Q5K),
            WeightType::Q6K => blocks!(Q6K),
        }
    }
}

/// Panels of one task. Long stretches of memory are read faster; short ones even out the end, which
/// counts for more with many tokens.
fn chunk_of_panels(panels: usize, threads: usize, tokens: usize) -> usize {
    panels.div_ceil(threads * if tokens >= 16 { 32 } else { 8 })
}

/// `from` is the rows of one panel, at most 32; `to` is zeroed.
fn pack_panel(ty: WeightType, from: &[u8], row_bytes: usize, to: &mut [u8]) {
    let mut block = Block::empty();
    for (row, from) in from.chunks_exact(row_bytes).enumerate() {
        let size = ty.block_bytes();
        for (index, bytes) in from.chunks_exact(size).enumerate() {
            if ty.block_elements() == 1 {
                to[(index * PANEL + row) * size..][..size].copy_from_slice(bytes);
            } else {
                block.read(ty, bytes);
                pack::put_block(
                    ty,
                    &block,
                    row,
                    &mut to[index * pack::group_bytes(ty)..][..pack::group_bytes(ty)],
                );
            }
        }
    }
}

#[cfg(test)]
mod accuracy;
#[cfg(test)]
mod tests;
