//! Components made interruptible throughout, before they are compiled.
//!
//! The compiler looks at the clock where a function begins and where a loop turns. Between two
//! looks a guest could fill all of its memory by one instruction, or run through megabytes of
//! straight code. Two changes to each core module bound that:
//!
//! - An instruction that fills, copies or initialises more than `CHUNK` bytes of memory calls a
//!   function that is added to the module. It checks the bounds of the whole, as the instruction
//!   does, and then works through it in chunks.
//! - Where a path through a function could be longer than a bound, an empty loop is put in, for its
//!   look at the clock.
//!
//! Nothing else changes: what is added comes after all that is there, so every index stays as it
//! was. Tables stay as they are: `table_elements` bounds them to what takes microseconds.

mod binary;
mod chunked;
mod module;
mod pace;
#[cfg(test)]
mod tests;

use binary::{COMPONENT, MODULE, PREAMBLE, push_section, sections};

/// The version of these changes, which machine code that is kept must agree with.
pub(crate) const VERSION: u8 = 1;

/// Components within components, and modules within these.
const MAX_NESTED: usize = 64;

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
