//! A card and its files, verified: a file whose hash differs from its card is never loaded.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::card::{self, Card, CardFile, Format, HeadFile, Role};
use crate::weights::{Bytes, CardError, DataFile, Links, PackedSlot, WeightCache, hex};

/// A card with the content of its files. All hashes are verified.
pub struct Weights {
    pub(super) card: Card,
    pub(super) hash: String,
    /// Content of the files in the order of `card.files`. Embedded files stay in the program's
    /// image, the files of a language model are mapped, and other files are read.
    pub(super) files: Vec<Bytes>,
    /// Storage of a language model's packed matrices.
    pub(super) packed: Option<PackedSlot>,
}

impl Weights {
    /// Reads and verifies the files that `card.toml` in `folder` lists. The file of a language
    /// model is mapped instead. With `cache`, it is hashed and packed once, and the results are
    /// reused while it is unchanged.
    ///
    /// # Errors
    ///
    /// When a file is missing, when it differs from the card in size or hash, or when the card is
    /// invalid.
    pub fn read(folder: &Path, cache: Option<&WeightCache>) -> Result<Self, CardError> {
        let path = folder.join(card::CARD);
        let text = card::read_card(&path)?;
        Weights::assemble(folder, &text, cache, |card, file| load(card, file, folder, cache))
    }

    /// Takes the card and its files from `files`, which are embedded in the program as names and
    /// content; one of them is `card.toml`. Files that are not embedded are read from the folder
    /// `beside`.
    ///
    /// # Errors
    ///
    /// As [`Weights::read`].
    pub fn embedded(
        files: &'static [(&'static str, &'static [u8])],
        beside: Option<&Path>,
        cache: Option<&WeightCache>,
    ) -> Result<Self, CardError> {
        let find = |name: &str| files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes);
        let missing = |name: &str| CardError::NotEmbedded {
            file: name.to_owned(),
            known: files.iter().map(|(known, _)| *known).collect(),
        };
        let bytes = find(card::CARD).ok_or_else(|| missing(card::CARD))?;
        let text = std::str::from_utf8(bytes)
            .map_err(|error| CardError::Card { path: card::CARD.into(), message: error.to_string() })?;
        Weights::assemble(Path::new(""), text, cache, |card, file| match (find(&file.path), beside) {
            (Some(bytes), _) => {
                let path = Path::new(&file.path);
                file.expected().check_size(path, bytes.len() as u64)?;
                let digest = Sha256::digest(bytes).into();
                file.expected().check_hash(path, &digest)?;
                Ok((Bytes::Embedded(bytes), digest))
            }
            (None, Some(folder)) => load(card, file, folder, cache),
            (None, None) => Err(missing(&file.path)),
        })
    }

    /// Builds the weights. `bytes_of` returns the verified content of a file and its hash.
    fn assemble(
        folder: &Path,
        text: &str,
        cache: Option<&WeightCache>,
        mut bytes_of: impl FnMut(&Card, &CardFile) -> Result<(Bytes, [u8; 32]), CardError>,
    ) -> Result<Self, CardError> {
        let (mut card, labels) = card::parse(text)
            .map_err(|message| CardError::Card { path: folder.join(card::CARD), message })?;
        let mut whole = Sha256::new_with_prefix(text);
        let mut files = Vec::with_capacity(card.files.len());
        let (mut parts, mut heads) = (Vec::new(), Vec::new());
        for file in &card.files {
            let (bytes, digest) = bytes_of(&card, file)?;
            whole.update(digest);
            if language_model(&card, file) {
                parts.push(digest);
            }
            if file.role == Role::Head {
                heads.push((folder.join(&file.path), bytes.to_vec()));
            }
            files.push(bytes);
        }
        let packed = cache.and_then(|cache| cache.slot(&parts));
        if let Some(name) = labels {
            let position = card.files.iter().position(|file| file.path == name);
            let bytes = position.map_or(&[][..], |position| &files[position]);
            let wrong = |message| CardError::Labels { path: folder.join(&name), message };
            let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
            card.labels = text.lines().map(str::to_owned).collect();
            card::check_labels(&card).map_err(wrong)?;
        }
        add_heads(&mut card, &heads)?;
        Ok(Weights { card, hash: hex(&whole.finalize()), files, packed })
    }

    /// Adds heads, each a path for messages and the content of a [`HeadFile`](crate::HeadFile). A
    /// label or category that the card already has is replaced. The hash becomes that of the model
    /// with these heads.
    ///
    /// # Errors
    ///
    /// When a head is invalid or was trained on another encoder, or the model computes no
    /// embedding.
    pub fn with_heads(mut self, heads: &[(PathBuf, Vec<u8>)]) -> Result<Self, CardError> {
        if heads.is_empty() {
            return Ok(self);
        }
        add_heads(&mut self.card, heads)?;
        let mut whole = Sha256::new_with_prefix(&self.hash);
        heads.iter().for_each(|(_, content)| whole.update(Sha256::digest(content)));
        self.hash = hex(&whole.finalize());
        Ok(self)
    }

    /// Removes the heads, so that the model computes embeddings.
    #[must_use]
    pub fn without_heads(mut self) -> Self {
        self.card.remove_heads();
        self
    }

    /// Card of the model.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// SHA-256 over `card.toml` and then the SHA-256 of each file, in 64 hexadecimal digits. Equal
    /// hashes mean equal models.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// Content of the first file with role `role`.
    pub fn file_by_role(&self, role: Role) -> Option<&[u8]> {
        let position = self.card.files.iter().position(|file| file.role == role)?;
        Some(&self.files[position])
    }

    /// Splits the weights into the inputs of a loader.
    pub(crate) fn into_parts(self) -> Parts {
        let (mut model, mut data, mut tokenizer) = (None, Vec::new(), None);
        for (file, bytes) in self.card.files.iter().zip(self.files) {
            match file.role {
                Role::Model => model = Some(bytes),
                Role::Data => data.push(DataFile { name: file.path.clone(), bytes }),
                Role::Tokenizer => tokenizer = Some(bytes),
                Role::Labels | Role::Head => {}
            }
        }
        let model = model.expect("a parsed card lists exactly one model");
        Parts { card: self.card, hash: self.hash, model, data, tokenizer, packed: self.packed }
    }
}

/// Verified weights, split by use.
pub(crate) struct Parts {
    pub(crate) card: Card,
    pub(crate) hash: String,
    /// File that the backend loads.
    pub(crate) model: Bytes,
    /// External data files of an ONNX model, or further parts of a GGUF file.
    pub(crate) data: Vec<DataFile>,
    /// File of a text model's tokenizer.
    pub(crate) tokenizer: Option<Bytes>,
    /// Storage of a language model's packed matrices.
    pub(crate) packed: Option<PackedSlot>,
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights")
            .field("name", &self.card.name)
            .field("hash", &self.hash)
            .finish_non_exhaustive()
    }
}

fn add_heads(card: &mut Card, heads: &[(PathBuf, Vec<u8>)]) -> Result<(), CardError> {
    for (path, content) in heads {
        let wrong = |message| CardError::Head { path: path.clone(), message };
        let text = std::str::from_utf8(content).map_err(|error| wrong(error.to_string()))?;
        card.add_head(HeadFile::parse(text).map_err(wrong)?).map_err(wrong)?;
    }
    if let Some((path, _)) = heads.last() {
        card::check_labels(card).map_err(|message| CardError::Head { path: path.clone(), message })?;
    }
    Ok(())
}

/// Opens a file in `folder` and returns its verified content and its hash, both from the same
/// descriptor.
fn load(
    card: &Card,
    file: &CardFile,
    folder: &Path,
    cache: Option<&WeightCache>,
) -> Result<(Bytes, [u8; 32]), CardError> {
    let path = folder.join(&file.path);
    let failed = |source| CardError::Read { path: path.clone(), source };
    // An ONNX model chooses the names of its data files. They must not lead out of the folder, not
    // even through a link.
    let is_chosen = file.role == Role::Data && card.format == Format::Onnx;
    let links = if is_chosen { Links::Refuse } else { Links::Follow };
    let expected = file.expected();
    let mut opened = expected.open(&path, links)?;
    let (bytes, digest) = if language_model(card, file) {
        let digest = opened.sha256(cache).map_err(failed)?;
        (Bytes::from_opened(opened).map_err(failed)?, digest)
    } else {
        let (content, digest) = opened.read().map_err(failed)?;
        (Bytes::Owned(content), digest)
    };
    expected.check_hash(&path, &digest)?;
    expected.check_size(&path, bytes.len() as u64)?;
    Ok((bytes, digest))
}

/// Checks whether `file` is the file of a language model, or a part of it.
fn language_model(card: &Card, file: &CardFile) -> bool {
    card.format == Format::Gguf && matches!(file.role, Role::Model | Role::Data)
}
