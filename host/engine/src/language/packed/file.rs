//! A packed file, opened: verified against its checksums, and mapped.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use infer_kernels::{PACKED_LAYOUT, PackedSource, Pool, QuantizedMatrix};

use super::format::{Section, Table, check_sections, file_name, path, read_table};
use super::matrix::MatrixSpec;
use crate::files::Folder;
use crate::language::gguf::{GgufError, quoted};
use crate::weights::{Bytes, PackedSlot};

/// A verified and mapped file of packed matrices.
pub(crate) struct PackedFile {
    pub(super) path: PathBuf,
    pub(super) bytes: Arc<Bytes>,
    pub(super) sections: HashMap<String, Section>,
}

impl PackedFile {
    /// Opens the file of `slot`, if it exists.
    ///
    /// # Errors
    ///
    /// If the file is invalid; the message is a predicate for the path.
    pub(super) fn open(
        slot: &PackedSlot,
        specs: &[&MatrixSpec],
        pool: &Pool,
    ) -> Result<Option<Self>, String> {
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
        if table.layout != PACKED_LAYOUT || table.sha256 != slot.content {
            let Table { layout, sha256, .. } = table;
            return Err(format!(
                "has layout {layout} and model sha256 {}, expected layout {PACKED_LAYOUT} and {}",
                quoted(&sha256),
                slot.content
            ));
        }
        check_sections(&table.matrices, specs, bytes.len())?;
        bytes.populate();
        check_sums(&table.matrices, &bytes, pool)?;
        Ok(Some(Self::of(path, bytes, table)))
    }

    pub(super) fn of(path: PathBuf, bytes: Bytes, table: Table) -> Self {
        let sections = table.matrices.into_iter().map(|section| (section.name.clone(), section)).collect();
        PackedFile { path, bytes: Arc::new(bytes), sections }
    }

    /// Size of the file in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The matrix `spec`, which borrows from the mapping.
    ///
    /// # Errors
    ///
    /// If the file has no such matrix; never for those that it was opened with.
    pub(crate) fn matrix(&self, spec: &MatrixSpec) -> Result<QuantizedMatrix, GgufError> {
        let MatrixSpec { name, ty, rows, columns } = spec;
        let path = self.path.display();
        let section = self.sections.get(name);
        let section =
            section.ok_or_else(|| GgufError::tensor(name, format!("is not in `{path}`; remove the file")))?;
        let range = section.offset..section.offset.saturating_add(section.length);
        let source: PackedSource = self.bytes.clone();
        QuantizedMatrix::from_packed(*ty, source, range, *rows, *columns)
            .map_err(|error| GgufError::tensor(name, format!("is not in `{path}`: {error}")))
    }
}

/// Verifies the checksums of all sections. This reads all of them, as the first request would.
pub(super) fn check_sums(sections: &[Section], bytes: &[u8], pool: &Pool) -> Result<(), String> {
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
