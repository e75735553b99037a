//! The file of a model's packed matrices: written at the first load, mapped at later ones, and
//! shared by all processes that map it.

mod file;
mod format;
mod matrix;
#[cfg(test)]
mod tests;
mod write;

use infer_kernels::Pool;

use super::gguf::{Gguf, GgufError};
use crate::weights::PackedSlot;
pub(super) use file::PackedFile;
use format::path;
pub(super) use format::{HEADER_BYTES, SECTION_ALIGNMENT};
pub(super) use matrix::{MatrixSpec, pack};
use write::WriteError;

/// Opens the file in `slot` with the matrices `specs` of `gguf`, or writes it if it is missing or
/// invalid. Returns `None` if it can be neither read nor written: a failing cache costs a warning,
/// not the model.
///
/// # Errors
///
/// If a tensor cannot be packed.
pub(super) fn matrices(
    slot: &PackedSlot,
    specs: &[&MatrixSpec],
    gguf: &Gguf,
    pool: &Pool,
) -> Result<Option<PackedFile>, GgufError> {
    let path = path(slot);
    let shown = path.display();
    match PackedFile::open(slot, specs, pool) {
        Ok(Some(file)) => return Ok(Some(file)),
        Ok(None) => {}
        Err(reason) => tracing::warn!("`{shown}` {reason}; the model is packed again"),
    }
    match write::write(slot, specs, gguf, pool) {
        Ok(file) => {
            tracing::info!(bytes = file.len(), "wrote packed weights to `{shown}`");
            Ok(Some(file))
        }
        Err(WriteError::Gguf(error)) => Err(error),
        Err(WriteError::Busy) => {
            tracing::info!("`{shown}` is being written by another process; the model is packed in memory");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(
                "cannot write `{shown}`: {error}; the model is packed in memory at each start; fix the \
                 cause, or set `packed_cache = false` for the model"
            );
            Ok(None)
        }
    }
}
