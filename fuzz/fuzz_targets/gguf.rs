//! GGUF files from any bytes: parses them, builds tokenizers, and uses them.
//! The small files of all families, weight types and tokenizers are seeds, and a file in parts.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| infer_engine::fuzzing::gguf(bytes));
