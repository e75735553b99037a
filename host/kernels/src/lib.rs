//! Quantised matrix products and attention for CPUs: slices and shapes, no I/O.
mod attention;
mod matrix;
mod pool;
mod weights;
pub use attention::{AttentionShape, BLOCK_TOKENS, Chunk, Destination, Rope, RopeStyle, Span, attention, rope_and_store};
pub use matrix::{Activations, PackError, QuantizedMatrix, Write, rms_norm};
pub use pool::Pool;
pub use weights::{WeightType, dequantize_row};
