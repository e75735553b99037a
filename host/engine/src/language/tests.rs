//! The decoder against golden logits, and the engine against itself.

mod engine;
mod golden;
mod greedy;
pub(super) mod support;
