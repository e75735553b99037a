//! `--text-model`: a moderator with another text model than the configured ones.

use std::path::Path;

use anyhow::{Context as _, bail};
use infer_config::{Config, ModelConfig, Place};
use infer_engine::{ModelOptions, Runtime, RuntimeOptions};
use infer_models::import::{Request, Scratch, import};
use infer_models::source::Source;
use infer_models::weights::{self, Reuse};

use super::import::name;

/// Guest's name of the text model.
const ALIAS: &str = "text";

/// Settings that map labels of the configured models.
const MAPPING: &str = "category.";

/// Makes `model` the only text model of the moderators of `config`, or of `component`. Returns the
/// folder that has to exist meanwhile, if the model is imported for this.
///
/// # Errors
///
/// If there is no such model or moderator, or the import fails.
pub(super) fn replace(
    config: &mut Config,
    component: Option<&str>,
    model: &str,
) -> anyhow::Result<Option<Scratch>> {
    let (name, scratch) = match config.models.get(model) {
        Some(_) => (model.to_owned(), None),
        None => {
            let (source, scratch) = source(config, model)?;
            let name = format!("--text-model {model}");
            let at = Place::of(config.origin.clone());
            let model = ModelConfig::new(at, source, ModelOptions::default(), Reuse::All);
            config.models.insert(name.clone(), model);
            (name, scratch)
        }
    };
    let task = config.models[&name].list()?.card.task;
    if !task.judges_text() {
        bail!("model `{model}` is for {task}, expected a classifier of texts");
    }
    let judges = |config: &Config, name: &String| {
        let listed = config.models.get(name).and_then(|model| model.list().ok());
        listed.is_some_and(|listed| listed.card.task.judges_text())
    };
    let before = config.clone();
    let mut changed = 0;
    for (other, settings) in &mut config.components {
        let is_moderator = settings.source == Source::Builtin("moderate".to_owned())
            || settings.models.values().any(|name| judges(&before, name));
        if component.map_or(is_moderator, |component| component == other) {
            settings.models.retain(|_, name| !judges(&before, name));
            settings.models.insert(ALIAS.to_owned(), name.clone());
            settings.settings.retain(|key, _| !key.starts_with(MAPPING));
            changed += 1;
        }
    }
    if changed == 0 {
        bail!("{} has no moderator of texts for `--text-model`; name one with `--component`", config.origin);
    }
    // The lock does not pin this model.
    config.lock = None;
    Ok(scratch)
}

/// Source of a model that is not configured.
fn source(config: &Config, model: &str) -> anyhow::Result<(Source, Option<Scratch>)> {
    let folder = Path::new(model);
    if folder.join("card.toml").is_file() {
        return Ok((Source::Path(folder.to_owned()), None));
    }
    if folder.join("config.json").is_file() {
        let scratch = Scratch::new()?;
        let (name, destination) = (name(folder)?, scratch.path().join("imported"));
        let runtime = Runtime::new(&RuntimeOptions { onnxruntime: config.onnxruntime.clone() })?;
        let request = Request {
            folder,
            file: None,
            labels: None,
            name: &name,
            source: None,
            destination: &destination,
        };
        import(&request, &runtime).with_context(|| format!("cannot import `{model}`"))?;
        return Ok((Source::Path(destination), Some(scratch)));
    }
    let name = model.strip_prefix("builtin:").unwrap_or(model);
    if weights::exists(name) {
        return Ok((Source::Builtin(name.to_owned()), None));
    }
    let known: Vec<_> = config.models.keys().map(String::as_str).collect();
    bail!(
        "no text model `{model}`; expected one of `{}`, a built-in model as `infer models` lists them, a folder with a \
         card.toml, or an export with a config.json",
        known.join("`, `")
    )
}
