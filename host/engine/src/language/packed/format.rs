//! The format of a packed file, little-endian.
//!
//!  | bytes | |
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

use std::collections::HashMap;
use std::path::PathBuf;

use infer_kernels::{PACKED_LAYOUT, WeightType, packed_bytes};
use serde::{Deserialize, Serialize};

use super::matrix::MatrixSpec;
use crate::language::gguf::quoted;
use crate::weights::PackedSlot;

pub(super) const MAGIC: &[u8; 16] = b"infer packed 1\r\n";

/// Magic, length and checksum of the table.
pub(super) const PREFIX_BYTES: usize = 24;

/// Where the sections begin.
pub(crate) const HEADER_BYTES: usize = 1 << 20;

/// The largest page of the targets, so that no two matrices share one.
pub(crate) const SECTION_ALIGNMENT: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
pub(super) struct Table {
    /// [`PACKED_LAYOUT`] of the program that wrote it.
    pub(super) layout: u32,
    /// SHA-256 of the GGUF file.
    pub(super) sha256: String,
    pub(super) matrices: Vec<Section>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) name: String,
    /// The type's number in GGUF files.
    pub(super) ggml_type: u32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// From the file's beginning.
    pub(super) offset: usize,
    pub(super) length: usize,
    pub(super) crc32: u32,
}

/// Where the file of `slot` is, for this version of the layout.
pub(super) fn path(slot: &PackedSlot) -> PathBuf {
    slot.folder.join(file_name(&slot.sha256, PACKED_LAYOUT))
}

pub(super) fn file_name(sha256: &str, layout: u32) -> String {
    format!("{sha256}-v{layout}.packed")
}

/// The table at the beginning of `bytes`, which is as its checksum says.
pub(super) fn read_table(bytes: &[u8]) -> Result<Table, String> {
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
pub(super) fn check_sections(
    sections: &[Section],
    wanted: &[&MatrixSpec],
    file_bytes: usize,
) -> Result<(), String> {
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
    for MatrixSpec { name, ty, rows, columns } in wanted {
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
