//! The arithmetic of a language model on a CPU: products with quantised matrices, attention over KV
//! blocks, and the small steps between them.
//!
//! Slices and shapes go in and out; there is no I/O, no clock and no global state but the chosen
//! instruction set. Matrices are `(rows, columns)` = (outputs, inputs), row-major where they are
//! plain slices; activations are `(rows, columns)` = (tokens, features).
//!
//! Layout:
//! - [`Pool`]: the threads;
//! - [`WeightType`], [`dequantize_row`]: the GGUF types as they lie in a file;
//! - [`QuantizedMatrix`], [`Activations`]: weights packed into panels, inputs as int8, and their
//!   product (`product`);
//! - [`AttentionShape`], [`attention`], [`Rope`], [`rope_and_store`]: KV blocks of [`BLOCK_TOKENS`]
//!   tokens;
//! - `simd`: the instruction sets, one file each, chosen at run time ([`instruction_set`]).
//!
//! docs/KERNELS.md explains layout and tiling with figures.

#[cfg(target_endian = "big")]
compile_error!("packed weights and GGUF files are little-endian");

mod activations;
mod attention;
mod buffer;
mod dequantize;
mod matrix;
mod norm;
mod pack;
mod pool;
mod product;
mod rope;
mod simd;
#[cfg(test)]
mod testing;
mod weight_type;

pub use activations::Activations;
pub use attention::{AttentionShape, BLOCK_TOKENS, Chunk, Span, attention};
pub use dequantize::dequantize_row;
pub use matrix::{PackError, PackedSource, QuantizedMatrix, Write};
pub use norm::rms_norm;
pub use pack::{PACKED_LAYOUT, packed_bytes};
pub use pool::Pool;
pub use rope::{Destination, Rope, RopeStyle, rope_and_store};
pub use simd::dispatch::{UnknownInstructionSet, instruction_set, instruction_sets, set_instruction_set};
pub use weight_type::WeightType;

/// A pointer that tasks of a pool share; each task keeps to its own part of what it points at.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: the pointer crosses threads only inside `Pool::run`, which outlives its tasks; each use
// says which part a task writes.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(values: &mut [T]) -> Self {
        Self(values.as_mut_ptr())
    }

    pub(crate) fn get(&self) -> *mut T {
        self.0
    }
}
