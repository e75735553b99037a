//! Import of a folder.

use std::path::Path;

use anyhow::{Context as _, bail};
use infer_engine::text::{QUOTE_BYTES, excerpt};
use infer_engine::{Card, OnnxSummary, Precision, Role, Runtime, Weights};

use super::choice::NotExported;
use super::export::Export;
use super::notes::{Note, Notes};
use super::output::Output;
use super::plan::{Choices, Plan};
use super::settings::Settings;
use super::{card, choice, first_run, output, plan, safetensors};
use crate::limits::{MAX_DATA_FILES, MAX_EXPORT_BYTES, MAX_TOKENIZER_BYTES};

/// Value of the card for what could not be determined.
const UNKNOWN: &str = "unknown";

/// Files of the result. A data file of the export may not have one of these names.
const MODEL: &str = "model.onnx";
pub(super) const TOKENIZER: &str = "tokenizer.json";

/// An export, and the place of the result.
#[derive(Debug)]
pub struct Request<'a> {
    /// Folder of the export.
    pub folder: &'a Path,
    /// The ONNX file to take, such as `model_quantized.onnx`.
    pub file: Option<&'a str>,
    /// Names of the labels, instead of those in config.json.
    pub labels: Option<&'a [String]>,
    /// Name of the model in its card.
    pub name: &'a str,
    /// Origin of the files, for the card.
    pub source: Option<&'a str>,
    /// The new folder.
    pub destination: &'a Path,
}

/// Result of an import.
#[derive(Debug)]
pub struct Imported {
    /// The card, with its labels.
    pub card: Card,
    /// SHA-256 over the card and the files.
    pub hash: String,
    /// Facts that were read or assumed, and those that could not be determined.
    pub notes: Vec<Note>,
}

/// Writes the weights folder of an export, runs it once, and tests the result.
///
/// # Errors
///
/// If a file is missing or invalid, or the model cannot be run;
/// [`NotExported`] if it has no ONNX file.
pub fn import(request: &Request<'_>, runtime: &Runtime) -> anyhow::Result<Imported> {
    let export = Export::open(request.folder)?;
    let mut notes = Notes::default();
    let chosen = choice::choose(&export, request.name, request.file);
    let converted = match &chosen {
        Err(error) if error.is::<NotExported>() => safetensors::convert(&export)?,
        _ => None,
    };
    let (file, model) = match converted {
        Some(model) => (safetensors::FILE.to_owned(), model),
        None => {
            let file = chosen?;
            let model = export.bytes(&file, MAX_EXPORT_BYTES)?;
            let missing = || format!("`{}` does not exist", export.path.join(&file).display());
            let model = model.with_context(missing)?;
            (file, model)
        }
    };
    let settings = Settings::read(&export)?;
    let shown = || format!("`{}`", export.path.join(&file).display());
    let summary = OnnxSummary::read(&model).map_err(anyhow::Error::msg).with_context(shown)?;
    let precision = match summary.precision() {
        Precision::Full => "full precision",
        Precision::Half => "half precision",
        Precision::Quantized => "int8",
    };
    let kind = if file == safetensors::FILE { " of ONNX" } else { "" };
    notes.read("file", format!("{file}, {} bytes{kind}, {precision}", model.len()));
    let choices = Choices { labels: request.labels };
    let plan = plan::plan(&settings, &summary, &choices, &mut notes).with_context(shown)?;
    let output = Output::create(request.destination)?;
    let files = write(&export, &file, &model, &summary, &plan, &output)?;
    drop(model);
    provenance(&settings, request, &plan, &mut notes);
    let heading = card::Heading {
        name: request.name,
        description: description(&settings, &plan),
        license: settings.license.as_deref().unwrap_or(UNKNOWN),
        source: request.source.unwrap_or(UNKNOWN),
    };
    let write_card = |test: Option<&card::TestDraft>| {
        output.card(&card::text(&heading, &plan, &files, test))?;
        Weights::read(&output.path(), None).context("the imported model is invalid")
    };
    let test = first_run::run(runtime, write_card(None)?, &plan)?;
    let weights = write_card(Some(&test))?;
    let (card, hash) = (weights.card().clone(), weights.hash().to_owned());
    first_run::self_test(runtime, weights)?;
    output.finish()?;
    Ok(Imported { card, hash, notes: notes.0 })
}

/// Writes the files beside the card.
fn write(
    export: &Export,
    file: &str,
    model: &[u8],
    summary: &OnnxSummary,
    plan: &Plan,
    output: &Output,
) -> anyhow::Result<Vec<card::Written>> {
    let tokenizer = export.bytes(TOKENIZER, MAX_TOKENIZER_BYTES)?;
    let tokenizer = tokenizer.with_context(|| {
        format!(
            "`{}` is missing, expected the tokenizer in the format of the `tokenizers` library; write it with \
             `AutoTokenizer.from_pretrained(…, use_fast=True).save_pretrained(…)`",
            export.path.join(TOKENIZER).display()
        )
    })?;
    let mut files =
        vec![output.write(MODEL, Role::Model, model)?, output.write(TOKENIZER, Role::Tokenizer, &tokenizer)?];
    if !plan.labels.is_empty() {
        let lines: String = plan.labels.iter().map(|label| format!("{label}\n")).collect();
        files.push(output.write(card::LABELS, Role::Labels, lines.as_bytes())?);
    }
    if summary.data_files.len() > MAX_DATA_FILES {
        bail!("`{file}` has data in {} files, expected at most {MAX_DATA_FILES}", summary.data_files.len());
    }
    for name in &summary.data_files {
        let shown = excerpt(name, QUOTE_BYTES);
        let is_taken = [MODEL, TOKENIZER, card::LABELS, output::CARD].contains(&name.as_str());
        if is_taken || name.starts_with('.') || name.contains(['/', '\\', '\0']) {
            bail!(
                "`{file}` reads data from `{shown}`, expected the name of a file beside it; export the model again"
            );
        }
        let path =
            file.rsplit_once('/').map_or_else(|| name.clone(), |(folder, _)| format!("{folder}/{name}"));
        let Some(from) = export.find(&path)? else {
            bail!("`{file}` reads data from `{shown}`, which is missing; put it beside the file");
        };
        files.push(output.copy(name, Role::Data, &from, MAX_EXPORT_BYTES)?);
    }
    Ok(files)
}

/// Notes about licence, source and thresholds.
fn provenance(settings: &Settings, request: &Request<'_>, plan: &Plan, notes: &mut Notes) {
    match &settings.license {
        Some(license) => notes.read("license", format!("{license}, from README.md")),
        None => notes.unknown("license", "no file has it; write it into card.toml"),
    }
    match request.source {
        Some(source) => notes.read("source", source),
        None => notes.unknown("source", "write into card.toml where the files come from"),
    }
    if !plan.categories.is_empty() {
        notes.unknown("thresholds", "0.5 for each category; fit them on your data");
    } else if !plan.labels.is_empty() {
        notes.unknown("categories", "no label has a well-known name; map labels in card.toml or in settings");
    }
}

fn description(settings: &Settings, plan: &Plan) -> String {
    let kind = excerpt(settings.architecture().unwrap_or("model"), QUOTE_BYTES);
    match plan.labels.len() {
        0 => format!("{kind}, imported by `infer import`"),
        1 => format!("{kind} with one label, imported by `infer import`"),
        labels => format!("{kind} with {labels} labels, imported by `infer import`"),
    }
}
