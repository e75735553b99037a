//! GGUF files from any bytes: parsed, made tokenizers, and used.
//! `host/engine/tests/data/tokenizers/*.gguf` are seeds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| infer_engine::fuzzing::gguf(bytes));
