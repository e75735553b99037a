//! A model's files, read and verified: nothing whose hash differs from its card goes further.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::card::{self, Card, CardFile, Role};

#[allow(dead_code, reason = "the language models that map their files are being added")]
pub(crate) mod bytes;

/// The card's file name.
const CARD: &str = "card.toml";

/// A card with its files' bytes, every hash verified.
pub struct Weights {
    card: Card,
    hash: String,
    /// The files' bytes in the order of `card.files`. Embedded ones stay in the program's image.
    files: Vec<Cow<'static, [u8]>>,
}

/// Weights that are refused.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program carries no such file.
    #[error("`{file}` is not among the embedded files: {}", known.join(", "))]
    NotEmbedded {
        /// The file.
        file: String,
        /// The files that are embedded.
        known: Vec<&'static str>,
    },
    /// The card is not TOML, or not a card.
    #[error("`{}`: {message}", path.display())]
    Card {
        /// The card.
        path: PathBuf,
        /// What is wrong, with its line where that is known.
        message: String,
    },
    /// A file has another size than the card says.
    #[error(
        "`{}` is {found} bytes, its card says {expected}; restore the file, or correct the card if the file is right",
        path.display()
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Bytes by the card.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// A file has another hash than the card says.
    #[error(
        "`{}` has sha256 {found}, its card says {expected}; restore the file, or correct the card if the file is right",
        path.display()
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// SHA-256 by the card.
        expected: String,
        /// SHA-256 of the bytes.
        found: String,
    },
    /// The labels are not text, or not as many as the model has scores.
    #[error("`{}`: {message}", path.display())]
    Labels {
        /// The file of labels.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
}

impl Weights {
    /// Read `card.toml` in `folder`, and the files that it lists.
    ///
    /// # Errors
    ///
    /// When a file is missing, or differs from its card in size or hash; when the card is not a card.
    pub fn read(folder: &Path) -> Result<Self, CardError> {
        let path = folder.join(CARD);
        let text = std::fs::read_to_string(&path).map_err(|source| CardError::Read { path, source })?;
        Weights::assemble(folder, &text, |file| {
            let path = folder.join(&file.path);
            let read = || -> std::io::Result<_> {
                // A size that differs is told before gigabytes are read.
                let found = std::fs::metadata(&path)?.len();
                let bytes = if found == file.bytes { std::fs::read(&path)? } else { Vec::new() };
                Ok((found, bytes))
            };
            match read() {
                Ok((found, _)) if found != file.bytes => {
                    Err(CardError::Size { path, expected: file.bytes, found })
                }
                Ok((_, bytes)) => Ok(Cow::Owned(bytes)),
                Err(source) => Err(CardError::Read { path, source }),
            }
        })
    }

    /// Take the card and its files from what the program carries: each file's name and bytes, one of them `card.toml`.
    ///
    /// # Errors
    ///
    /// As [`Weights::read`].
    pub fn embedded(files: &'static [(&'static str, &'static [u8])]) -> Result<Self, CardError> {
        let find = |name: &str| {
            let found = files.iter().find(|(known, _)| *known == name);
            found.map(|(_, bytes)| *bytes).ok_or_else(|| CardError::NotEmbedded {
                file: name.to_owned(),
                known: files.iter().map(|(known, _)| *known).collect(),
            })
        };
        let card = find(CARD)?;
        let text = std::str::from_utf8(card)
            .map_err(|error| CardError::Card { path: CARD.into(), message: error.to_string() })?;
        Weights::assemble(Path::new(""), text, |file| {
            let bytes = find(&file.path)?;
            if bytes.len() as u64 != file.bytes {
                let (expected, found) = (file.bytes, bytes.len() as u64);
                return Err(CardError::Size { path: file.path.clone().into(), expected, found });
            }
            Ok(Cow::Borrowed(bytes))
        })
    }

    fn assemble(
        folder: &Path,
        text: &str,
        mut bytes_of: impl FnMut(&CardFile) -> Result<Cow<'static, [u8]>, CardError>,
    ) -> Result<Self, CardError> {
        let (mut card, labels) =
            card::parse(text).map_err(|message| CardError::Card { path: folder.join(CARD), message })?;
        let mut whole = Sha256::new_with_prefix(text);
        let mut files = Vec::with_capacity(card.files.len());
        for file in &card.files {
            let bytes = bytes_of(file)?;
            let digest = Sha256::digest(&bytes);
            let found = hex(&digest);
            if found != file.sha256 {
                let (path, expected) = (folder.join(&file.path), file.sha256.clone());
                return Err(CardError::Hash { path, expected, found });
            }
            whole.update(digest);
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
        Ok(Weights { card, hash: hex(&whole.finalize()), files })
    }

    /// What the weights are.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// SHA-256 over `card.toml` and then each file's SHA-256, in 64 hexadecimal digits: equal hashes, equal models.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The bytes of the first file that has `role`.
    pub fn file_by_role(&self, role: Role) -> Option<&[u8]> {
        let position = self.card.files.iter().position(|file| file.role == role)?;
        Some(&self.files[position])
    }

    /// The card, its hash, and the bytes of the file that the backend loads.
    pub(crate) fn into_parts(mut self) -> (Card, String, Cow<'static, [u8]>) {
        let position = self.card.files.iter().position(|file| file.role == Role::Model);
        let position = position.expect("a parsed card lists exactly one model");
        (self.card, self.hash, self.files.swap_remove(position))
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &[u8] = b"any bytes";
    const LABELS: &[u8] = b"good\nbad\n";

    fn card() -> String {
        format!(
            r#"
            name = "m"
            task = "text-classification"
            format = "onnx"
            description = ""
            license = "MIT"
            source = ""
            labels = "labels.txt"
            files = [
                {{ path = "labels.txt", role = "labels", bytes = {}, sha256 = "{}" }},
                {{ path = "model.onnx", role = "model", bytes = {}, sha256 = "{}" }},
            ]
            inputs = [{{ name = "x", dtype = "f32", shape = ["N"] }}]
            outputs = [{{ name = "y", dtype = "f32", shape = ["N", 2] }}]
            "#,
            LABELS.len(),
            hex(&Sha256::digest(LABELS)),
            MODEL.len(),
            hex(&Sha256::digest(MODEL)),
        )
    }

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn refusal(files: &[(&str, &[u8])]) -> String {
        let folder = folder(files);
        let error = Weights::read(folder.path()).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    }

    #[test]
    fn verified_files_are_read() {
        let card = card();
        let folder = folder(&[("card.toml", card.as_bytes()), ("model.onnx", MODEL), ("labels.txt", LABELS)]);
        let weights = Weights::read(folder.path()).unwrap();
        assert_eq!(weights.card().labels, ["good", "bad"]);
        assert_eq!(weights.file_by_role(Role::Model), Some(MODEL));
        assert_eq!(weights.file_by_role(Role::Vocabulary), None);
        let whole = Sha256::new_with_prefix(&card)
            .chain_update(Sha256::digest(LABELS))
            .chain_update(Sha256::digest(MODEL));
        assert_eq!(weights.hash(), hex(&whole.finalize()));

        let leaked = Box::leak(card.into_boxed_str()).as_bytes();
        let files = [("model.onnx", MODEL), ("card.toml", leaked), ("labels.txt", LABELS)];
        let embedded = Weights::embedded(Box::leak(Box::new(files))).unwrap();
        assert_eq!(embedded.hash(), weights.hash());
        assert_eq!(embedded.into_parts().2, MODEL);
    }

    #[test]
    fn changed_file_is_refused_with_both_hashes() {
        let (expected, found) = (hex(&Sha256::digest(MODEL)), hex(&Sha256::digest(b"ANY bytes")));
        let message = refusal(&[
            ("card.toml", card().as_bytes()),
            ("model.onnx", b"ANY bytes"),
            ("labels.txt", LABELS),
        ]);
        let told =
            format!("`model.onnx` has sha256 {found}, its card says {expected}; restore the file, or ");
        assert!(message.starts_with(&told), "{message}");
    }

    #[test]
    fn files_that_are_missing_or_of_another_size_are_refused() {
        let card = card();
        let card = ("card.toml", card.as_bytes());
        assert_eq!(refusal(&[]), "cannot read `card.toml`");
        assert_eq!(refusal(&[card, ("labels.txt", LABELS)]), "cannot read `model.onnx`");
        let message = refusal(&[card, ("labels.txt", LABELS), ("model.onnx", b"any")]);
        assert!(message.starts_with("`model.onnx` is 3 bytes, its card says 9; restore"), "{message}");
        let message = refusal(&[("card.toml", b"name = 1\nname = 2")]);
        assert!(message.starts_with("`card.toml`: TOML parse error at line 2, column 1\n"), "{message}");

        static FILES: &[(&str, &[u8])] = &[("model.onnx", MODEL)];
        let message = Weights::embedded(FILES).unwrap_err().to_string();
        assert_eq!(message, "`card.toml` is not among the embedded files: model.onnx");
    }

    #[test]
    fn labels_must_be_as_many_as_scores() {
        let card = card().replace("[\"N\", 2]", "[\"N\", 3]");
        let message =
            refusal(&[("card.toml", card.as_bytes()), ("model.onnx", MODEL), ("labels.txt", LABELS)]);
        assert_eq!(message, "`labels.txt`: 2 labels, one a line; output `y` has 3 scores");
    }
}
