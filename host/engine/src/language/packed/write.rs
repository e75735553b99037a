//! Writing the file of packed matrices: under a temporary name, to the disk, and only then in its
//! place.
//!
//! A matrix is packed, written and let go before the next one, so packing takes the memory of the
//! largest. Files are never written or cut where they are: they are renamed into place and removed,
//! and whoever has one mapped keeps it.

use std::ffi::OsStr;
use std::fs::{File, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use infer_kernels::{PACKED_LAYOUT, Pool, packed_bytes};

use super::file::PackedFile;
use super::format::{HEADER_BYTES, MAGIC, PREFIX_BYTES, SECTION_ALIGNMENT, Section, Table, file_name, path};
use super::matrix::{MatrixSpec, pack};
use crate::files::Folder;
use crate::language::gguf::{Gguf, GgufError};
use crate::weights::{self, Bytes, PackedSlot};

/// Whose lock allows to write and remove files of the folder. It stays there, empty.
const LOCK: &str = ".lock";

/// What the file is called until it is whole.
const PARTIAL: &str = "partial";

/// What is left free of a disk: it has other users.
const ROOM_BYTES: u64 = 256 << 20;

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The model cannot be packed at all.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Another process is writing to the folder.
    #[error("another process is writing there")]
    Busy,
    /// The disk would be full.
    #[error("it takes {needed} bytes, {free} are free, and {ROOM_BYTES} of them are left to others")]
    Room { needed: u64, free: u64 },
    /// The names of the matrices take more than the header has.
    #[error("its table takes {0} bytes, more than 1 MiB")]
    Table(usize),
    /// The file system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Pack `wanted` of `gguf` into the file of `slot`. Files of older layouts, and of models that are
/// gone, are removed before.
pub(super) fn write(
    slot: &PackedSlot,
    wanted: &[&MatrixSpec],
    gguf: &Gguf,
    pool: &Pool,
) -> Result<PackedFile, WriteError> {
    let folder = Folder::create(&slot.folder)?;
    let lock = folder.lock_file(LOCK)?;
    // Held until `lock` is dropped. The system lets go of it when the process ends, however it
    // does.
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(WriteError::Busy),
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    remove_stale(&folder, slot)?;
    room(&folder, wanted)?;
    let path = path(slot);
    let name = file_name(&slot.sha256, PACKED_LAYOUT);
    // One name, so that what a crash has left is found.
    let partial = Path::new(&name).with_extension(PARTIAL);
    folder.remove_all(&partial)?;
    let written =
        fill(folder.create_file(&partial, 0o666)?, slot, wanted, gguf, pool).and_then(|(file, table)| {
            // What was packed has to be what the file's name says: the bytes that were hashed.
            gguf.check_unchanged()?;
            // Against being cut by mistake while it is mapped; replacing and removing it stay
            // possible.
            let mut permissions = file.metadata()?.permissions();
            permissions.set_readonly(true);
            file.set_permissions(permissions)?;
            file.sync_all()?;
            let bytes = Bytes::map_file(&file)?;
            folder.rename(&partial, &folder, &name)?;
            // The rename itself reaches the disk with its folder.
            let _ = folder.sync();
            bytes.populate();
            Ok(PackedFile::of(path, bytes, table))
        });
    if written.is_err() {
        let _ = folder.remove_file(&partial);
    }
    written
}

/// The file with everything in it, and its table.
fn fill(
    mut file: File,
    slot: &PackedSlot,
    wanted: &[&MatrixSpec],
    gguf: &Gguf,
    pool: &Pool,
) -> Result<(File, Table), WriteError> {
    let mut matrices = Vec::with_capacity(wanted.len());
    let mut offset = HEADER_BYTES;
    for wanted in wanted {
        let matrix = pack(gguf, pool, wanted)?;
        let packed = matrix.packed();
        file.seek(SeekFrom::Start(offset as u64))?;
        file.write_all(packed)?;
        matrices.push(Section {
            name: wanted.name.clone(),
            ggml_type: wanted.ty.to_ggml(),
            rows: wanted.rows,
            columns: wanted.columns,
            offset,
            length: packed.len(),
            crc32: crc32fast::hash(packed),
        });
        offset = (offset + packed.len()).next_multiple_of(SECTION_ALIGNMENT);
    }
    let table = Table { layout: PACKED_LAYOUT, sha256: slot.sha256.clone(), matrices };
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header(&table)?)?;
    Ok((file, table))
}

/// The header for `table`, whole.
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

/// That the disk of `folder` has room for `wanted`.
fn room(folder: &Folder, wanted: &[&MatrixSpec]) -> Result<(), WriteError> {
    let section = |wanted: &&MatrixSpec| {
        let bytes = packed_bytes(wanted.ty, wanted.rows, wanted.columns).unwrap_or(usize::MAX);
        bytes.saturating_add(SECTION_ALIGNMENT) as u64
    };
    let needed = wanted.iter().map(section).fold(HEADER_BYTES as u64, u64::saturating_add);
    let disk = rustix::fs::fstatvfs(folder).map_err(io::Error::from)?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < needed.saturating_add(ROOM_BYTES) {
        return Err(WriteError::Room { needed, free });
    }
    Ok(())
}

/// Remove what a crash has left, and files that no model needs any more: those of older layouts,
/// and of model files that are gone or were replaced. Called with the lock. A file that cannot be
/// removed is left.
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

/// Hash, layout and extension of a name that this program gives; nothing else in the folder is
/// touched.
fn parse(name: &str) -> Option<(&str, u32, &str)> {
    let (stem, extension) = name.rsplit_once('.')?;
    let (sha256, layout) = stem.split_once("-v")?;
    let ours = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    (ours && [PARTIAL, "packed"].contains(&extension)).then_some((sha256, layout.parse().ok()?, extension))
}
