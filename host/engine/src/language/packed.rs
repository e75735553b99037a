//! The file of a model's packed matrices: written at the first load, mapped at every later one,
//! shared by all processes that do.
//!
//! # Format, little-endian
//!
//! | bytes | |
//! |---|---|
//! | 16 | [`MAGIC`], which names the format's version |
//! | 4, 4 | length and CRC-32 of the table |
//! | up to 1 MiB | the table in JSON, see [`Table`]; then zeros |
//! | the rest | sections, each one matrix as [`QuantizedMatrix::packed`] gives it, at a multiple of 64 KiB |
//!
//! Its name is the SHA-256 of the model's file and the version of the layout, so another model's or
//! another version's is not found. A file is used when its table and all its sections are as their
//! checksums say, and every matrix that the model needs is in it; otherwise it is written anew.
//! Checksums find damage, not malice: who may write the folder decides what the model answers.
//! Nothing in the file can lead outside of it, since offsets and lengths are compared with the
//! mapping, and packed bytes are plain numbers.

#[cfg(test)]
mod tests;
mod write;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use infer_kernels::{PACKED_LAYOUT, PackedSource, Pool, QuantizedMatrix, WeightType, packed_bytes};
use serde::{Deserialize, Serialize};

use super::gguf::{Gguf, GgufError, quoted};
use crate::files::Folder;
use crate::weights::{Bytes, PackedSlot};
use write::WriteError;

const MAGIC: &[u8; 16] = b"infer packed 1\r\n";

/// Magic, length and checksum of the table.
const PREFIX_BYTES: usize = 24;

/// Where the sections begin.
pub(super) const HEADER_BYTES: usize = 1 << 20;

/// The largest page of the targets, so that no two matrices share one.
pub(super) const SECTION_ALIGNMENT: usize = 64 << 10;

/// A matrix that a model needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The tensor's name in the GGUF file.
    pub(super) name: String,
    pub(super) ty: WeightType,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Wanted {
    /// The name of the bias that goes with it, where the file has one.
    pub(super) fn bias(&self) -> String {
        self.name.replace(".weight", ".bias")
    }
}

/// A file of packed matrices, checked and mapped.
pub(super) struct PackedFile {
    path: PathBuf,
    bytes: Arc<Bytes>,
    sections: HashMap<String, Section>,
}

#[derive(Serialize, Deserialize)]
struct Table {
    /// [`PACKED_LAYOUT`] of the program that wrote it.
    layout: u32,
    /// SHA-256 of the GGUF file.
    sha256: String,
    matrices: Vec<Section>,
}

#[derive(Serialize, Deserialize)]
struct Section {
    name: String,
    /// The type's number in GGUF files.
    ggml_type: u32,
    rows: usize,
    columns: usize,
    /// From the file's beginning.
    offset: usize,
    length: usize,
    crc32: u32,
}

/// The matrices `wanted` of `gguf` from the file in `slot`, which is written where there is no good
/// one. None where it can be neither read nor written: a cache that fails costs a warning, not the
/// model.
///
/// # Errors
///
/// When a tensor cannot be packed.
pub(super) fn matrices(
    slot: &PackedSlot,
    wanted: &[&Wanted],
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
            tracing::info!(bytes = file.bytes.len(), "packed weights are written to `{shown}`");
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

/// The tensor `wanted`, packed in memory. Its bytes in the file are not kept resident a second
/// time.
///
/// # Errors
///
/// When there is no such tensor, or memory is lacking.
pub(super) fn pack(gguf: &Gguf, pool: &Pool, wanted: &Wanted) -> Result<QuantizedMatrix, GgufError> {
    let Wanted { name, ty, rows, columns } = wanted;
    let tensor = gguf.require_tensor(name, &[*rows, *columns])?;
    let packed = QuantizedMatrix::pack(pool, *ty, tensor.data, *rows, *columns);
    let packed = packed.map_err(|error| GgufError::tensor(name, format!("cannot be packed: {error}")))?;
    gguf.forget(name);
    Ok(packed)
}

/// Where the file of `slot` is, for this version of the layout.
fn path(slot: &PackedSlot) -> PathBuf {
    slot.folder.join(file_name(&slot.sha256, PACKED_LAYOUT))
}

fn file_name(sha256: &str, layout: u32) -> String {
    format!("{sha256}-v{layout}.packed")
}

impl PackedFile {
    /// The file of `slot`, if there is one.
    ///
    /// # Errors
    ///
    /// Why the file that is there is of no use.
    fn open(slot: &PackedSlot, wanted: &[&Wanted], pool: &Pool) -> Result<Option<Self>, String> {
        let path = path(slot);
        let file = Folder::existing(&slot.folder)
            .and_then(|folder| folder.open_file(file_name(&slot.sha256, PACKED_LAYOUT)));
        let file = match file {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(format!("cannot be opened: {error}")),
        };
        let bytes = Bytes::map_file(&file).map_err(|error| format!("cannot be mapped: {error}"))?;
        let table = read_table(&bytes)?;
        if table.layout != PACKED_LAYOUT || table.sha256 != slot.sha256 {
            let Table { layout, sha256, .. } = table;
            return Err(format!(
                "is of layout {layout} and of the model with sha256 {}, expected layout {PACKED_LAYOUT} and {}",
                quoted(&sha256),
                slot.sha256
            ));
        }
        check_sections(&table.matrices, wanted, bytes.len())?;
        bytes.populate();
        check_sums(&table.matrices, &bytes, pool)?;
        Ok(Some(Self::of(path, bytes, table)))
    }

    fn of(path: PathBuf, bytes: Bytes, table: Table) -> Self {
        let sections = table.matrices.into_iter().map(|section| (section.name.clone(), section)).collect();
        PackedFile { path, bytes: Arc::new(bytes), sections }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The matrix `wanted`, read where it lies in the mapping.
    ///
    /// # Errors
    ///
    /// When the file has no such matrix: never for those that it was opened with.
    pub(super) fn matrix(&self, wanted: &Wanted) -> Result<QuantizedMatrix, GgufError> {
        let Wanted { name, ty, rows, columns } = wanted;
        let path = self.path.display();
        let section = self.sections.get(name);
        let section = section
            .ok_or_else(|| GgufError::tensor(name, format!("is not in `{path}`; remove that file")))?;
        let range = section.offset..section.offset.saturating_add(section.length);
        let source: PackedSource = self.bytes.clone();
        QuantizedMatrix::from_packed(*ty, source, range, *rows, *columns)
            .map_err(|error| GgufError::tensor(name, format!("is not in `{path}`: {error}")))
    }
}

/// The table at the beginning of `bytes`, which is as its checksum says.
fn read_table(bytes: &[u8]) -> Result<Table, String> {
    let header = bytes.get(..HEADER_BYTES);
    let header = header.ok_or_else(|| format!("ends at byte {}, within its header", bytes.len()))?;
    let (prefix, rest) = header.split_at(PREFIX_BYTES);
    let Some([length, crc32]) = prefix.strip_prefix(MAGIC).and_then(|numbers| {
        let (numbers, _) = numbers.as_chunks::<4>();
        Some([u32::from_le_bytes(*numbers.first()?), u32::from_le_bytes(*numbers.get(1)?)])
    }) else {
        return Err("is no file of packed weights of this version".to_owned());
    };
    let table = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let table = table.ok_or_else(|| format!("has a table of {length} bytes, expected at most 1 MiB"))?;
    if crc32fast::hash(table) != crc32 {
        return Err("has a damaged table: its checksum differs".to_owned());
    }
    serde_json::from_slice(table).map_err(|error| format!("has a table that cannot be read: {error}"))
}

/// That each section lies within the file and has the length of its shape, and that all that is
/// wanted is among them.
fn check_sections(sections: &[Section], wanted: &[&Wanted], file_bytes: usize) -> Result<(), String> {
    let mut found = HashMap::with_capacity(sections.len());
    for section in sections {
        let Section { rows, columns, offset, length, .. } = *section;
        let ty = WeightType::from_ggml(section.ggml_type);
        let end = offset.checked_add(length).filter(|&end| offset >= HEADER_BYTES && end <= file_bytes);
        let expected = ty.and_then(|ty| packed_bytes(ty, rows, columns));
        if end.is_none() || expected != Some(length) || !offset.is_multiple_of(SECTION_ALIGNMENT) {
            return Err(format!(
                "has matrix {} with {length} bytes at {offset} of {file_bytes}, expected {} within the file, at a multiple \
                 of {SECTION_ALIGNMENT}",
                quoted(&section.name),
                expected.map_or("a shape that exists".to_owned(), |expected| expected.to_string()),
            ));
        }
        if found.insert(section.name.as_str(), (ty, rows, columns)).is_some() {
            return Err(format!("has matrix {} twice", quoted(&section.name)));
        }
    }
    for Wanted { name, ty, rows, columns } in wanted {
        match found.get(name.as_str()) {
            Some(shape) if *shape == (Some(*ty), *rows, *columns) => {}
            Some((_, other_rows, other_columns)) => {
                return Err(format!(
                    "has matrix {} of ({other_rows}, {other_columns}), or of another type; the model has it as {ty} of \
                     ({rows}, {columns})",
                    quoted(name)
                ));
            }
            None => return Err(format!("lacks matrix {}", quoted(name))),
        }
    }
    Ok(())
}

/// That the sections' bytes are those that were written. All of them are read, which is what a
/// first request would do.
fn check_sums(sections: &[Section], bytes: &[u8], pool: &Pool) -> Result<(), String> {
    let damaged = AtomicUsize::new(usize::MAX);
    pool.run(sections.len(), |index| {
        let Section { offset, length, crc32, .. } = sections[index];
        if crc32fast::hash(&bytes[offset..offset + length]) != crc32 {
            damaged.fetch_min(index, Ordering::Relaxed);
        }
    });
    match sections.get(damaged.into_inner()) {
        Some(section) => Err(format!("is damaged: the checksum of matrix {} differs", quoted(&section.name))),
        None => Ok(()),
    }
}
