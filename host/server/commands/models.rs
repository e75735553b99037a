//! `infer models`: what is configured, and what could be.

use std::io::Write;

use anyhow::Context as _;
use infer_engine::Weights;
use serde::Serialize;

use crate::builtin;
use crate::cli::{Format, Output};
use crate::config::{Config, Source};

#[derive(Serialize)]
struct Row {
    name: String,
    source: String,
    task: String,
    bytes: u64,
    license: String,
    description: String,
    configured: bool,
}

pub(super) fn run(config: &Config, arguments: &Output, out: &mut impl Write) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (name, model) in &config.models {
        rows.push(row(name, &model.source, true).with_context(|| format!("{}: model `{name}`", model.at))?);
    }
    for name in builtin::weights_names() {
        let source = Source::Builtin(name.to_owned());
        if !config.models.values().any(|model| model.source == source) {
            rows.push(row(name, &source, false)?);
        }
    }
    match arguments.output {
        Format::Json => serde_json::to_writer_pretty(&mut *out, &rows)?,
        Format::Table => {
            writeln!(out, "{:<20} {:<36} {:<22} {:>10}  LICENSE", "MODEL", "SOURCE", "TASK", "BYTES")?;
            for row in &rows {
                let name = if row.configured { row.name.clone() } else { "(not configured)".to_owned() };
                let Row { source, task, bytes, license, .. } = row;
                writeln!(out, "{name:<20} {source:<36} {task:<22} {bytes:>10}  {license}")?;
            }
        }
    }
    if arguments.output == Format::Json {
        writeln!(out)?;
    }
    Ok(())
}

fn row(name: &str, source: &Source, configured: bool) -> anyhow::Result<Row> {
    let weights = match source {
        Source::Builtin(builtin) => {
            Weights::embedded(builtin::weights(builtin).context("no such built-in weights")?)?
        }
        Source::Path(folder) => Weights::read(folder)?,
    };
    let card = weights.card();
    Ok(Row {
        name: name.to_owned(),
        source: source.to_string(),
        task: card.task.to_string(),
        bytes: card.files.iter().map(|file| file.bytes).sum(),
        license: card.license.clone(),
        description: card.description.clone(),
        configured,
    })
}
