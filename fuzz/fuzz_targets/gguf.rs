//! GGUF files from any bytes: parses them, builds tokenizers, and uses them.
//! `host/engine/tests/data/tokenizers/*.gguf` are seeds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| infer_engine::fuzzing::gguf(bytes));
