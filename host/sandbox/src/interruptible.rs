//! Makes components interruptible throughout, before they are compiled.
//!
//! Compiled code checks the clock at the start of each function and each loop iteration. Between
//! two checks a guest could fill all of its memory by one instruction, or run through megabytes of
//! straight code. Two changes to each core module bound that:
//!
//! - An instruction that fills, copies or initialises more than `CHUNK` bytes of memory calls a
//!   function that is added to the module. It checks the bounds of the whole range, as the
//!   instruction does, and then works through it in chunks.
//! - If a path through a function could exceed the limit without a check, an empty loop is
//!   inserted, for its check of the clock.
//!
//! Nothing else changes: additions follow all existing items, so every index stays the same. Table
//! instructions stay as they are: `table_elements` bounds them to microseconds.

mod binary;
mod chunked;
mod module;
mod pace;
#[cfg(test)]
mod tests;

use binary::{COMPONENT, MODULE, PREAMBLE, push_section, sections};

use crate::limits::MAX_MODULE_DEPTH;

/// Version of these changes, which cached machine code must match.
pub(crate) const VERSION: u8 = 1;

/// Sections of a component that contain binaries.
const CORE_MODULE_SECTION: u8 = 1;
const COMPONENT_SECTION: u8 = 4;

/// Returns the same component, interruptible throughout.
///
/// # Errors
///
/// When `binary` cannot be read. The compiler rejects all of these too, with a better explanation.
pub(crate) fn interruptible(binary: &[u8]) -> Result<Vec<u8>, String> {
    nested(binary, 0)
}

fn nested(binary: &[u8], depth: usize) -> Result<Vec<u8>, String> {
    if depth > MAX_MODULE_DEPTH {
        return Err(format!("components are nested more than {MAX_MODULE_DEPTH} deep"));
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
