//! `infer classify FILE…`: the path of `POST /classify`, without HTTP.

use std::io::Write;

use anyhow::Context as _;
use infer_config::Config;
use infer_sandbox::World;
use infer_server::routes::Timings;
use infer_server::threads::block_on;
use serde::Serialize;

use super::component;
use crate::cli::{Classify, Format};

#[derive(Serialize)]
struct Row {
    file: String,
    labels: Vec<Label>,
    timings: Timings,
}

#[derive(Serialize)]
struct Label {
    label: String,
    index: u32,
    score: f32,
}

pub(super) fn run(config: Config, arguments: &Classify, out: &mut impl Write) -> anyhow::Result<()> {
    let registry = component::load_component(config, arguments.component.as_deref())?;
    let loaded = registry.component(arguments.component.as_deref(), World::Classifier)?;
    block_on(async {
        for (index, path) in arguments.files.iter().enumerate() {
            let image = component::read(path)?;
            let began = std::time::Instant::now();
            let outcome =
                loaded.component.classify(&component::request(&registry), &image, arguments.top).await;
            let labels = outcome.result.with_context(|| format!("cannot classify `{}`", path.display()))?;
            let labels = labels
                .into_iter()
                .map(|label| Label { label: label.name, index: label.index, score: label.score })
                .collect();
            let timings = Timings::new([&outcome.usage], began.elapsed());
            let row = Row { file: path.display().to_string(), labels, timings };
            match arguments.output.output {
                Format::Json => {
                    serde_json::to_writer(&mut *out, &row)?;
                    writeln!(out)?;
                }
                Format::Table => print(&row, index > 0, out)?,
            }
        }
        Ok(())
    })?
}

fn print(row: &Row, blank: bool, out: &mut impl Write) -> std::io::Result<()> {
    if blank {
        writeln!(out)?;
    }
    writeln!(out, "{}  {}", row.file, row.timings)?;
    for label in &row.labels {
        writeln!(out, "  {:.4}  {}", label.score, label.label)?;
    }
    Ok(())
}
