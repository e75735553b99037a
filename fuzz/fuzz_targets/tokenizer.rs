//! Tokenizers' files from any bytes: reads them, and encodes texts with them.
//! `tests/data/text-models/*/tokenizer.json` are seeds.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| infer_engine::fuzzing::tokenizer(bytes));
