//! Entry points of the fuzz targets.

/// Parses `bytes` as a GGUF file and uses everything that it gives.
pub fn gguf(bytes: &[u8]) {
    crate::language::hostile::exercise(bytes);
}
