//! Sections of a WebAssembly binary.

use wasm_encoder::Encode as _;
use wasmparser::BinaryReader;

/// Length of the preamble: magic number, version, layer.
pub(super) const PREAMBLE: usize = 8;
pub(super) const MODULE: &[u8; PREAMBLE] = b"\0asm\x01\0\0\0";
pub(super) const COMPONENT: &[u8; PREAMBLE] = b"\0asm\x0d\0\x01\0";

/// The sections of a binary after its preamble, each with its identifier.
pub(super) fn sections(binary: &[u8]) -> impl Iterator<Item = wasmparser::Result<(u8, &[u8])>> {
    let mut reader = BinaryReader::new(&binary[PREAMBLE..], PREAMBLE);
    let mut is_broken = false;
    std::iter::from_fn(move || {
        if is_broken || reader.eof() {
            return None;
        }
        let mut section = || {
            let id = reader.read_u8()?;
            let size = reader.read_var_u32()?;
            Ok((id, reader.read_bytes(size as usize)?))
        };
        let section = section();
        is_broken = section.is_err();
        Some(section)
    })
}

pub(super) fn push_section(output: &mut Vec<u8>, id: u8, content: &[u8]) {
    output.push(id);
    content.encode(output);
}
