//! The decoder against golden logits, and the engine against itself.

mod answers;
mod engine;
mod golden;
mod greedy;
mod perplexity;
mod refusals;
pub(super) mod support;
