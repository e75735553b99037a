//! `card.toml` as it is written: every key known, every mistake with its line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::check;
use super::download::Download;
use super::file::CardFile;
use super::schema::{Card, Format, Task};
use super::self_test::SelfTest;
use super::tensors::{InputSpec, OutputSpec};
use crate::text::{QUOTE_BYTES, excerpt};
use crate::weights::{CardError, Links, Opened};

/// The card's file name.
pub(crate) const CARD: &str = "card.toml";

/// A larger card is not read. Numbers of self-tests take most of one.
const MAX_CARD_BYTES: u64 = 64 << 20;

/// The keys of the file. [`Card`] differs in its labels, which are here the name of their file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CardToml {
    name: String,
    task: Task,
    format: Format,
    description: String,
    license: String,
    source: String,
    labels: Option<String>,
    batch_axis: Option<usize>,
    files: Vec<CardFile>,
    #[serde(default)]
    inputs: Vec<InputSpec>,
    #[serde(default)]
    outputs: Vec<OutputSpec>,
    #[serde(default)]
    download: Download,
    #[serde(default)]
    preset: BTreeMap<String, String>,
    #[serde(default)]
    tests: Vec<SelfTest>,
}

/// The card that `text` writes, its labels not yet read, and the name of the file that holds them.
///
/// # Errors
///
/// A message that says what is wrong and, as far as TOML knows it, in which line.
pub(crate) fn parse(text: &str) -> Result<(Card, Option<String>), String> {
    let file: CardToml = toml::from_str(text).map_err(|error| {
        // The parser's message is several lines that show the mistake, ending in a line break; a
        // card may be a stranger's, and its lines of any length.
        let message = error.to_string();
        message.trim_end().lines().map(|line| excerpt(line, QUOTE_BYTES)).collect::<Vec<_>>().join("\n")
    })?;
    let card = Card {
        name: file.name,
        task: file.task,
        format: file.format,
        description: file.description,
        license: file.license,
        source: file.source,
        batch_axis: file.batch_axis,
        files: file.files,
        inputs: file.inputs,
        outputs: file.outputs,
        labels: Vec::new(),
        download: file.download,
        preset: file.preset,
        tests: file.tests,
    };
    check::card(&card, file.labels.as_deref())?;
    Ok((card, file.labels))
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

impl Card {
    /// The card that `text` writes. Its labels are in a file that is not read here, so it has none.
    ///
    /// # Errors
    ///
    /// A message that says what is wrong and, as far as TOML knows it, in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(|(card, _)| card)
    }

    /// The card in `folder`, as [`Card::parse`] reads it.
    ///
    /// # Errors
    ///
    /// When there is none, or it is wrong.
    pub fn read(folder: &Path) -> Result<Self, CardError> {
        let path = folder.join(CARD);
        Card::parse(&read_card(&path)?).map_err(|message| CardError::Card { path, message })
    }
}
