//! A configuration brought to life: what `infer serve` serves and every other command calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use infer_engine::{Model, Runtime, RuntimeOptions};
use infer_sandbox::types::{Label, Part, Verdict};
use infer_sandbox::{Component, ComponentOptions, Outcome, Sandbox, SandboxOptions, World};
use sha2::{Digest as _, Sha256};

use crate::builtin;
use crate::config::{ComponentConfig, Config, ModelConfig, Source};
use crate::lock::Lock;
use crate::metrics::{Metrics, Recorder};
use crate::{plan, weights};

/// Everything that is loaded once.
pub struct App {
    /// What it was made from.
    pub config: Config,
    /// The ONNX backend in use.
    pub runtime: Runtime,
    /// The WebAssembly engine.
    pub sandbox: Sandbox,
    /// Models by name.
    pub models: BTreeMap<String, Arc<Model>>,
    /// Components by name.
    pub components: BTreeMap<String, Arc<Policy>>,
    /// What was done since.
    pub metrics: Metrics,
}

/// A component with what the configuration says of it.
pub struct Policy {
    /// The component, ready to be called.
    pub component: Component,
    /// SHA-256 of its bytes, in hexadecimal.
    pub hash: String,
    /// The path that it answers.
    pub route: Option<String>,
    /// Counts its calls.
    pub calls: Recorder,
}

impl Policy {
    /// [`Component::moderate`], counted.
    pub async fn moderate(&self, request: &infer_sandbox::Request, parts: &[Part]) -> Outcome<Verdict> {
        let outcome = self.component.moderate(request, parts).await;
        self.calls.called(&outcome.result, &outcome.usage);
        outcome
    }

    /// [`Component::classify`], counted.
    pub async fn classify(
        &self,
        request: &infer_sandbox::Request,
        image: &[u8],
        top: u32,
    ) -> Outcome<Vec<Label>> {
        let outcome = self.component.classify(request, image, top).await;
        self.calls.called(&outcome.result, &outcome.usage);
        outcome
    }
}

impl App {
    /// Load the models, then the components that use them.
    ///
    /// # Errors
    ///
    /// For the first model or component that cannot be loaded, with its line in the configuration.
    pub fn load(config: Config) -> anyhow::Result<Self> {
        let runtime = Runtime::new(&RuntimeOptions { onnxruntime: config.onnxruntime.clone() })?;
        // Before anything is loaded: what does not fit is refused while it takes no memory.
        let request_bytes = plan::request_bytes(&config, &runtime)?;
        let sandbox = Sandbox::new(&SandboxOptions { request_bytes, ..config.sandbox.clone() })?;
        let mut models = BTreeMap::new();
        for (name, model) in &config.models {
            let loaded = load_model(&runtime, name, model, config.lock.as_ref())
                .with_context(|| model.at.to_string())?;
            models.insert(name.clone(), Arc::new(loaded));
        }
        let metrics = Metrics::new(&models, sandbox.memory(), runtime.backend());
        let mut components = BTreeMap::new();
        for (name, component) in &config.components {
            let loaded = load_component(&sandbox, name, component, &models, &metrics)
                .with_context(|| component.at.to_string())?;
            if let Some(lock) = &config.lock {
                lock.check_component(name, &loaded.hash).with_context(|| component.at.to_string())?;
            }
            components.insert(name.clone(), Arc::new(loaded));
        }
        Ok(App { config, runtime, sandbox, models, components, metrics })
    }

    /// The component called `name`, or the only one of `world` when there is no name.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one to choose from.
    pub fn component(&self, name: Option<&str>, world: World) -> anyhow::Result<&Arc<Policy>> {
        let fitting: Vec<_> =
            self.components.values().filter(|policy| policy.component.world() == world).collect();
        let names = || fitting.iter().map(|policy| policy.component.name()).collect::<Vec<_>>().join("`, `");
        match (name, fitting.as_slice()) {
            (Some(name), _) => {
                let found = fitting.iter().find(|policy| policy.component.name() == name);
                found.copied().with_context(|| {
                    format!("no {world} `{name}` in {}; expected one of `{}`", self.config.origin, names())
                })
            }
            (None, [only]) => Ok(only),
            (None, []) => anyhow::bail!("no {world} in {}; add one under [components]", self.config.origin),
            (None, _) => anyhow::bail!("choose a {world} with --component: `{}`", names()),
        }
    }
}

fn load_model(
    runtime: &Runtime,
    name: &str,
    config: &ModelConfig,
    lock: Option<&Lock>,
) -> anyhow::Result<Model> {
    let weights = weights::load(&config.source, config.reuse);
    let weights = weights.with_context(|| format!("model `{name}`"))?;
    if let Some(lock) = lock {
        lock.check_model(name, weights.hash())?;
    }
    Ok(Model::load(runtime, name, weights, &config.options)?)
}

fn load_component(
    sandbox: &Sandbox,
    name: &str,
    config: &ComponentConfig,
    models: &BTreeMap<String, Arc<Model>>,
    metrics: &Metrics,
) -> anyhow::Result<Policy> {
    let bytes = component_bytes(name, &config.source)?;
    let granted: BTreeMap<_, _> = config
        .models
        .iter()
        .filter_map(|(wanted, model)| Some((wanted.clone(), models.get(model)?.clone())))
        .collect();
    let mut settings = config.settings.clone();
    for (wanted, model) in &granted {
        settings.extend(card_facts(wanted, model));
    }
    let options = ComponentOptions { models: granted, settings, limits: config.limits.clone() };
    let component = sandbox.load(name, &bytes, options)?;
    let hash = component_hash(&bytes);
    Ok(Policy { component, hash, route: config.route.clone(), calls: metrics.recorder(name) })
}

/// The bytes of a component: those that the program carries, or a file's.
///
/// # Errors
///
/// When there is no such guest, or the file cannot be read.
pub fn component_bytes(name: &str, source: &Source) -> anyhow::Result<Cow<'static, [u8]>> {
    Ok(match source {
        Source::Builtin(builtin) => {
            builtin::guest(builtin).with_context(|| format!("no built-in guest `{builtin}`"))?.into()
        }
        Source::Path(path) => std::fs::read(path)
            .with_context(|| format!("component `{name}`: cannot read `{}`", path.display()))?
            .into(),
    })
}

/// What a guest is told of a model's card: the reserved settings that wit/README.md lists.
pub fn card_facts(wanted: &str, model: &Model) -> Vec<(String, String)> {
    let card = model.card();
    let mut facts = vec![
        ("task".to_owned(), card.task.to_string()),
        ("hash".to_owned(), model.hash().to_owned()),
        ("labels".to_owned(), card.labels.join("\n")),
    ];
    if let Some(input) = card.inputs.first() {
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
        if let Some(text) = &input.text {
            facts.push(("input.text.max_tokens".into(), text.max_tokens.to_string()));
            facts.push(("input.text.pad".into(), text.pad.clone()));
            let vocabulary = card.files.iter().find(|file| file.path == text.vocabulary);
            facts.extend(vocabulary.map(|file| ("input.text.vocabulary.sha256".into(), file.sha256.clone())));
        }
    }
    if let Some(output) = card.outputs.first() {
        facts.push(("output.name".into(), output.name.clone()));
        facts.push(("output.shape".into(), shape(&output.shape)));
    }
    facts.extend(card.preset.iter().map(|(key, value)| (format!("preset.{key}"), value.clone())));
    facts.into_iter().map(|(key, value)| (format!("models.{wanted}.{key}"), value)).collect()
}

fn shape(axes: &[infer_engine::Axis]) -> String {
    axes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// What a component is known by: SHA-256 of its bytes, in 64 hexadecimal digits.
pub fn component_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
