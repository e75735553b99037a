//! Metadata of a GGUF file, and a card for a file without one.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::weights::Weights;
use crate::card::{Card, CardFile, Download, Format, Role, Task};
use crate::language::DUMMY;
use crate::language::gguf::{Gguf, GgufError, parts};
use crate::weights::{Bytes, CardError, Links, Opened, WeightCache, hex};

/// Metadata of a GGUF file.
#[derive(Clone, Debug, PartialEq)]
pub struct GgufSummary {
    /// Card made from the metadata. Its hashes are empty, because computing them would read the
    /// whole files.
    pub card: Card,
    /// True if the weights are random, as written by `infer dummy`.
    pub dummy: bool,
    /// Types of the tensors, by descending number of bytes: `Q4_K, Q6_K, F32`.
    pub weight_types: String,
}

impl Weights {
    /// Maps the language model at `path`, with the parts that follow it, and makes a card from its
    /// header. The card contains the hashes of the files; with `cache`, they are computed once and
    /// reused while the files are unchanged.
    ///
    /// # Errors
    ///
    /// When a file is missing, cannot be read, or is not GGUF, or when the parts are not of one
    /// model.
    pub fn gguf(path: &Path, cache: Option<&WeightCache>) -> Result<Self, CardError> {
        let opened = open_parts(path)?;
        let map = |(path, opened): &(PathBuf, Opened)| {
            Bytes::from_borrowed(opened).map_err(|source| CardError::Read { path: path.clone(), source })
        };
        let files = opened.iter().map(map).collect::<Result<_, _>>()?;
        let GgufSummary { mut card, .. } = GgufSummary::of(path, files)?;
        let (mut digests, mut files) = (Vec::new(), Vec::new());
        for ((path, mut opened), file) in opened.into_iter().zip(&mut card.files) {
            let failed = |source| CardError::Read { path: path.clone(), source };
            let digest = opened.sha256(cache).map_err(failed)?;
            files.push(Bytes::from_opened(opened).map_err(failed)?);
            file.sha256 = hex(&digest);
            digests.push(digest);
        }
        let packed = cache.and_then(|cache| cache.slot(&digests));
        Ok(Weights { card, hash: hex(&Sha256::digest(digests.as_flattened())), files, packed })
    }
}

/// Opens the GGUF file at `path` and the parts that follow it by its name.
fn open_parts(path: &Path) -> Result<Vec<(PathBuf, Opened)>, CardError> {
    let open = |path: PathBuf| match Opened::open(&path, Links::Follow) {
        Ok(opened) => Ok((path, opened)),
        Err(source) => Err(CardError::Read { path, source }),
    };
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let rejected = |error: GgufError| CardError::Gguf { path: path.to_owned(), message: error.to_string() };
    let following = parts::following(&name).map_err(rejected)?;
    let mut opened = vec![open(path.to_owned())?];
    for (index, name) in following.iter().enumerate() {
        let part = open(path.with_file_name(name));
        opened.push(part.map_err(|error| match error {
            CardError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => CardError::Gguf {
                path: path.to_owned(),
                message: format!(
                    "part {} of {} is missing; expected it beside the first part as `{name}`",
                    index + 2,
                    following.len() + 1
                ),
            },
            other => other,
        })?);
    }
    Ok(opened)
}

/// Maps the GGUF file at `path` and the parts that follow it by its name.
///
/// # Errors
///
/// When one of them is missing or cannot be read.
pub(crate) fn map_parts(path: &Path) -> Result<Vec<Bytes>, CardError> {
    let map = |(path, opened)| Bytes::from_opened(opened).map_err(|source| CardError::Read { path, source });
    open_parts(path)?.into_iter().map(map).collect()
}

impl GgufSummary {
    /// Checks whether the regular file at `path` starts with the magic bytes of GGUF.
    pub fn has_magic(path: &Path) -> bool {
        Opened::open(path, Links::Follow).is_ok_and(|opened| opened.begins_with(b"GGUF"))
    }

    /// Reads the headers of the file at `path` and of the parts that follow it.
    ///
    /// # Errors
    ///
    /// When a file is missing, cannot be read, or is not GGUF, or when the parts are not of one
    /// model.
    pub fn read(path: &Path) -> Result<Self, CardError> {
        GgufSummary::of(path, map_parts(path)?)
    }

    /// Parses `files`, the content of the file at `path` and of the parts that follow it.
    fn of(path: &Path, files: Vec<Bytes>) -> Result<Self, CardError> {
        let sizes: Vec<_> = files.iter().map(|bytes| bytes.len() as u64).collect();
        let wrong = |error: GgufError| CardError::Gguf { path: path.to_owned(), message: error.to_string() };
        let gguf = Gguf::parse_parts(files).map_err(wrong)?;
        // Descriptive texts: a missing one, or one of another type, is no reason to reject the
        // model.
        let text = |key| gguf.str(key).ok().flatten().map(shown);
        let part = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let stem = part(path.file_stem()).unwrap_or_default();
        let architecture = shown(gguf.architecture().map_err(wrong)?);
        let name = part(path.file_name()).unwrap_or_default();
        let following = parts::following(&name).map_err(wrong)?;
        let names = std::iter::once(name).chain(following).zip(sizes);
        let file = |(index, (path, bytes)): (usize, (String, u64))| {
            let role = if index == 0 { Role::Model } else { Role::Data };
            CardFile { path, role, bytes, sha256: String::new() }
        };
        let card = Card {
            name: text("general.name").unwrap_or(stem),
            task: Task::TextGeneration,
            format: Format::Gguf,
            description: format!("a {architecture} model, according to the file's header"),
            license: text("general.license").unwrap_or_else(|| "unknown".to_owned()),
            source: text("general.source.url").unwrap_or_default(),
            batch_axis: None,
            files: names.enumerate().map(file).collect(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
            heads: Vec::new(),
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

    fn vocabulary() -> PathBuf {
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
