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
mod shared;
mod simd;
#[cfg(test)]
mod testing;
mod weight_type;

pub use activations::Activations;
pub use attention::{AttentionShape, BLOCK_TOKENS, Chunk, Span, attention};
pub use dequantize::dequantize_row;
pub use matrix::{PackError, PackedSource, QuantizedMatrix};
pub use norm::rms_norm;
pub use pack::{PACKED_LAYOUT, packed_bytes};
pub use pool::Pool;
pub use product::output::Write;
pub use rope::{Destination, Rope, RopeStyle, rope_and_store};
pub use simd::dispatch::{UnknownInstructionSet, instruction_set, instruction_sets, set_instruction_set};
pub use weight_type::WeightType;
