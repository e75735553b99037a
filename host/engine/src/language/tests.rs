//! The decoder against golden logits, and the engine against itself.

mod engine;
mod golden;
pub(super) mod support;
