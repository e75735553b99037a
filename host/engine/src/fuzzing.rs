//! Entry points of the fuzz targets.

/// Parses `bytes` as a GGUF file and uses everything that it gives.
pub fn gguf(bytes: &[u8]) {
    crate::language::hostile::exercise(bytes);
}

/// Reads `bytes` as a tokenizer's file and encodes texts with it.
pub fn tokenizer(bytes: &[u8]) {
    crate::encoder::exercise(bytes);
}
