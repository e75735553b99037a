//! Weight matrices that are packed once into panels and then multiplied with activations.

use std::ops::Range;
use std::sync::Arc;

use thiserror::Error;

use crate::WeightType;
use crate::activations::Activations;
use crate::buffer::Buffer;
use crate::dequantize::Block;
use crate::layout::{PANEL, layout};
use crate::pack;
use crate::pool::Pool;
use crate::product::output::{Target, Write};
use crate::product::{self, floats, formats};
use crate::shared::Shared;
use crate::simd::dispatch::{InstructionSet, with_simd};

/// Error of packing a matrix or of opening a packed one.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PackError {
    /// The matrix has no rows or no columns.
    #[error("`{ty}` matrix: expected at least one row and one column, found ({rows}, {columns})")]
    Empty {
        /// Requested type.
        ty: WeightType,
        /// Requested rows.
        rows: usize,
        /// Requested columns.
        columns: usize,
    },
    /// The number of columns is not a multiple of the block size.
    #[error("`{ty}` matrix: expected columns to be a multiple of {}, found {columns}; use a type with smaller blocks", ty.block_elements())]
    Columns {
        /// Requested type.
        ty: WeightType,
        /// Requested columns.
        columns: usize,
    },
    /// The number of bytes does not match the shape.
    #[error("`{ty}` matrix of ({rows}, {columns}): expected {expected} bytes, found {found}")]
    Length {
        /// Requested type.
        ty: WeightType,
        /// Requested rows.
        rows: usize,
        /// Requested columns.
        columns: usize,
        /// Bytes of the shape; `usize::MAX` if that overflows.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// The range of packed bytes has the wrong length or alignment, or exceeds its source.
    #[error(
        "packed `{ty}` matrix of ({rows}, {columns}): expected {expected} bytes at a multiple of {ALIGNMENT} within {source_bytes}, \
         found bytes {start} to {end}; pack it again"
    )]
    Range {
        /// Requested type.
        ty: WeightType,
        /// Requested rows.
        rows: usize,
        /// Requested columns.
        columns: usize,
        /// Bytes of the packed shape; `usize::MAX` if the shape is invalid.
        expected: usize,
        /// Bytes of the source.
        source_bytes: usize,
        /// Start of the requested range.
        start: usize,
        /// End of the requested range.
        end: usize,
    },
    /// The system has too little memory.
    #[error(
        "`{ty}` matrix of ({rows}, {columns}): {bytes} bytes of memory are not available; load a smaller model"
    )]
    Memory {
        /// Requested type.
        ty: WeightType,
        /// Requested rows.
        rows: usize,
        /// Requested columns.
        columns: usize,
        /// Bytes of the packed matrix.
        bytes: usize,
    },
}

/// Shared owner of the packed bytes of one or more matrices, such as a mapped file. The bytes must
/// neither move nor change.
pub type PackedSource = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Alignment of packed bytes: one cache line, which is also the widest vector.
const ALIGNMENT: usize = 64;

/// A packed matrix `(rows, columns)` = (outputs, inputs).
pub struct QuantizedMatrix {
    ty: WeightType,
    rows: usize,
    columns: usize,
    source: PackedSource,
    /// Range of the packed bytes in `source`.
    range: Range<usize>,
}

impl QuantizedMatrix {
    /// Packs `bytes`, which are row-major blocks of `ty` in the encoding of GGUF files. The result
    /// does not refer to `bytes`.
    ///
    /// # Errors
    /// If the shape is empty, has incomplete blocks or does not match the number of bytes, or if
    /// memory is exhausted.
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
        // Rows that pad the last panel have zero scales.
        let size = pack::packed_bytes(ty, rows, columns).unwrap_or(usize::MAX);
        let memory = PackError::Memory { ty, rows, columns, bytes: size };
        let mut panels = Buffer::new(size).ok_or(memory)?;
        let to = Shared::new(panels.as_mut_slice());
        pool.run(rows.div_ceil(PANEL), |panel| {
            // SAFETY: the buffer holds all panels, and only this task writes this one.
            let to = unsafe {
                std::slice::from_raw_parts_mut(to.get().add(panel * row_bytes * PANEL), row_bytes * PANEL)
            };
            let from = &bytes[panel * PANEL * row_bytes..rows.min((panel + 1) * PANEL) * row_bytes];
            pack_panel(ty, from, row_bytes, to);
        });
        Ok(Self { ty, rows, columns, source: Arc::new(panels), range: 0..size })
    }

    /// Opens a matrix whose packed bytes, as [`QuantizedMatrix::packed`] returned them, are `range`
    /// of `source`. They are used in place.
    ///
    /// # Errors
    /// If `range` exceeds `source`, or has the wrong length or alignment. The content is not
    /// checked: every byte pattern is valid.
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
            let (expected, source_bytes) = (expected.unwrap_or(usize::MAX), found.len());
            let Range { start, end } = range;
            return Err(PackError::Range { ty, rows, columns, expected, source_bytes, start, end });
        }
        Ok(Self { ty, rows, columns, source, range })
    }

    /// Packed bytes in this version of the layout ([`crate::PACKED_LAYOUT`]), which is the same on
    /// all machines.
    pub fn packed(&self) -> &[u8] {
        // The range was within bounds at construction. If the source has shrunk since, this panics
        // instead of reading beyond it.
        &(*self.source).as_ref()[self.range.clone()]
    }

    /// Splits the matrix before row `row` without copying; `None` unless `row` is a multiple of 32
    /// within the matrix.
    pub fn split(self, row: usize) -> Option<(Self, Self)> {
        if row == 0 || row >= self.rows || !row.is_multiple_of(PANEL) {
            return None;
        }
        let Self { ty, rows, columns, source, range } = self;
        let middle = range.start + pack::packed_bytes(ty, row, columns)?;
        let first = Self { ty, rows: row, columns, source: source.clone(), range: range.start..middle };
        Some((first, Self { ty, rows: rows - row, columns, source, range: middle..range.end }))
    }

    /// Number of rows (outputs).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (inputs).
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Type of the weights.
    pub fn weight_type(&self) -> WeightType {
        self.ty
    }

    /// Bytes of the packed weights.
    pub fn size_bytes(&self) -> usize {
        self.packed().len()
    }

    /// Computes the product with each row of `input`: `out[r * stride + n]` for row `r` of the
    /// input and row `n` of the matrix. Elements between the rows of `out` are not modified.
    ///
    /// # Panics
    /// If the columns of `input` differ from the matrix, if `stride` is less than its rows, or if
    /// `out` is too short.
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
        assert_eq!(input.columns(), self.columns, "input columns must equal matrix columns");
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
            ($float:ident) => {{
                let values = input.values();
                pool.run(tasks, |task| {
                    let (from, weights) = (values.as_ptr(), weights.as_ptr());
                    // SAFETY: `set` is available, the shapes were compared above, and panels have
                    // disjoint rows.
                    unsafe {
                        with_simd!(set, S => floats::panels::<S, floats::$float>(
                            weights, self.columns, range(task), from, tokens, target(shared)
                        ));
                    }
                });
            }};
        }
        macro_rules! blocks {
            ($format:ident) => {{
                let group = self.ty.block_elements();
                let groups = self.columns / group;
                let input = input.quantized(pool, set, group);
                pool.run(tasks, |task| {
                    // SAFETY: `set` is available, `input` was made for it and this type, the shapes
                    // were compared above, and panels have disjoint rows.
                    unsafe {
                        with_simd!(set, S => product::panels::<S, formats::$format>(
                            weights.as_ptr(), groups, range(task), input, target(shared)
                        ));
                    }
                });
            }};
        }
        match self.ty {
            WeightType::F32 => floats!(F32),
            WeightType::F16 => floats!(F16),
            WeightType::Bf16 => floats!(Bf16),
            WeightType::Q4_0 => blocks!(Q4_0),
            WeightType::Q4_1 => blocks!(Q4_1),
            WeightType::Q5_0 => blocks!(Q5_0),
            WeightType::Q5_1 => blocks!(Q5_1),
            WeightType::Q8_0 => blocks!(Q8_0),
            WeightType::Q2K => blocks!(Q2K),
            WeightType::Q3K => blocks!(Q3K),
            WeightType::Q4K => blocks!(Q4K),
            WeightType::Q5K => blocks!(Q5K),
            WeightType::Q6K => blocks!(Q6K),
            WeightType::Iq4Nl => blocks!(Iq4Nl),
            WeightType::Iq4Xs => blocks!(Iq4Xs),
            WeightType::Mxfp4 => blocks!(Mxfp4),
        }
    }
}

/// Number of panels per task. Long ranges of memory read faster. Short ones balance the end of a
/// product, which matters more with many tokens.
fn chunk_of_panels(panels: usize, threads: usize, tokens: usize) -> usize {
    panels.div_ceil(threads * if tokens >= 16 { 32 } else { 8 })
}

/// Packs the rows of one panel, at most 32, from `from` into `to`, which is zeroed.
fn pack_panel(ty: WeightType, from: &[u8], row_bytes: usize, to: &mut [u8]) {
    let size = ty.block_bytes();
    if ty.block_elements() == 1 {
        for (row, from) in from.chunks_exact(row_bytes).enumerate() {
            for (index, bytes) in from.chunks_exact(size).enumerate() {
                to[(index * PANEL + row) * size..][..size].copy_from_slice(bytes);
            }
        }
        return;
    }
    let layout = layout(ty);
    let mut block = Block::empty();
    for (row, from) in from.chunks_exact(row_bytes).enumerate() {
        for (bytes, group) in from.chunks_exact(size).zip(to.chunks_exact_mut(layout.bytes())) {
            block.read(ty, bytes);
            pack::put_block(&layout, &block, row, group);
        }
    }
}

#[cfg(test)]
mod accuracy;
#[cfg(test)]
mod tests;
