//! `infer models`: configured and built-in models.

use std::io::Write;

use anyhow::Context as _;
use infer_config::Config;
use infer_engine::Supported;
use infer_models::source::Source;
use infer_models::weights::State;
use infer_models::{builtin, weights};
use serde::Serialize;

use crate::cli::{Format, Output};
use crate::printed::one_line;

#[derive(Serialize)]
struct Row {
    name: String,
    source: String,
    task: String,
    /// Unknown before the first pull of some models.
    bytes: Option<u64>,
    state: String,
    dummy: bool,
    license: String,
    description: String,
    configured: bool,
}

/// Lists the kinds of files that can be loaded.
pub(super) fn supported(arguments: &Output, out: &mut impl Write) -> anyhow::Result<()> {
    let supported = Supported::new();
    if arguments.output == Format::Json {
        serde_json::to_writer_pretty(&mut *out, &supported)?;
        writeln!(out)?;
        return Ok(());
    }
    let types: Vec<_> = supported.weight_types.iter().map(String::as_str).collect();
    for (key, values) in [
        ("general.architecture", &supported.architectures),
        ("tokenizer.ggml.model", &supported.tokenizers),
        ("tokenizer.ggml.pre", &supported.pre_tokenizers),
        ("types of tensors", &types),
    ] {
        writeln!(out, "{key:<22} {}", values.join(", "))?;
    }
    Ok(())
}

pub(super) fn run(config: &Config, arguments: &Output, out: &mut impl Write) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (name, model) in &config.models {
        rows.push(row(name, &model.source, true).with_context(|| format!("{}: model `{name}`", model.at))?);
    }
    for name in builtin::weights_names() {
        let source = Source::Builtin(name.to_owned());
        let configured = config.models.values().any(|model| model.source == source);
        if !configured && weights::exists(name) {
            rows.push(row(name, &source, false)?);
        }
    }
    match arguments.output {
        Format::Json => serde_json::to_writer_pretty(&mut *out, &rows)?,
        Format::Table => {
            writeln!(
                out,
                "{:<20} {:<36} {:<22} {:>10}  {:<10}  LICENSE",
                "MODEL", "SOURCE", "TASK", "BYTES", "STATE"
            )?;
            for row in &rows {
                let name = if row.configured { row.name.clone() } else { "(not configured)".to_owned() };
                let Row { source, task, bytes, state, license, .. } = row;
                let bytes = bytes.map_or_else(|| "-".to_owned(), |bytes| bytes.to_string());
                let license = one_line(license);
                writeln!(out, "{name:<20} {source:<36} {task:<22} {bytes:>10}  {state:<10}  {license}")?;
            }
        }
    }
    if arguments.output == Format::Json {
        writeln!(out)?;
    }
    Ok(())
}

fn row(name: &str, source: &Source, configured: bool) -> anyhow::Result<Row> {
    if matches!(source, Source::Hub(_)) && weights::is_absent(source) {
        let unknown = || "-".to_owned();
        return Ok(Row {
            name: name.to_owned(),
            source: source.to_string(),
            task: unknown(),
            bytes: None,
            state: "not pulled".to_owned(),
            dummy: false,
            license: unknown(),
            description: unknown(),
            configured,
        });
    }
    let weights::Listed { card, state, dummy, .. } = weights::list(source)?;
    let state = match state {
        State::Ready if dummy => "DUMMY".to_owned(),
        State::Ready => "ready".to_owned(),
        State::Absent => "not pulled".to_owned(),
        State::Damaged(what) => format!("damaged: {what}"),
    };
    Ok(Row {
        name: name.to_owned(),
        source: source.to_string(),
        task: card.task.to_string(),
        bytes: Some(card.files.iter().map(|file| file.bytes).sum()).filter(|bytes| *bytes > 0),
        state,
        dummy,
        license: card.license,
        description: card.description,
        configured,
    })
}
