//! A card and its files, verified: a file whose hash differs from its card is never loaded.

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::card::{self, Card, CardFile, Format, Role};
use crate::weights::{Bytes, CardError, DataFile, Links, PackedSlot, WeightCache, hex};

/// A card with its files' bytes, every hash verified.
pub struct Weights {
    pub(super) card: Card,
    pub(super) hash: String,
    /// The files' bytes in the order of `card.files`. Embedded ones stay in the program's image, a
    /// language model's are mapped, others are read.
    pub(super) files: Vec<Bytes>,
    /// Where a language model's packed matrices are kept, if they are.
    pub(super) packed: Option<PackedSlot>,
}

impl Weights {
    /// Verify the files that `card.toml` in `folder` lists, and read them; a language model's file
    /// is mapped instead. With `cache` it is hashed once for all starts in which it is unchanged,
    /// and packed once.
    ///
    /// # Errors
    ///
    /// When a file is missing, or differs from its card in size or hash; when the card is not a
    /// card.
    pub fn read(folder: &Path, cache: Option<&WeightCache>) -> Result<Self, CardError> {
        let path = folder.join(card::CARD);
        let text = card::read_card(&path)?;
        Weights::assemble(folder, &text, cache, |card, file| load(card, file, folder, cache))
    }

    /// Take the card and its files from what the program carries: each file's name and bytes, one
    /// of them `card.toml`. What it does not carry is looked for in the folder `beside`.
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

    /// `bytes_of` gives a file that is as the card says, and its hash.
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
        let mut packed = None;
        for file in &card.files {
            let (bytes, digest) = bytes_of(&card, file)?;
            whole.update(digest);
            if language_model(&card, file) {
                packed = cache.map(|cache| cache.slot(&digest));
            }
            files.push(bytes);
        }
        if let Some(name) = labels {
            let position = card.files.iter().position(|file| file.path == name);
            let bytes = position.map_or(&[][..], |position| &files[position]);
            let wrong = |message| CardError::Labels { path: folder.join(&name), message };
            let text = std::str::from_utf8(bytes).map_err(|error| wrong(error.to_string()))?;
            card.labels = text.lines().map(str::to_owned).collect();
            card::check_labels(&card).map_err(wrong)?;
        }
        Ok(Weights { card, hash: hex(&whole.finalize()), files, packed })
    }

    /// What the weights are.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// SHA-256 over `card.toml` and then each file's SHA-256, in 64 hexadecimal digits: equal
    /// hashes, equal models.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The bytes of the first file that has `role`.
    pub fn file_by_role(&self, role: Role) -> Option<&[u8]> {
        let position = self.card.files.iter().position(|file| file.role == role)?;
        Some(&self.files[position])
    }

    /// What a model is loaded from.
    pub(crate) fn into_parts(self) -> Parts {
        let (mut model, mut data) = (None, Vec::new());
        for (file, bytes) in self.card.files.iter().zip(self.files) {
            match file.role {
                Role::Model => model = Some(bytes),
                Role::Data => data.push(DataFile { name: file.path.clone(), bytes }),
                Role::Labels | Role::Vocabulary => {}
            }
        }
        let model = model.expect("a parsed card lists exactly one model");
        Parts { card: self.card, hash: self.hash, model, data, packed: self.packed }
    }
}

/// Verified weights, by what is made of each.
pub(crate) struct Parts {
    pub(crate) card: Card,
    pub(crate) hash: String,
    /// The file that the backend loads.
    pub(crate) model: Bytes,
    /// The files of tensors that an ONNX model keeps outside of its own.
    pub(crate) data: Vec<DataFile>,
    /// Where a language model's packed matrices are kept.
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

/// The bytes of a file in `folder`, which is as the card says, and its hash: of one descriptor.
fn load(
    card: &Card,
    file: &CardFile,
    folder: &Path,
    cache: Option<&WeightCache>,
) -> Result<(Bytes, [u8; 32]), CardError> {
    let path = folder.join(&file.path);
    let failed = |source| CardError::Read { path: path.clone(), source };
    // A model that says where its data is must not lead out of the folder, not by a link there
    // either.
    let links = if file.role == Role::Data { Links::Refuse } else { Links::Follow };
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

/// Whether `file` is the one that a language model is loaded from.
fn language_model(card: &Card, file: &CardFile) -> bool {
    card.format == Format::Gguf && file.role == Role::Model
}
