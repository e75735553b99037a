//! CPU kernels for language models: products with quantised matrices, attention over KV blocks, and
//! the element-wise steps between them.
//!
//! Functions take slices and shapes. There is no I/O, no clock, and no global state except the
//! chosen instruction set. Matrices are `(rows, columns)` = (outputs, inputs), row-major where they
//! are plain slices; activations are `(rows, columns)` = (tokens, features).
//!
//! # Layout
//!
//! - [`Pool`]: the worker threads (`shared`: the pointer that their tasks share)
//! - [`WeightType`], [`dequantize_row`]: weight types of GGUF files
//! - [`QuantizedMatrix`], [`Activations`]: packed weights (`layout`, `pack`, `buffer`), quantised
//!   inputs, and their product (`product`)
//! - [`AttentionShape`], [`KvType`], [`attention`], [`Rope`], [`HeadNorms`], [`rope_and_store`]:
//!   attention over KV blocks of [`BLOCK_TOKENS`] tokens
//! - `limits`: the fixed limits
//! - [`rms_norm`], [`add_rms_norm`], [`soft_cap`], [`Activation`]: steps on rows
//! - `simd`: the instruction sets, one file each, chosen at run time ([`instruction_set`])
//!
//! docs/KERNELS.md explains layout and tiling with figures.

#[cfg(target_endian = "big")]
compile_error!("packed weights and GGUF files are little-endian, so the host must be as well");

mod activations;
mod attention;
mod buffer;
mod dequantize;
mod layout;
mod limits;
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
pub use attention::{AttentionShape, BLOCK_TOKENS, Chunk, KvType, Span, attention};
pub use dequantize::dequantize_row;
pub use matrix::{PackError, PackedSource, QuantizedMatrix};
pub use norm::{Activation, add_rms_norm, rms_norm, soft_cap};
pub use pack::{PACKED_LAYOUT, packed_bytes};
pub use pool::Pool;
pub use product::output::Write;
pub use rope::{Destination, HeadNorms, Rope, RopeStyle, rope_and_store};
pub use simd::dispatch::{UnknownInstructionSet, instruction_set, instruction_sets, set_instruction_set};
pub use weight_type::WeightType;
