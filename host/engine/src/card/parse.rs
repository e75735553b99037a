//! Parser of `card.toml`. Unknown keys are errors, and messages contain the line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::category::Category;
use super::check;
use super::download::Download;
use super::file::{CARD, CardFile};
use super::question::Question;
use super::schema::{Card, Format, Task};
use super::self_test::SelfTest;
use super::tensors::{InputSpec, OutputSpec};
use super::text::TextSpec;
use crate::limits::MAX_CARD_BYTES;
use crate::text::toml_message;
use crate::weights::{CardError, Links, Opened};

/// Keys of the file. Unlike in [`Card`], `labels` is the name of a file.
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
    text: Option<TextSpec>,
    #[serde(default)]
    questions: Vec<Question>,
    #[serde(default)]
    categories: BTreeMap<String, Category>,
    #[serde(default)]
    download: Download,
    #[serde(default)]
    preset: BTreeMap<String, String>,
    #[serde(default)]
    tests: Vec<SelfTest>,
}

/// Parses and checks a card. The labels and heads are not read yet; the second value is the name of
/// the labels' file.
///
/// # Errors
///
/// A message about the first problem, with its line if TOML reports one.
pub(crate) fn parse(text: &str) -> Result<(Card, Option<String>), String> {
    let file: CardToml = toml::from_str(text).map_err(|error| toml_message(&error))?;
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
        labels: file.questions.iter().flat_map(|question| question.labels.clone()).collect(),
        heads: Vec::new(),
        text: file.text,
        questions: file.questions,
        categories: file.categories,
        download: file.download,
        preset: file.preset,
        tests: file.tests,
    };
    check::card(&card, file.labels.as_deref())?;
    Ok((card, file.labels))
}

/// Reads the text of a card.
///
/// # Errors
///
/// When it cannot be read, is too large, or is not UTF-8.
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
    /// Parses and checks the card in `text`. Its labels and heads are in other files, so they are
    /// empty.
    ///
    /// # Errors
    ///
    /// A message about the first problem, with its line if TOML reports one.
    pub fn parse(text: &str) -> Result<Self, String> {
        parse(text).map(|(card, _)| card)
    }

    /// Reads the card in `folder` as [`Card::parse`] does.
    ///
    /// # Errors
    ///
    /// When it is missing or invalid.
    pub fn read(folder: &Path) -> Result<Self, CardError> {
        let path = folder.join(CARD);
        Card::parse(&read_card(&path)?).map_err(|message| CardError::Card { path, message })
    }
}
