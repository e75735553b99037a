//! Labels by a language model, under the policy of a moderator.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use infer_config::lock::Lock;
use infer_config::thresholds::settings_hash;
use infer_config::{ComponentConfig, Config, ModelConfig, Place};
use infer_control::loader::find_model;
use infer_control::registry::Registry;
use infer_engine::files;
use infer_models::source::Source;
use infer_sandbox::{HttpOptions, Limits, World};
use infer_server::threads::block_on;
use infer_train::metrics::{Scored, auroc, kappa};
use infer_train::{Answer, Dataset, Example};
use serde::Serialize;

use super::training::{judge, progress, write};
use crate::cli::Train;
use crate::limits::{MAX_LABEL_TIME, MAX_POLICY_BYTES};

/// Guest's name of the language model.
const ALIAS: &str = "language";

/// Probability from which the language model's answer is a positive label.
const THRESHOLD: f64 = 0.5;

/// Agreement of the language model with labels that were given.
#[derive(Serialize)]
pub(super) struct Agreement {
    model: String,
    labelled: String,
    /// Examples whose label is the language model's.
    labels: usize,
    /// Of these, positive ones.
    positive: usize,
    /// Answers that an earlier run had asked for.
    reused: usize,
    /// Examples with a given label.
    compared: usize,
    accuracy: Option<f64>,
    kappa: Option<f64>,
    auroc: Option<f64>,
}

/// Labels the examples of `data` without a label of the category, and asks about those with one.
/// Returns the file with all labels.
///
/// # Errors
///
/// If the model cannot be loaded or judge a text. The answers until then are in the file.
pub(super) fn label(
    config: &Config,
    arguments: &Train,
    model: &str,
    data: &Dataset,
) -> anyhow::Result<(PathBuf, Agreement)> {
    let category = arguments.category.as_str();
    let path = arguments.labelled.clone().unwrap_or_else(|| arguments.data.with_extension("labelled.jsonl"));
    ensure!(
        path != arguments.data,
        "`{}` would replace the data; expected another `--labelled`",
        path.display()
    );
    let config = configuration(config, arguments, model)?;
    let registry = Registry::load(config)?;
    let loaded = registry.component(None, World::Moderator)?;
    let settings = registry.config.components.values().next().map(|component| &component.settings);
    let hash = loaded.component.models().values().next().map(|model| model.hash().to_owned());
    let (Some(settings), Some(hash)) = (settings, hash) else {
        anyhow::bail!("no language model was loaded")
    };
    let by = format!("{hash} {}", settings_hash(settings));

    let mut answers = known(&path, &by)?;
    let asked: Vec<&Example> =
        data.examples.iter().filter(|example| !answers.contains_key(example.text.as_str())).collect();
    let reused = data.examples.len() - asked.len();
    let bar = progress(asked.len(), "texts by the language model");
    let judged = block_on(judge(loaded, &asked, MAX_LABEL_TIME, &[], &bar))?;
    bar.finish_and_clear();
    for (example, scores) in asked.iter().zip(judged.scores()) {
        if let Some(scores) = scores {
            let score = scores.get(category).copied().with_context(|| {
                format!("model `{model}` does not judge `{category}`; expected a language model, or a guard that does")
            })?;
            answers.insert(example.text.clone(), score);
        }
    }
    let (mut labels, mut positive, mut compared) = (0, 0, Vec::new());
    let mut text = String::new();
    for example in &data.examples {
        let mut example = example.clone();
        if let Some(&score) = answers.get(&example.text) {
            match example.labels.get(category) {
                Some(&truth) => compared.push(Scored { score, truth }),
                None => {
                    labels += 1;
                    positive += usize::from(score >= THRESHOLD);
                    example.labels.insert(category.to_owned(), score >= THRESHOLD);
                }
            }
            example.answer = Some(Answer { by: by.clone(), score });
        }
        text.push_str(&example.to_json());
        text.push('\n');
    }
    write(&path, &text)?;
    judged.complete().with_context(|| {
        format!("the answers until then are in `{}`; run the command again to continue", path.display())
    })?;
    let right = compared.iter().filter(|one| (one.score >= THRESHOLD) == one.truth).count();
    let accuracy = (!compared.is_empty()).then(|| right as f64 / compared.len() as f64);
    let agreement = Agreement {
        model: model.to_owned(),
        labelled: path.display().to_string(),
        labels,
        positive,
        reused,
        compared: compared.len(),
        accuracy,
        kappa: accuracy.and_then(|_| kappa(&compared, THRESHOLD)),
        auroc: auroc(&compared),
    };
    Ok((path, agreement))
}

/// A configuration of one moderator with only the language model.
fn configuration(config: &Config, arguments: &Train, model: &str) -> anyhow::Result<Config> {
    let (source, options, reuse) = find_model(config, model.strip_prefix("builtin:").unwrap_or(model))?;
    let at = Place::of(config.origin.clone());
    let mut settings = BTreeMap::new();
    let configured = config
        .components
        .values()
        .find(|component| component.models.get(ALIAS).is_some_and(|name| name == model));
    for (key, value) in configured.iter().flat_map(|component| &component.settings) {
        // The score is the probability itself, of one category.
        if key.starts_with("policy.") && !["policy.categories", "policy.threshold"].contains(&key.as_str()) {
            settings.insert(key.clone(), value.clone());
        }
    }
    if let Some(path) = &arguments.policy {
        let text = files::read_to_string(path, MAX_POLICY_BYTES);
        let text = text.with_context(|| format!("cannot read the policy `{}`", path.display()))?;
        settings.remove("policy.examples");
        settings.insert("policy.text".to_owned(), text);
    }
    let listed = infer_models::weights::list(&source).with_context(|| format!("model `{model}`"))?;
    if listed.card.questions.is_empty() {
        ensure!(
            settings.contains_key("policy.text"),
            "no policy for `{model}`: expected `--policy FILE`, or a component with it as `{ALIAS}` and the setting `policy.text`"
        );
        settings.insert("policy.categories".to_owned(), arguments.category.clone());
    } else {
        ensure!(
            arguments.policy.is_none(),
            "model `{model}` is a guard, which judges by the questions of its card; remove `--policy`"
        );
        settings.clear();
    }
    let component = ComponentConfig {
        at: at.clone(),
        source: Source::Builtin("moderate".to_owned()),
        route: None,
        models: BTreeMap::from([(ALIAS.to_owned(), model.to_owned())]),
        settings,
        thresholds: None,
        limits: Limits { compute_time: MAX_LABEL_TIME, ..Limits::default() },
        http: HttpOptions::default(),
        tests: Vec::new(),
    };
    let mut config = config.clone();
    config.lock = config.lock.map(Lock::of_models).filter(|_| config.models.contains_key(model));
    let of_model = ModelConfig::new(at, source, options, reuse);
    config.models = BTreeMap::from([(model.to_owned(), of_model)]);
    config.components = BTreeMap::from([("labels".to_owned(), component)]);
    Ok(config)
}

/// Answers of an earlier run by the same model and policy, by text.
fn known(path: &Path, by: &str) -> anyhow::Result<HashMap<String, f64>> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let data = Dataset::read(path, None)?;
    let answers = data.examples.into_iter().filter_map(|example| {
        let answer = example.answer.filter(|answer| answer.by == by)?;
        Some((example.text, answer.score))
    });
    Ok(answers.collect())
}

impl Agreement {
    /// Writes the agreement for reading.
    pub(super) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Agreement { model, labelled, labels, positive, reused, compared, accuracy, kappa, auroc } = self;
        writeln!(
            out,
            "labels         {labels} by `{model}`, {positive} positive; in `{labelled}`, {reused} of an earlier run"
        )?;
        let figure = |value: &Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.4}"));
        writeln!(
            out,
            "  agreement    on {compared} labelled lines: accuracy {}, kappa {}, AUROC {}",
            figure(accuracy),
            figure(kappa),
            figure(auroc)
        )
    }
}
