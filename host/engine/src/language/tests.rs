//! Tests of the decoder against golden logits, and of the engine's invariants.

mod answers;
mod engine;
mod formats;
mod golden;
mod greedy;
mod int8;
mod parts;
mod perplexity;
mod prompts;
mod refusals;
pub(super) mod support;
