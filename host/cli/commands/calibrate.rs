//! `infer calibrate`: thresholds of a component whose error rate has a guaranteed bound, and the
//! use of its language model.

mod language;

use std::io::Write;

use anyhow::{Context as _, ensure};
use infer_config::Config;
use infer_config::thresholds::{Bound as Written, Data, Guarantee, Thresholds, Versions, settings_hash};
use infer_sandbox::World;
use infer_server::threads::block_on;
use infer_train::control::{Bound, Controlled, Failure, Rate};
use infer_train::{Calibrated, Dataset, Outcome, Part, Sample};
use serde::Serialize;

use self::language::Use;
use super::component;
use super::training::{judge, progress, write};
use crate::cli::{Calibrate, Format};

/// The report.
#[derive(Serialize)]
struct Report<'a> {
    component: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound: Option<Bound>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cascade: Option<&'a Use>,
    thresholds: String,
    examples: usize,
    duplicates: usize,
    trained: usize,
    categories: Vec<Calibrated>,
}

pub(super) fn run(mut config: Config, arguments: &Calibrate, out: &mut impl Write) -> anyhow::Result<()> {
    let data = Dataset::read(&arguments.data, arguments.category.as_deref())?;
    let sample = Sample::new(&data)?;
    // The present thresholds may be stale, and do not affect the scores.
    config.components.values_mut().for_each(|component| component.thresholds = None);
    let registry = component::load_component(config, arguments.component.as_deref())?;
    let loaded = registry.component(arguments.component.as_deref(), World::Moderator)?;
    let name = loaded.component.name();
    let config = registry.config.components.get(name).context("a loaded component is configured")?;
    let has_language = loaded.component.models().values().any(|model| model.language().is_some());

    let hashes = loaded.component.models().iter();
    let versions = Versions {
        component: loaded.hash.clone(),
        models: hashes.map(|(alias, model)| (alias.clone(), model.hash().to_owned())).collect(),
        settings: settings_hash(&config.settings),
    };
    let used = Data { file: data.name.clone(), sha256: data.sha256.clone(), examples: sample.examples.len() };
    let mut thresholds = Thresholds::new(versions, used);
    let (mut categories, mut cascade) = (Vec::new(), None);
    if let Some(bound) = &arguments.bound() {
        ensure!(
            !has_language,
            "component `{name}` has a language model, whose weight in a score depends on the thresholds; calibrate a \
             component without it, or the use of the language model with `--language-budget`"
        );
        let bar = progress(sample.examples.len(), "texts");
        let deadline = registry.config.server.deadline;
        let judged = block_on(judge(loaded, &sample.examples, deadline, &[], &bar))?;
        bar.finish_and_clear();
        let scores: Vec<_> = judged.complete()?.into_iter().map(|judgement| judgement.scores).collect();
        categories = sample.calibrate(&scores, bound).with_context(|| format!("`{}`", data.name))?;
        thresholds.bound = Some(written(bound));
        add(&mut thresholds, &categories);
    }
    if let Some(budget) = arguments.language_budget {
        ensure!(has_language, "component `{name}` has no language model to spend `--language-budget` on");
        let fitted = Use::fit(loaded, &config.settings, &sample, budget);
        let fitted = fitted.with_context(|| format!("`{}`", data.name))?;
        thresholds.cascade = Some(fitted.settings());
        cascade = Some(fitted);
    }
    let path = arguments.output.display().to_string();
    let is_written = !thresholds.thresholds.is_empty() || cascade.is_some();
    if is_written {
        write(&arguments.output, &thresholds.text()?)?;
    }
    match arguments.format {
        Format::Json => {
            let report = Report {
                component: name,
                bound: arguments.bound(),
                cascade: cascade.as_ref(),
                thresholds: path.clone(),
                examples: sample.examples.len(),
                duplicates: sample.duplicates,
                trained: sample.trained,
                categories,
            };
            serde_json::to_writer_pretty(&mut *out, &report)?;
            writeln!(out)?;
        }
        Format::Table => {
            print(&sample, &categories, out)?;
            if let Some(cascade) = &cascade {
                cascade.print(out)?;
            }
            if is_written {
                writeln!(out, "\nwrote `{path}`\n\nnext, in infer.toml, with the path from there:")?;
                writeln!(out, "  [components.{name}]\n  thresholds = \"{path}\"")?;
            }
        }
    }
    ensure!(is_written, "no category has a threshold that respects the bound, so `{path}` was not written");
    Ok(())
}

/// Adds the thresholds of `categories`.
fn add(thresholds: &mut Thresholds, categories: &[Calibrated]) {
    for calibrated in categories {
        let category = &calibrated.category;
        if let Outcome::Guarantee(controlled) = calibrated.all.outcome {
            let Controlled { threshold, errors, of, upper } = controlled;
            thresholds.thresholds.insert(category.clone(), threshold as f32);
            thresholds.guarantees.insert(category.clone(), Guarantee { errors, of, upper });
        }
        for (language, part) in &calibrated.languages {
            if let Outcome::Guarantee(controlled) = part.outcome {
                let of_language = thresholds.languages.entry(language.clone()).or_default();
                of_language.insert(category.clone(), controlled.threshold as f32);
            }
        }
    }
}

fn written(bound: &Bound) -> Written {
    let rate = match bound.rate {
        Rate::FalsePositive => "max-fpr",
        Rate::FalseNegative => "max-fnr",
    };
    Written { rate: rate.to_owned(), max: bound.max, confidence: bound.confidence }
}

fn print(sample: &Sample<'_>, categories: &[Calibrated], out: &mut impl Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{} examples; left out: {} of the split `train`, {} whose text stands in an earlier line\n",
        sample.examples.len(),
        sample.trained,
        sample.duplicates
    )?;
    for Calibrated { category, all, languages } in categories {
        print_part(category, all, out)?;
        for (language, part) in languages {
            print_part(&format!("  {}", crate::printed::one_line(language)), part, out)?;
        }
    }
    Ok(())
}

fn print_part(name: &str, part: &Part, out: &mut impl Write) -> std::io::Result<()> {
    let auroc = part.auroc.map_or("-".to_owned(), |auroc| format!("{auroc:.4}"));
    write!(out, "{name:24} {:>7} examples, {:>6} positive, AUROC {auroc:6}  ", part.examples, part.positive)?;
    match part.outcome {
        Outcome::Guarantee(Controlled { threshold, errors, of, upper }) => {
            let recall = part.decision.map_or("-".to_owned(), |decision| format!("{:.4}", decision.recall));
            writeln!(
                out,
                "threshold {threshold:.6}: {errors} of {of} wrong, at most {upper:.5}; recall {recall}"
            )
        }
        Outcome::Failure(Failure::TooSmall { found, needed }) => {
            writeln!(out, "too small: {found} examples could be errors, needs at least {needed}")
        }
        Outcome::Failure(Failure::Unreachable { errors, of }) => {
            writeln!(out, "no threshold: {errors} of {of} are wrong even at the safest one")
        }
    }
}
