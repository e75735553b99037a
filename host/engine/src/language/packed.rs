//! The file of a model's packed matrices: written at the first load, mapped at every later one,
//! shared by all processes that do.
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

/// The matrices `wanted` of `gguf` from the file in `slot`, which is written where there is no good
/// one. None where it can be neither read nor written: a cache that fails costs a warning, not the
/// model.
///
/// # Errors
///
/// When a tensor cannot be packed.
pub(super) fn matrices(
    slot: &PackedSlot,
    wanted: &[&MatrixSpec],
    gguf: &Gguf,
    pool: &Pool,
) -> Result<Option<PackedFile>, GgufError> {
    let path = path(slot);
    let shown = path.display();
    match PackedFile::open(slot, wanted, pool) {
        Ok(Some(file)) => return Ok(Some(file)),
        Ok(None) => {}
        Err(reason) => tracing::warn!("`{shown}` {reason}; the model is packed anew"),
    }
    match write::write(slot, wanted, gguf, pool) {
        Ok(file) => {
            tracing::info!(bytes = file.len(), "packed weights are written to `{shown}`");
            Ok(Some(file))
        }
        Err(WriteError::Gguf(error)) => Err(error),
        Err(WriteError::Busy) => {
            tracing::info!("`{shown}` is being written by another process; the model is packed in memory");
            Ok(None)
        }
        Err(error) => {
            tracing::warn!(
                "cannot write `{shown}`: {error}; the model is packed in memory, now and at each start until that is \
                 mended, or the model has `packed_cache = false`"
            );
            Ok(None)
        }
    }
}
