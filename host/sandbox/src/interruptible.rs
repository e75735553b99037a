//! Components made interruptible throughout, before they are compiled.
//!
//! The compiler looks at the clock where a function begins and where a loop turns. Between two
//! looks a guest could fill all of its memory by one instruction, or run through megabytes of
//! straight code. Two changes to each core module bound that:
//!
//! - An instruction that fills, copies or initialises more than [`CHUNK`] bytes of memory calls a
//!   function that is added to the module. It checks the bounds of the whole, as the instruction
//!   does, and then works through it in chunks.
//! - Where a path through a function could be longer than a bound, an empty loop is put in, for its
//!   look at the clock.
//!
//! Nothing else changes: what is added comes after all that is there, so every index stays as it
//! was. Tables stay as they are: `table_elements` bounds them to what takes microseconds.

mod chunked;
mod module;
mod pace;
#[cfg(test)]
mod tests;

use wasm_encoder::Encode as _;
use wasmparser::BinaryReader;

/// The version of these changes, which machine code that is kept must agree with.
pub(crate) const VERSION: u8 = 1;

/// Bytes of memory that one instruction may touch: some 20 µs, and 64 page faults where it is
/// fresh.
const CHUNK: u32 = 256 << 10;

/// Components within components, and modules within these.
const MAX_NESTED: usize = 64;

/// The preamble of either layer: magic number, version, layer.
const PREAMBLE: usize = 8;
const MODULE: &[u8; PREAMBLE] = b"\0asm\x01\0\0\0";
const COMPONENT: &[u8; PREAMBLE] = b"\0asm\x0d\0\x01\0";

/// Sections of a component that hold binaries.
const CORE_MODULE_SECTION: u8 = 1;
const COMPONENT_SECTION: u8 = 4;

/// The same component, interruptible throughout.
///
/// # Errors
///
/// Why `binary` cannot be read. The compiler takes none of these, and explains them better.
pub(crate) fn interruptible(binary: &[u8]) -> Result<Vec<u8>, String> {
    nested(binary, 0)
}

fn nested(binary: &[u8], depth: usize) -> Result<Vec<u8>, String> {
    if depth > MAX_NESTED {
        return Err(format!("components are nested more than {MAX_NESTED} deep"));
    }
    match binary.first_chunk::<PREAMBLE>() {
        Some(MODULE) => module::interruptible(binary).map_err(|error| error.to_string()),
        Some(COMPONENT) => {
            let mut output = COMPONENT.to_vec();
            for section in sections(binary) {
                let (id, content) = section.map_err(|error| error.to_string())?;
                match id {
                    CORE_MODULE_SECTION | COMPONENT_SECTION => {
                        push_section(&mut output, id, &nested(content, depth + 1)?);
                    }
                    _ => push_section(&mut output, id, content),
                }
            }
            Ok(output)
        }
        _ => Err("neither a module nor a component of a known version".to_owned()),
    }
}

/// The sections of a binary behind its preamble, each with its number.
fn sections(binary: &[u8]) -> impl Iterator<Item = wasmparser::Result<(u8, &[u8])>> {
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

fn push_section(output: &mut Vec<u8>, id: u8, content: &[u8]) {
    output.push(id);
    content.encode(output);
}
