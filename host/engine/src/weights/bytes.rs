//! A file's bytes, wherever they lie: in the program's image, on the heap, or mapped.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use super::opened::{Links, Opened};

/// A file's bytes.
pub(crate) enum Bytes {
    /// Part of the program's image.
    Embedded(&'static [u8]),
    /// Read onto the heap.
    Owned(Vec<u8>),
    /// Mapped from its file: pages come from the disk as they are touched, and go under memory
    /// pressure.
    Mapped {
        map: Mmap,
        /// The file, where somebody has to know that it stays as it was hashed.
        file: Option<Opened>,
    },
}

impl Bytes {
    /// Map the regular file at `path` for reading. An empty file gives no bytes and no mapping.
    ///
    /// The operator's contract is that a model's file is replaced (renamed over) and never written
    /// in place while it is served: a file that shrinks under its mapping ends the process with a
    /// bus error.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or mapped.
    pub(crate) fn map(path: &Path) -> std::io::Result<Self> {
        Bytes::from_opened(Opened::open(path, Links::Follow)?)
    }

    /// Maps an open file for reading. The mapping keeps the descriptor for
    /// [`Bytes::check_unchanged`].
    ///
    /// # Errors
    ///
    /// When it cannot be mapped.
    pub(crate) fn from_opened(opened: Opened) -> std::io::Result<Self> {
        match Bytes::map_file(opened.file())? {
            Bytes::Mapped { map, .. } => Ok(Bytes::Mapped { map, file: Some(opened) }),
            empty => Ok(empty),
        }
    }

    /// As [`Bytes::from_opened`], without keeping the descriptor.
    ///
    /// # Errors
    ///
    /// When it cannot be mapped.
    pub(crate) fn from_borrowed(opened: &Opened) -> std::io::Result<Self> {
        Bytes::map_file(opened.file())
    }

    pub(crate) fn map_file(file: &File) -> std::io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::Owned(Vec::new()));
        }
        // SAFETY: the mapping is read-only. Its bytes are only ever read as `u8`, for which every
        // value is valid; that nobody writes the file meanwhile is the contract above, as for any
        // program that maps weights.
        let mapped = unsafe { Mmap::map(file)? };
        Ok(Bytes::Mapped { map: mapped, file: None })
    }

    /// For backends that keep a copy of their own: mapped bytes are copied.
    pub(crate) fn into_cow(self) -> Cow<'static, [u8]> {
        match self {
            Bytes::Embedded(bytes) => Cow::Borrowed(bytes),
            Bytes::Owned(bytes) => Cow::Owned(bytes),
            Bytes::Mapped { map, .. } => Cow::Owned(map.to_vec()),
        }
    }

    /// Check that nobody has written to the file since it was opened, before it was hashed. Bytes
    /// that are not mapped do not change.
    ///
    /// # Errors
    ///
    /// When somebody has.
    pub(crate) fn check_unchanged(&self) -> std::io::Result<()> {
        match self {
            Bytes::Mapped { file: Some(file), .. } => file.check_unchanged(),
            _ => Ok(()),
        }
    }

    /// Bring all mapped pages into memory and into the page tables, huge ones where the file system
    /// has them: what the first requests would else do a few pages at a time. A hint.
    pub(crate) fn populate(&self) {
        #[cfg(target_os = "linux")]
        if let Bytes::Mapped { map: mapped, .. } = self {
            for advice in [memmap2::Advice::HugePage, memmap2::Advice::PopulateRead] {
                if let Err(error) = mapped.advise(advice) {
                    tracing::debug!(%error, ?advice, "mapped pages come as they are touched");
                }
            }
        }
    }

    /// Let go of the memory of the mapped pages that lie wholly within `range`, whose content was
    /// packed elsewhere.
    ///
    /// A hint: the bytes stay readable and come from the disk again when touched. Other bytes are
    /// not mapped, and stay.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "there is no such hint elsewhere"))]
    pub(crate) fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped { map: mapped, .. } = self {
            let page = page_bytes();
            // A partial page at either end may hold a neighbour that is still in use.
            let start = range.start.min(mapped.len()).next_multiple_of(page);
            let end = range.end.min(mapped.len()) / page * page;
            if start < end {
                // SAFETY: the mapping is of a file and read-only, so dropped pages are read again
                // with equal bytes: no reference into it sees anything change.
                let hint = unsafe {
                    mapped.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
                };
                if let Err(error) = hint {
                    tracing::debug!(%error, "mapped pages are kept");
                }
            }
        }
    }
}

/// Bytes of a page, or a multiple: 64 KiB is the largest page of the targets, and a coarser grain
/// only keeps more.
#[cfg(unix)]
const fn page_bytes() -> usize {
    64 << 10
}

/// A file of an ONNX model's external data.
pub(crate) struct DataFile {
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Bytes::Embedded(bytes) => bytes,
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped { map, .. } => map,
        }
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Bytes::Embedded(_) => "Embedded",
            Bytes::Owned(_) => "Owned",
            Bytes::Mapped { .. } => "Mapped",
        };
        write!(f, "{kind}({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_bytes_are_the_files_before_and_after_they_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights");
        let content: Vec<u8> = (0..1_000_003_u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let bytes = Bytes::map(&path).unwrap();
        assert!(bytes[..] == content);
        for range in [0..content.len(), 70_000..500_000, 5..6, 900_000..usize::MAX, usize::MAX..usize::MAX] {
            bytes.forget(range.clone());
            assert!(bytes[..] == content, "{range:?}");
        }
    }

    #[test]
    fn empty_files_map_to_no_bytes_and_missing_ones_to_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert!(Bytes::map(&path).unwrap().is_empty());
        assert!(Bytes::map(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn forgetting_bytes_that_are_not_mapped_keeps_them() {
        let bytes = [Bytes::Embedded(b"weights"), Bytes::Owned(b"weights".to_vec())];
        for bytes in bytes {
            bytes.forget(0..7);
            assert_eq!(&bytes[..], b"weights", "{bytes:?}");
        }
    }
}
