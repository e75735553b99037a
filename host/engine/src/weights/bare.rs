//! A GGUF file without a card: it describes itself well enough for one.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{Bytes, CardError, Weights, hex, same_size, sha256};
use crate::card::{Card, CardFile, Download, Format, Role, Task};

impl Weights {
    /// Map the language model at `path` and make a card from what its header says. Its hash is computed, there being none
    /// that it should have.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is no GGUF.
    pub fn gguf(path: &Path) -> Result<Self, CardError> {
        let mut card = Weights::describe_gguf(path)?;
        let failed = |source| CardError::Read { path: path.to_owned(), source };
        let digest = File::open(path).and_then(|mut file| sha256(&mut file)).map_err(failed)?;
        let bytes = Bytes::map(path).map_err(failed)?;
        for file in &mut card.files {
            same_size(path, file.bytes, bytes.len() as u64)?;
            file.sha256 = hex(&digest);
        }
        Ok(Weights { card, hash: hex(&Sha256::digest(digest)), files: vec![bytes] })
    }

    /// The card that [`Weights::gguf`] would make, without the hash, which takes reading the whole file.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or is no GGUF.
    pub fn describe_gguf(path: &Path) -> Result<Card, CardError> {
        let failed = |source| CardError::Read { path: path.to_owned(), source };
        let wrong = |message: &str| CardError::Gguf { path: path.to_owned(), message: message.to_owned() };
        let mut file = File::open(path).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let mut magic = [0; 4];
        match file.read_exact(&mut magic) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(failed(error)),
            _ if magic != *b"GGUF" => return Err(wrong("not a GGUF file, which begins with `GGUF`")),
            _ => {}
        }
        let text = |part: Option<&std::ffi::OsStr>| part.map(|part| part.to_string_lossy().into_owned());
        let file = CardFile {
            path: text(path.file_name()).unwrap_or_default(),
            role: Role::Model,
            bytes,
            sha256: String::new(),
        };
        Ok(Card {
            name: text(path.file_stem()).unwrap_or_default(),
            task: Task::TextGeneration,
            format: Format::Gguf,
            description: "a GGUF without a card".to_owned(),
            license: "unknown".to_owned(),
            source: String::new(),
            files: vec![file],
            inputs: Vec::new(),
            outputs: Vec::new(),
            labels: Vec::new(),
            download: Download::default(),
            preset: Default::default(),
        })
    }
}
