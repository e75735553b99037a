//! `infer dummy`: writes a model file of full size with random weights, to size a machine before a
//! download.
//!
//! Hyper-parameters are those of the named model, and the tensors have the types that llama.cpp
//! chooses. Phi-3 Mini has its own tokenizer and chat template, other models a made-up vocabulary
//! of their size. Weights are blocks of random codes, with scales that give a mean of about 0 and a
//! standard deviation of about 0.02. The header contains `infer.dummy`, and every
//! command that loads the file prints DUMMY.

mod blocks;
mod builtin;
mod file;
mod header;
mod mix;
mod sizes;
mod vocabulary;

pub use builtin::builtin_phi3;
pub use file::{WARNING, Written, write};
pub use mix::Mix;
pub use sizes::Model;
