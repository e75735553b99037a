//! The format of a packed file, little-endian.
//!
//! | bytes | |
//! |---|---|
//! | 16 | [`MAGIC`], which includes the version of the format |
//! | 4, 4 | length and CRC-32 of the table |
//! | up to 1 MiB | the table in JSON, see [`Table`]; then zeros |
//! | the rest | sections: each one matrix in the packed layout, at a multiple of 64 KiB |
//!
//! The name of the file is the SHA-256 of the model's first file and the version of the layout. A
//! file of another model or version is not used. A file is valid if its table and all its sections
//! match their checksums, and if it contains every matrix that the model needs. Otherwise it is
//! rewritten. Checksums detect damage, not malice: anyone who can write to the folder controls the
//! model's answers. The file cannot cause reads outside of it, because offsets and lengths are
//! checked against the mapping, and packed bytes are plain numbers.

use std::collections::HashMap;
use std::path::PathBuf;

use infer_kernels::{PACKED_LAYOUT, WeightType, packed_bytes};
use serde::{Deserialize, Serialize};

use super::matrix::MatrixSpec;
use crate::language::gguf::quoted;
use crate::weights::PackedSlot;

pub(super) const MAGIC: &[u8; 16] = b"infer packed 1\r\n";

/// Magic, and length and checksum of the table.
pub(super) const PREFIX_BYTES: usize = 24;

/// Offset of the first section.
pub(crate) const HEADER_BYTES: usize = 1 << 20;

/// The largest page size of the supported targets, so that no two matrices share a page.
pub(crate) const SECTION_ALIGNMENT: usize = 64 << 10;

#[derive(Serialize, Deserialize)]
pub(super) struct Table {
    /// [`PACKED_LAYOUT`] of the program that wrote the file.
    pub(super) layout: u32,
    /// SHA-256 of the GGUF file, or over the hashes of its parts.
    pub(super) sha256: String,
    pub(super) matrices: Vec<Section>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) name: String,
    /// Number of the type in GGUF files.
    pub(super) ggml_type: u32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Offset from the start of the file.
    pub(super) offset: usize,
    pub(super) length: usize,
    pub(super) crc32: u32,
}

/// Path of the file of `slot`, for this version of the layout.
pub(super) fn path(slot: &PackedSlot) -> PathBuf {
    slot.folder.join(file_name(&slot.sha256, PACKED_LAYOUT))
}

pub(super) fn file_name(sha256: &str, layout: u32) -> String {
    format!("{sha256}-v{layout}.packed")
}

/// Reads the table at the start of `bytes`, and verifies its checksum.
pub(super) fn read_table(bytes: &[u8]) -> Result<Table, String> {
    let header = bytes.get(..HEADER_BYTES);
    let header = header.ok_or_else(|| format!("ends at byte {}, within its header", bytes.len()))?;
    let (prefix, rest) = header.split_at(PREFIX_BYTES);
    let Some([length, crc32]) = prefix.strip_prefix(MAGIC).and_then(|numbers| {
        let (numbers, _) = numbers.as_chunks::<4>();
        Some([u32::from_le_bytes(*numbers.first()?), u32::from_le_bytes(*numbers.get(1)?)])
    }) else {
        return Err("is not a packed file of this version".to_owned());
    };
    let table = usize::try_from(length).ok().and_then(|length| rest.get(..length));
    let table = table.ok_or_else(|| format!("has a table of {length} bytes, expected at most 1 MiB"))?;
    if crc32fast::hash(table) != crc32 {
        return Err("has a damaged table: its checksum differs".to_owned());
    }
    serde_json::from_slice(table).map_err(|error| format!("has a table that cannot be read: {error}"))
}

/// Checks that each section lies within the file and has the length of its shape, and that all
/// matrices `specs` are present.
pub(super) fn check_sections(
    sections: &[Section],
    specs: &[&MatrixSpec],
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
                "has matrix {} with {length} bytes at {offset} of {file_bytes}, expected {} within the \
                 file, at a multiple of {SECTION_ALIGNMENT}",
                quoted(&section.name),
                expected.map_or("a valid shape".to_owned(), |expected| expected.to_string()),
            ));
        }
        if found.insert(section.name.as_str(), (ty, rows, columns)).is_some() {
            return Err(format!("has matrix {} twice", quoted(&section.name)));
        }
    }
    for MatrixSpec { name, ty, rows, columns } in specs {
        match found.get(name.as_str()) {
            Some(shape) if *shape == (Some(*ty), *rows, *columns) => {}
            Some((_, other_rows, other_columns)) => {
                return Err(format!(
                    "has matrix {} with shape ({other_rows}, {other_columns}) or another type; the model \
                     needs {ty} with shape ({rows}, {columns})",
                    quoted(name)
                ));
            }
            None => return Err(format!("lacks matrix {}", quoted(name))),
        }
    }
    Ok(())
}
