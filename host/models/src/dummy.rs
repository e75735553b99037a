//! `infer dummy`: writes a model file of full size with random weights, to size a machine before a
//! download.
//!
//! Hyper-parameters, tokenizer and chat template are those of Phi-3 Mini; the tensors have the
//! types that llama.cpp chooses. Weights are blocks of random codes, with scales that give a mean
//! of about 0 and a standard deviation of about 0.02. The header contains `infer.dummy`, and every
//! command that loads the file prints DUMMY.

mod blocks;
mod builtin;
mod header;
mod phi3;

pub use builtin::builtin_phi3;
pub use phi3::{Mix, WARNING, Written, phi3};
