//! A model's files, verified: nothing whose hash differs from its card goes further.

mod bare;
pub(crate) mod bytes;
mod cache;
mod error;
mod opened;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::card::{self, Card, CardFile, Format, Role};

pub use bare::GgufSummary;
pub(crate) use bytes::Bytes;
pub use cache::WeightCache;
pub(crate) use cache::{PackedSlot, known};
pub use error::CardError;
pub(crate) use opened::{Links, Opened};

/// The card's file name.
pub(crate) const CARD: &str = "card.toml";

/// A larger card is not read. Numbers of self-tests take most of one.
const MAX_CARD_BYTES: u64 = 64 << 20;

/// How much of a file is in memory while it is hashed.
const HASH_BYTES: usize = 1 << 20;

/// A card with its files' bytes, every hash verified.
pub struct Weights {
    card: Card,
    hash: String,
    /// The files' bytes in the order of `card.files`. Embedded ones stay in the program's image, a
    /// language model's are mapped, others are read.
    files: Vec<Bytes>,
    /// Where a language model's packed matrices are kept, if they are.
    packed: Option<PackedSlot>,
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
        let path = folder.join(CARD);
        let text = read_card(&path)?;
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
        let card = find(CARD).ok_or_else(|| missing(CARD))?;
        let text = std::str::from_utf8(card)
            .map_err(|error| CardError::Card { path: CARD.into(), message: error.to_string() })?;
        Weights::assemble(Path::new(""), text, cache, |card, file| match (find(&file.path), beside) {
            (Some(bytes), _) => {
                let path = Path::new(&file.path);
                same_size(path, file.bytes, bytes.len() as u64)?;
                let digest = Sha256::digest(bytes).into();
                same_hash(path, file, &digest)?;
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
        let (mut card, labels) =
            card::parse(text).map_err(|message| CardError::Card { path: folder.join(CARD), message })?;
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

/// A file of an ONNX model's external data.
pub(crate) struct DataFile {
    pub(crate) name: String,
    pub(crate) bytes: Bytes,
}

impl Bytes {
    /// For backends that keep a copy of their own: mapped bytes are copied.
    pub(crate) fn into_cow(self) -> Cow<'static, [u8]> {
        match self {
            Bytes::Embedded(bytes) => Cow::Borrowed(bytes),
            Bytes::Owned(bytes) => Cow::Owned(bytes),
            Bytes::Mapped { map, .. } => Cow::Owned(map.to_vec()),
        }
    }
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
    let mut opened = open(file, &path, links)?;
    let (bytes, digest) = if language_model(card, file) {
        let digest = opened.sha256(cache).map_err(failed)?;
        (opened.map().map_err(failed)?, digest)
    } else {
        let (content, digest) = opened.read().map_err(failed)?;
        (Bytes::Owned(content), digest)
    };
    same_hash(&path, file, &digest)?;
    same_size(&path, file.bytes, bytes.len() as u64)?;
    Ok((bytes, digest))
}

/// The text of a card.
///
/// # Errors
///
/// When there is none, or it is no text of a card's size.
pub(crate) fn read_card(path: &Path) -> Result<String, CardError> {
    let failed = |source| CardError::Read { path: path.to_owned(), source };
    let mut opened = Opened::open(path, Links::Follow).map_err(failed)?;
    if opened.bytes() > MAX_CARD_BYTES {
        let message = format!("it is {} bytes, expected at most {MAX_CARD_BYTES}", opened.bytes());
        return Err(CardError::Card { path: path.to_owned(), message });
    }
    let (content, _) = opened.read().map_err(failed)?;
    String::from_utf8(content)
        .map_err(|error| CardError::Card { path: path.to_owned(), message: error.utf8_error().to_string() })
}

/// Whether `file` is the one that a language model is loaded from.
fn language_model(card: &Card, file: &CardFile) -> bool {
    card.format == Format::Gguf && file.role == Role::Model
}

/// The hash of the file at `path`, which is as the card says.
pub(crate) fn verify(
    file: &CardFile,
    path: &Path,
    cache: Option<&WeightCache>,
) -> Result<[u8; 32], CardError> {
    let digest = open(file, path, Links::Follow)?.sha256(cache);
    let digest = digest.map_err(|source| CardError::Read { path: path.to_owned(), source })?;
    same_hash(path, file, &digest)?;
    Ok(digest)
}

/// As [`verify`], of a file that was opened at `path` and is read from its beginning.
pub(crate) fn verify_opened(file: &CardFile, path: &Path, mut opened: &File) -> Result<(), CardError> {
    let failed = |source| CardError::Read { path: path.to_owned(), source };
    same_size(path, file.bytes, opened.metadata().map_err(failed)?.len())?;
    opened.rewind().map_err(failed)?;
    let digest = sha256(&mut opened).map_err(failed)?;
    same_hash(path, file, &digest)
}

/// The file at `path`, which has the card's size: one that differs is reported before gigabytes are
/// read.
fn open(file: &CardFile, path: &Path, links: Links) -> Result<Opened, CardError> {
    let opened = Opened::open(path, links).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => {
                CardError::Missing { path, bytes: file.bytes, sha256: file.sha256.clone() }
            }
            _ => CardError::Read { path, source },
        }
    })?;
    same_size(path, file.bytes, opened.bytes())?;
    Ok(opened)
}

fn same_hash(path: &Path, file: &CardFile, digest: &[u8; 32]) -> Result<(), CardError> {
    let found = hex(digest);
    if found == file.sha256 {
        return Ok(());
    }
    Err(CardError::Hash { path: path.to_owned(), expected: file.sha256.clone(), found })
}

fn same_size(path: &Path, expected: u64, found: u64) -> Result<(), CardError> {
    if expected == found {
        return Ok(());
    }
    Err(CardError::Size { path: path.to_owned(), expected, found })
}

/// SHA-256 of what is left of `file`, read in pieces.
fn sha256(file: &mut impl Read) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; HASH_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(hash.finalize().into()),
            Ok(read) => hash.update(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
