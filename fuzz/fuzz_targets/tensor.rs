//! Tensors: see `bodies.rs` for the invariants.
#![no_main]

#[path = "../bodies.rs"]
#[expect(dead_code, reason = "other targets' bodies")]
mod bodies;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bodies::tensor(bytes));
