//! `infer dummy`: a model file of full size whose weights are random, so that a box can be sized
//! before a download.
//!
//! Hyper-parameters, tokenizer and chat template are Phi-3 Mini's own; the types of its tensors are
//! those that llama.cpp gives them. Weights are written as blocks of random codes whose scales make
//! them about 0 on average, with a standard deviation of about 0.02. The header says `infer.dummy`,
//! and whatever runs on the file says DUMMY.

mod blocks;
mod builtin;
mod header;
mod phi3;

pub use builtin::builtin_phi3;
pub use phi3::{Mix, WARNING, Written, phi3};
