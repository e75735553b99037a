//! The decoder against golden logits, and the engine against itself.

mod engine;
mod golden;
mod greedy;
mod perplexity;
pub(super) mod support;
