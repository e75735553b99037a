//! `infer moderate TEXT|-`: the path of `POST /moderate`, without HTTP.

use std::io::{IsTerminal as _, Read as _, Write, stdin};

use anyhow::Context as _;
use infer_config::Config;
use infer_models::dummy::WARNING;
use infer_sandbox::World;
use infer_sandbox::types::Part;
use infer_server::routes;
use infer_server::routes::{Explain, LabelledSpan, ModerateResponse, WordSpan};
use infer_server::threads::block_on;

use super::{component, text_model};
use crate::cli::{Format, Moderate};

pub(super) fn run(mut config: Config, arguments: &Moderate, out: &mut impl Write) -> anyhow::Result<()> {
    let parts = parts(arguments)?;
    // Removed when the command ends, if it holds an import.
    let _scratch = match &arguments.text_model {
        Some(model) => text_model::replace(&mut config, arguments.component.as_deref(), model)?,
        None => None,
    };
    let registry = component::load_component(config, arguments.component.as_deref())?;
    let loaded = registry.component(arguments.component.as_deref(), World::Moderator)?;
    let explain = if arguments.explain { Explain::Spans } else { Explain::No };
    let response = block_on(routes::respond(loaded, &component::request(&registry), vec![parts], explain))?
        .map_err(|(_, error)| error)
        .context("cannot moderate the input")?;
    match arguments.output.output {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, &response)?;
            writeln!(out)?;
        }
        Format::Table => print(&response, out)?,
    }
    Ok(())
}

fn parts(arguments: &Moderate) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    match arguments.text.as_deref() {
        Some("-") => {
            if stdin().is_terminal() {
                anyhow::bail!("`-` reads the text from standard input, which is a terminal; pipe a text in");
            }
            let mut text = String::new();
            stdin().read_to_string(&mut text).context("standard input is not UTF-8 text")?;
            parts.push(Part::Text(text));
        }
        Some(text) => parts.push(Part::Text(text.to_owned())),
        None => {}
    }
    for path in &arguments.image {
        parts.push(Part::Image(component::read(path)?));
    }
    anyhow::ensure!(
        !parts.is_empty(),
        "nothing to moderate; give a text, `-` for standard input, or --image FILE"
    );
    Ok(parts)
}

fn print(response: &ModerateResponse, out: &mut impl Write) -> std::io::Result<()> {
    if response.infer.judges.dummy {
        writeln!(out, "{WARNING}")?;
    }
    for (index, judgement) in response.results.iter().enumerate() {
        let word = if judgement.flagged { "flagged" } else { "not flagged" };
        writeln!(out, "{word}  {}", response.infer.timings)?;
        for (category, score) in &judgement.category_scores {
            let gap = response.infer.degraded.iter().find(|gap| gap.category == *category);
            let gap = gap.map(|gap| format!("  ({})", gap.reason)).unwrap_or_default();
            match judgement.category_tiers.get(category) {
                Some(tier) => writeln!(out, "  {score:.4}  {category:22}  {tier}{gap}")?,
                None => writeln!(out, "       -  {category:22}{gap}")?,
            }
        }
        for (category, further) in response.infer.categories.get(index).into_iter().flatten() {
            writeln!(out, "  {:.4}  {category:22}  {}", further.score, further.tier)?;
        }
        let spans = response.infer.spans.iter().flatten().filter(|span| span.input == index);
        for span in spans {
            let LabelledSpan { label, score, start, end, .. } = span;
            writeln!(out, "  {score:.4}  {label:22}  characters {start} to {end}")?;
        }
        if let Some(explanation) = response.infer.explanations.get(index) {
            for span in explanation.spans.iter().flatten() {
                let WordSpan { category, text, contribution, score_without, .. } = span;
                writeln!(
                    out,
                    "  {contribution:+.4}  {category:22}  `{text}`, without it {score_without:.4}"
                )?;
            }
            for note in &explanation.notes {
                writeln!(out, "  note: {note}")?;
            }
        }
    }
    Ok(())
}
