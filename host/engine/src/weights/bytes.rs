//! Content of a file: in the program's image, on the heap, or mapped.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::ops::{Deref, Range};

use memmap2::Mmap;

use super::opened::Opened;

/// Content of a file.
pub(crate) enum Bytes {
    /// Part of the program's image.
    Embedded(&'static [u8]),
    /// Read onto the heap.
    Owned(Vec<u8>),
    /// Mapped from its file. Pages are read from disk when they are touched, and evicted under
    /// memory pressure.
    Mapped {
        map: Mmap,
        /// Open file, for [`Bytes::check_unchanged`].
        file: Option<Opened>,
    },
}

impl Bytes {
    /// Maps the regular file at `path` for reading. An empty file has no mapping.
    ///
    /// Operators must replace the file of a model (by renaming over it) and never write to it in
    /// place while it is served: a file that shrinks under its mapping ends the process with a bus
    /// error.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened or mapped.
    #[cfg(test)]
    pub(crate) fn map(path: &std::path::Path) -> std::io::Result<Self> {
        Bytes::from_opened(Opened::open(path, super::opened::Links::Follow)?)
    }

    /// Maps an open file for reading. The mapping owns the descriptor for
    /// [`Bytes::check_unchanged`].
    ///
    /// # Errors
    ///
    /// When the file cannot be mapped.
    pub(crate) fn from_opened(opened: Opened) -> std::io::Result<Self> {
        match Bytes::map_file(opened.file())? {
            Bytes::Mapped { map, .. } => Ok(Bytes::Mapped { map, file: Some(opened) }),
            empty => Ok(empty),
        }
    }

    /// Maps an open file for reading, without keeping the descriptor.
    ///
    /// # Errors
    ///
    /// When the file cannot be mapped.
    pub(crate) fn from_borrowed(opened: &Opened) -> std::io::Result<Self> {
        Bytes::map_file(opened.file())
    }

    pub(crate) fn map_file(file: &File) -> std::io::Result<Self> {
        if file.metadata()?.len() == 0 {
            return Ok(Bytes::Owned(Vec::new()));
        }
        // SAFETY: the mapping is read-only, and its bytes are only read as `u8`, for which every
        // value is valid. The contract above rules out concurrent writes, as in any program that
        // maps weights.
        let mapped = unsafe { Mmap::map(file)? };
        Ok(Bytes::Mapped { map: mapped, file: None })
    }

    /// Content for backends that keep a copy of their own. Mapped bytes are copied.
    pub(crate) fn into_cow(self) -> Cow<'static, [u8]> {
        match self {
            Bytes::Embedded(bytes) => Cow::Borrowed(bytes),
            Bytes::Owned(bytes) => Cow::Owned(bytes),
            Bytes::Mapped { map, .. } => Cow::Owned(map.to_vec()),
        }
    }

    /// Checks that the file has not been written since it was opened, which was before it was
    /// hashed. Content that is not mapped cannot change.
    ///
    /// # Errors
    ///
    /// When the file has been written.
    pub(crate) fn check_unchanged(&self) -> std::io::Result<()> {
        match self {
            Bytes::Mapped { file: Some(file), .. } => file.check_unchanged(),
            _ => Ok(()),
        }
    }

    /// Reads all mapped pages into memory and into the page tables, as huge pages if the file
    /// system supports them. Otherwise the first requests would do so a few pages at a time. This
    /// is a hint.
    pub(crate) fn populate(&self) {
        #[cfg(target_os = "linux")]
        if let Bytes::Mapped { map: mapped, .. } = self {
            for advice in [memmap2::Advice::HugePage, memmap2::Advice::PopulateRead] {
                if let Err(error) = mapped.advise(advice) {
                    tracing::debug!(%error, ?advice, "cannot populate mapped pages");
                }
            }
        }
    }

    /// Releases the memory of mapped pages within `range`, whose content was packed elsewhere.
    ///
    /// This is a hint: the bytes stay readable, and are read from disk again when they are touched.
    /// It has no effect on content that is not mapped.
    #[cfg_attr(not(unix), expect(unused_variables, reason = "other systems have no such hint"))]
    pub(crate) fn forget(&self, range: Range<usize>) {
        #[cfg(unix)]
        if let Bytes::Mapped { map: mapped, .. } = self {
            let page = page_bytes();
            // A partial page at either end may contain data that is still in use.
            let start = range.start.min(mapped.len()).next_multiple_of(page);
            let end = range.end.min(mapped.len()) / page * page;
            if start < end {
                // SAFETY: the mapping is read-only and backed by a file, so dropped pages are read
                // again with equal bytes, and references into it see no change.
                let hint = unsafe {
                    mapped.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start)
                };
                if let Err(error) = hint {
                    tracing::debug!(%error, "cannot release mapped pages");
                }
            }
        }
    }
}

/// Bytes of a page, or a multiple of it: 64 KiB is the largest page of the targets. A larger value
/// only releases less.
#[cfg(unix)]
const fn page_bytes() -> usize {
    64 << 10
}

/// An external data file of an ONNX model.
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
    fn forgotten_pages_read_the_same() {
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
    fn empty_file_maps_to_no_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("empty");
        std::fs::write(&path, b"").unwrap();
        assert!(Bytes::map(&path).unwrap().is_empty());
        assert!(Bytes::map(&folder.path().join("missing")).is_err());
    }

    #[test]
    fn forget_ignores_unmapped_bytes() {
        let bytes = [Bytes::Embedded(b"weights"), Bytes::Owned(b"weights".to_vec())];
        for bytes in bytes {
            bytes.forget(0..7);
            assert_eq!(&bytes[..], b"weights", "{bytes:?}");
        }
    }
}
