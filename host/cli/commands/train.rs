//! `infer train`: a head for a category on the embeddings of an encoder, from labelled texts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use infer_config::Config;
use infer_control::loader::find_model;
use infer_engine::{Model, Role, Runtime, RuntimeOptions};
use infer_models::source::Source;
use infer_models::weights::{self, Reuse};
use infer_server::threads::block_on;
use infer_train::{ClassWeights, Dataset, Head, Report, Selection, Training, embed, options};
use serde::Serialize;

use super::labels;
use super::training::{progress, write};
use crate::cli::{Format, Train, Weighting};

/// The report with what this command adds.
#[derive(Serialize)]
struct Printed<'a> {
    head: String,
    category: &'a str,
    encoder: &'a str,
    encoder_sha256: &'a str,
    data_sha256: &'a str,
    language_model: Option<labels::Agreement>,
    #[serde(flatten)]
    report: Report,
    embed_seconds: f64,
    fit_seconds: f64,
}

pub(super) fn run(config: &Config, arguments: &Train, out: &mut impl Write) -> anyhow::Result<()> {
    let category = arguments.category.as_str();
    let mut data = Dataset::read(&arguments.data, Some(category))?;
    let mut labels = None;
    if let Some(model) = &arguments.from_language_model {
        let (path, agreement) = labels::label(config, arguments, model, &data)?;
        data = Dataset::read(&path, Some(category))?;
        labels = Some(agreement);
    }
    let selection = Selection::new(&data, category)?;
    let model = encoder(config, &arguments.encoder)?;

    let began = Instant::now();
    let bar = progress(selection.examples.len(), "texts");
    let texts: Vec<Arc<str>> =
        selection.examples.iter().map(|example| Arc::from(example.text.as_str())).collect();
    let embedded = block_on(embed(&model, &texts, &bar))?;
    bar.finish_and_clear();
    let features = embedded.with_context(|| format!("cannot embed the texts of `{}`", data.name))?;
    let embed_seconds = began.elapsed().as_secs_f64();

    let began = Instant::now();
    let class_weights = match arguments.class_weights {
        Weighting::Balanced => ClassWeights::Balanced,
        Weighting::None => ClassWeights::None,
    };
    let training = Training {
        features: &features,
        truths: &selection.truths,
        groups: &selection.groups,
        examples: &selection.train,
        class_weights,
    };
    let trained = infer_train::train(&training).with_context(|| format!("`{}`: `{category}`", data.name))?;
    let fit_seconds = began.elapsed().as_secs_f64();
    let positive = selection.train.iter().filter(|&&index| selection.truths[index]).count();
    let encoder_sha256 = &model.card().files.iter().find(|file| file.role == Role::Model);
    let encoder_sha256 = encoder_sha256.map(|file| file.sha256.as_str()).unwrap_or_default();
    let head = Head {
        encoder: encoder_sha256,
        label: category,
        regression: &trained.regression,
        calibration: trained.calibration,
        threshold: trained.decision.threshold,
        data: &data,
        examples: selection.train.len(),
        positive,
    };
    let path = with_extension(&arguments.output);
    write(&path, &head.to_toml())?;
    let report = Report::new(&selection, &features, class_weights, &trained, arguments.mistakes as usize);
    match arguments.format {
        Format::Json => {
            let printed = Printed {
                head: path.display().to_string(),
                category,
                encoder: &arguments.encoder,
                encoder_sha256,
                data_sha256: &data.sha256,
                language_model: labels,
                report,
                embed_seconds,
                fit_seconds,
            };
            serde_json::to_writer_pretty(&mut *out, &printed)?;
            writeln!(out)?;
        }
        Format::Table => {
            if let Some(agreement) = &labels {
                agreement.print(out)?;
            }
            report.print(out)?;
            writeln!(
                out,
                "\nwrote `{}` ({embed_seconds:.1} s to embed, {fit_seconds:.1} s to fit)",
                path.display()
            )?;
            next(&arguments.encoder, &path, out)?;
        }
    }
    Ok(())
}

/// Prints how to use the head.
fn next(encoder: &str, head: &Path, out: &mut impl Write) -> std::io::Result<()> {
    let name = encoder.strip_prefix("builtin:").unwrap_or(encoder);
    writeln!(out, "\nnext, in infer.toml, with the path from there:")?;
    writeln!(out, "  [models.\"{}\"]", name.escape_default())?;
    writeln!(out, "  heads = [\"{}\"]  # and the heads that it has", head.display())
}

/// Loads an encoder so that the embedding of a text depends on the text alone.
fn encoder(config: &Config, name: &str) -> anyhow::Result<Arc<Model>> {
    let plain = name.strip_prefix("builtin:").unwrap_or(name);
    let (source, reuse) = if Path::new(name).join("card.toml").is_file() {
        (Source::Path(name.into()), Reuse::All)
    } else {
        let (source, _, reuse) = find_model(config, plain)?;
        (source, reuse)
    };
    let runtime = Runtime::new(&RuntimeOptions { onnxruntime: config.onnxruntime.clone() })?;
    let weights = weights::load(&source, &[], reuse).with_context(|| format!("model `{name}`"))?;
    Ok(Arc::new(Model::load(&runtime, name, weights.without_heads(), &options())?))
}

/// The path with `.toml`, if it has no extension.
fn with_extension(path: &Path) -> PathBuf {
    if path.extension().is_some() { path.to_owned() } else { path.with_extension("toml") }
}
