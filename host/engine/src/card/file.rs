//! `card.toml` as it is written: every key known, every mistake with its line.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use super::{Card, CardFile, Download, Format, InputSpec, OutputSpec, SelfTest, Task, check};
use crate::text::{QUOTE_BYTES, excerpt};

/// The keys of the file. [`Card`] differs in its labels, which are here the name of their file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
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
    let file: File = toml::from_str(text).map_err(|error| {
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

/// A file name that cannot leave the card's folder.
pub(super) fn plain_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if matches!(name.as_str(), "" | "." | "..") || name.contains(['/', '\\', ':', '\0']) {
        return Err(D::Error::custom(format!(
            "`{}` is not a plain file name; the file lies beside card.toml, and its name has no separators",
            excerpt(&name, QUOTE_BYTES)
        )));
    }
    Ok(name)
}

/// A SHA-256 as tools print it.
pub(super) fn sha256<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let digits = String::deserialize(deserializer)?;
    if digits.len() != 64 || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(D::Error::custom(format!(
            "`{}` is not a sha256, expected 64 lower-case hexadecimal digits",
            excerpt(&digits, QUOTE_BYTES)
        )));
    }
    Ok(digits)
}
