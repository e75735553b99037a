//! Writing of packed files: under a temporary name, synced to disk, and then renamed.
//!
//! Each matrix is packed, written and freed before the next one, so that packing needs the memory
//! of the largest matrix. A file is never modified or truncated in place. It is replaced by a
//! rename or removed, and processes that have it mapped keep their mapping.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use infer_kernels::{PACKED_LAYOUT, Pool, packed_bytes};

use super::file::PackedFile;
use super::format::{HEADER_BYTES, MAGIC, PREFIX_BYTES, SECTION_ALIGNMENT, Section, Table, file_name, path};
use super::matrix::{MatrixSpec, pack};
use crate::files::{Folder, RESERVED_BYTES, free_bytes};
use crate::language::gguf::{Gguf, GgufError};
use crate::weights::{self, Bytes, PackedSlot};

/// Name of the lock file for writing to and removing from the folder. It remains there, empty.
const LOCK: &str = ".lock";

/// Extension of a file that is not complete.
const PARTIAL: &str = "partial";

/// Reason that no file was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The model cannot be packed.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Another process is writing to the folder.
    #[error("another process is writing there")]
    Busy,
    /// The disk does not have enough space.
    #[error(
        "it needs {needed} bytes, but {free} are free, of which {RESERVED_BYTES} are reserved for other users"
    )]
    Room { needed: u64, free: u64 },
    /// The table of matrices exceeds the header.
    #[error("its table takes {0} bytes, expected at most 1 MiB")]
    Table(usize),
    /// An error of the file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Packs the matrices `specs` of `gguf` into the file of `slot`. First removes files of older
/// layouts, and of models that no longer exist.
pub(super) fn write(
    slot: &PackedSlot,
    specs: &[&MatrixSpec],
    gguf: &Gguf,
    pool: &Pool,
) -> Result<PackedFile, WriteError> {
    let folder = Folder::create(&slot.folder)?;
    let lock = folder.lock_file(LOCK)?;
    // Held until `lock` is dropped. The system releases it when the process ends.
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(WriteError::Busy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    remove_stale(&folder, slot)?;
    room(&folder, specs)?;
    let path = path(slot);
    let name = file_name(&slot.sha256, PACKED_LAYOUT);
    // A fixed name, so that the remains of a crash are found.
    let partial = Path::new(&name).with_extension(PARTIAL);
    folder.remove_all(&partial)?;
    let written =
        fill(folder.create_file(&partial, 0o666)?, slot, specs, gguf, pool).and_then(|(file, table)| {
            // The packed data must be of the bytes that were hashed, because the hash is the file's
            // name.
            gguf.check_unchanged()?;
            // Protects the mapping from accidental truncation. The file can still be replaced and
            // removed.
            let mut permissions = file.metadata()?.permissions();
            permissions.set_readonly(true);
            file.set_permissions(permissions)?;
            file.sync_all()?;
            let bytes = Bytes::map_file(&file)?;
            folder.rename(&partial, &folder, &name)?;
            // Syncing the folder persists the rename.
            let _ = folder.sync();
            bytes.populate();
            Ok(PackedFile::of(path, bytes, table))
        });
    if written.is_err() {
        let _ = folder.remove_file(&partial);
    }
    written
}

/// Writes all sections and the header. Returns the file and its table.
fn fill(
    mut file: File,
    slot: &PackedSlot,
    specs: &[&MatrixSpec],
    gguf: &Gguf,
    pool: &Pool,
) -> Result<(File, Table), WriteError> {
    let mut matrices = Vec::with_capacity(specs.len());
    let mut offset = HEADER_BYTES;
    for spec in specs {
        let matrix = pack(gguf, pool, spec)?;
        let packed = matrix.packed();
        file.seek(SeekFrom::Start(offset as u64))?;
        file.write_all(packed)?;
        matrices.push(Section {
            name: spec.name.clone(),
            ggml_type: spec.ty.to_ggml(),
            rows: spec.rows,
            columns: spec.columns,
            offset,
            length: packed.len(),
            crc32: crc32fast::hash(packed),
        });
        offset = (offset + packed.len()).next_multiple_of(SECTION_ALIGNMENT);
    }
    let table = Table { layout: PACKED_LAYOUT, sha256: slot.content.clone(), matrices };
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(&table)?)?;
    Ok((file, table))
}

/// The complete header for `table`.
pub(super) fn header(table: &Table) -> Result<Vec<u8>, WriteError> {
    let text = serde_json::to_vec(table).map_err(io::Error::from)?;
    let length = u32::try_from(text.len()).ok().filter(|_| text.len() <= HEADER_BYTES - PREFIX_BYTES);
    let length = length.ok_or(WriteError::Table(text.len()))?;
    let mut header = MAGIC.to_vec();
    header.extend(length.to_le_bytes());
    header.extend(crc32fast::hash(&text).to_le_bytes());
    header.extend(text);
    header.resize(HEADER_BYTES, 0);
    Ok(header)
}

/// Checks that the disk of `folder` has enough space for `specs`.
fn room(folder: &Folder, specs: &[&MatrixSpec]) -> Result<(), WriteError> {
    let section = |spec: &&MatrixSpec| {
        let bytes = packed_bytes(spec.ty, spec.rows, spec.columns).unwrap_or(usize::MAX);
        bytes.saturating_add(SECTION_ALIGNMENT) as u64
    };
    let needed = specs.iter().map(section).fold(HEADER_BYTES as u64, u64::saturating_add);
    let free = free_bytes(folder)?;
    if free < needed.saturating_add(RESERVED_BYTES) {
        return Err(WriteError::Room { needed, free });
    }
    Ok(())
}

/// Removes the remains of crashes, and files that no model needs any more: those of older layouts,
/// and of model files that were removed or replaced. The caller holds the lock. A file that cannot
/// be removed is left.
fn remove_stale(folder: &Folder, slot: &PackedSlot) -> io::Result<()> {
    let known = weights::known(&slot.folder);
    for name in folder.names()? {
        let Some((sha256, layout, extension)) = name.to_str().and_then(parse) else { continue };
        let needed = sha256 == slot.sha256 || known.iter().any(|known| known == sha256);
        if extension == PARTIAL || layout < PACKED_LAYOUT || !needed {
            remove(folder, &name);
        }
    }
    Ok(())
}

fn remove(folder: &Folder, name: &OsStr) {
    let path = folder.join(name);
    let shown = path.display();
    match folder.remove_file(name) {
        Ok(()) => tracing::info!("removed `{shown}`, which no model needs any more"),
        Err(error) => tracing::warn!("cannot remove `{shown}`, which no model needs any more: {error}"),
    }
}

/// Hash, layout and extension of a name that this program assigns. Other files in the folder are
/// not touched.
fn parse(name: &str) -> Option<(&str, u32, &str)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (sha256, layout) = stem.split_once("-v")?;
    let ours = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    (ours && [PARTIAL, "packed"].contains(&extension)).then_some((sha256, layout.parse().ok()?, extension))
}
