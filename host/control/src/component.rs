//! Reads component files and describes models to guests.

use std::borrow::Cow;

use anyhow::{Context as _, anyhow, bail};
use infer_engine::{Axis, Card, Category, Model, files};
use infer_models::builtin;
use infer_models::source::Source;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::limits::MAX_COMPONENT;

/// Returns the bytes of a component, from the program itself or from a file.
///
/// # Errors
///
/// If there is no built-in guest of that name, or the file cannot be read.
pub fn component_bytes(name: &str, source: &Source) -> anyhow::Result<Cow<'static, [u8]>> {
    Ok(match source {
        Source::Builtin(builtin) => {
            builtin::guest(builtin).with_context(|| format!("no built-in guest `{builtin}`"))?.into()
        }
        Source::Hub(model) => bail!("component `{name}`: `{model}` is a model, expected a component"),
        Source::Path(path) => {
            let read = || format!("component `{name}`: cannot read `{}`", path.display());
            let file = files::open(path).with_context(read)?;
            let bytes = file.metadata().with_context(read)?.len();
            let subject = format!("component `{name}`: `{}`", path.display());
            let checked = MAX_COMPONENT.check(subject, usize::try_from(bytes).unwrap_or(usize::MAX));
            checked.map_err(|error| {
                anyhow!("{error}: a component contains its code; the host loads the models")
            })?;
            files::read_opened(file, MAX_COMPONENT.max() as u64).with_context(read)?.into()
        }
    })
}

/// SHA-256 of a component's bytes, in 64 hexadecimal digits.
pub fn component_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the facts of a model's card that a guest may read: the reserved settings that
/// wit/README.md lists.
pub fn card_facts(alias: &str, model: &Model) -> Vec<(String, String)> {
    let card = model.card();
    let mut facts = vec![
        ("task".to_owned(), card.task.to_string()),
        ("hash".to_owned(), model.hash().to_owned()),
        ("labels".to_owned(), card.labels.join("\n")),
    ];
    if !card.categories.is_empty() {
        facts.push(("categories".to_owned(), categories(card)));
    }
    if !card.questions.is_empty() {
        facts.push(("questions".to_owned(), card.questions.len().to_string()));
    }
    if let Some(input) = card.inputs.first().filter(|_| !card.takes_texts()) {
        facts.push(("input.name".into(), input.name.clone()));
        facts.push(("input.dtype".into(), input.dtype.to_string()));
        facts.push(("input.shape".into(), shape(&input.shape)));
        facts.extend(input.layout.iter().map(|layout| ("input.layout".into(), layout.clone())));
        if let Some(image) = &input.image {
            facts.push(("input.image.color".into(), image.color.clone()));
            facts.push(("input.image.crop".into(), image.crop.to_string()));
            facts.push(("input.image.filter".into(), image.filter.clone()));
            facts.push(("input.image.mean".into(), image.mean.to_string()));
            facts.push(("input.image.std".into(), image.std.to_string()));
        }
    }
    if let Some(output) = card.outputs.first().filter(|_| !card.takes_texts()) {
        facts.push(("output.name".into(), output.name.clone()));
        facts.push(("output.shape".into(), shape(&output.shape)));
    }
    facts.extend(card.preset.iter().map(|(key, value)| (format!("preset.{key}"), value.clone())));
    facts.into_iter().map(|(key, value)| (format!("models.{alias}.{key}"), value)).collect()
}

/// The categories of a card as JSON:
/// `{"NAME": {"rule": "max", "labels": ["a"], "threshold": 0.5}}`.
fn categories(card: &Card) -> String {
    let fact = |category: &Category| {
        let mut fact = json!({ "rule": category.rule.name(), "labels": category.rule.labels() });
        if let Some(threshold) = category.threshold {
            fact["threshold"] = threshold.into();
        }
        fact
    };
    let facts: serde_json::Map<_, _> =
        card.categories.iter().map(|(name, category)| (name.clone(), fact(category))).collect();
    serde_json::Value::from(facts).to_string()
}

fn shape(axes: &[Axis]) -> String {
    axes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
