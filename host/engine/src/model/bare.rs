//! Metadata of a GGUF file, and a card for a file without one.

use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::weights::Weights;
use crate::card::{Card, CardFile, Download, Format, Role, Task};
use crate::language::DUMMY;
use crate::language::gguf::{Gguf, GgufError};
use crate::weights::{Bytes, CardError, Links, Opened, WeightCache, hex};

/// Metadata of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufSummary {
    /// Card made from the metadata. Its hash is empty, because computing it would read the whole
    /// file.
    pub card: Card,
    /// True if the weights are random, as written by `infer dummy`.
    pub dummy: bool,
    /// Types of the tensors, by descending number of bytes: `Q4_K, Q6_K, F32`.
    pub weight_types: String,
}

impl Weights {
    /// Maps the language model at `path` and makes a card from its header. The card contains the
    /// hash of the file; with `cache`, the hash is computed once and reused while the file is
    /// unchanged.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is not GGUF.
    pub fn gguf(path: &Path, cache: Option<&WeightCache>) -> Result<Self, CardError> {
        let failed = |source| CardError::Read { path: path.to_owned(), source };
        let mut opened = Opened::open(path, Links::Follow).map_err(failed)?;
        let GgufSummary { mut card, .. } =
            GgufSummary::of(path, Bytes::from_borrowed(&opened).map_err(failed)?)?;
        let digest = opened.sha256(cache).map_err(failed)?;
        let bytes = Bytes::from_opened(opened).map_err(failed)?;
        for file in &mut card.files {
            file.sha256 = hex(&digest);
        }
        let packed = cache.map(|cache| cache.slot(&digest));
        Ok(Weights { card, hash: hex(&Sha256::digest(digest)), files: vec![bytes], packed })
    }
}

impl GgufSummary {
    /// Checks whether the regular file at `path` starts with the magic bytes of GGUF.
    pub fn has_magic(path: &Path) -> bool {
        Opened::open(path, Links::Follow).is_ok_and(|opened| opened.begins_with(b"GGUF"))
    }

    /// Reads the header of the file at `path`.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is not GGUF.
    pub fn read(path: &Path) -> Result<Self, CardError> {
        let bytes = Bytes::map(path).map_err(|source| CardError::Read { path: path.to_owned(), source })?;
        GgufSummary::of(path, bytes)
    }

    /// Parses `bytes`, the content of the file at `path`.
    fn of(path: &Path, bytes: Bytes) -> Result<Self, CardError> {
        let size = bytes.len() as u64;
        let wrong = |error: GgufError| CardError::Gguf { path: path.to_owned(), message: error.to_string() };
        let gguf = Gguf::parse(bytes).map_err(wrong)?;
        // Descriptive texts: a missing one, or one of another type, is no reason to reject the
        // model.
        let text = |key| gguf.str(key).ok().flatten().map(shown);
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let stem = part(path.file_stem()).unwrap_or_default();
        let architecture = shown(gguf.architecture().map_err(wrong)?);
        let file = CardFile {
            path: part(path.file_name()).unwrap_or_default(),
            role: Role::Model,
            bytes: size,
            sha256: String::new(),
        };
        let card = Card {
            name: text("general.name").unwrap_or(stem),
            task: Task::TextGeneration,
            format: Format::Gguf,
            description: format!("a {architecture} model, according to the file's header"),
            license: text("general.license").unwrap_or_else(|| "unknown".to_owned()),
            source: text("general.source.url").unwrap_or_default(),
            batch_axis: None,
            files: vec![file],
            inputs: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
            text: None,
            categories: Default::default(),
            download: Download::default(),
            questions: Vec::new(),
            preset: Default::default(),
            tests: Vec::new(),
        };
        let dummy = gguf.bool(DUMMY).ok().flatten().unwrap_or(false);
        Ok(GgufSummary { card, dummy, weight_types: gguf.weight_types() })
    }
}

/// Text of the file for a line of a table: without control characters, at most 100 characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/phi3/vocab.gguf")
    }

    #[test]
    fn bare_gguf_gets_card_and_hash() {
        let weights = Weights::gguf(&vocabulary(), None).unwrap();
        let card = weights.card();
        assert_eq!((card.name.as_str(), card.license.as_str()), ("Phi3", "unknown"));
        assert_eq!(card.description, "a phi3 model, according to the file's header");
        assert_eq!(card.model_file().path, "vocab.gguf");
        let digest = Sha256::digest(std::fs::read(vocabulary()).unwrap());
        assert_eq!(card.model_file().sha256, hex(&digest));
        assert_eq!(weights.hash(), hex(&Sha256::digest(digest)));
        assert!(!GgufSummary::read(&vocabulary()).unwrap().dummy);
    }

    #[test]
    fn other_file_is_rejected_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.gguf");
        std::fs::write(&path, "not a model").unwrap();
        let error = GgufSummary::read(&path).unwrap_err();
        assert!(matches!(error, CardError::Gguf { .. }), "{error}");
        assert!(error.to_string().contains("m.gguf`: "), "{error}");
        let missing = GgufSummary::read(&folder.path().join("missing.gguf")).unwrap_err();
        assert!(matches!(missing, CardError::Read { .. }), "{missing}");
    }
}
