//! A configuration brought to life: what `infer serve` serves and every other command calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use infer_engine::{Model, Runtime, RuntimeOptions, Weights};
use infer_sandbox::types::{Label, Part, Verdict};
use infer_sandbox::{Component, ComponentOptions, Outcome, RequestMemory, Sandbox, SandboxOptions, World};
use sha2::{Digest as _, Sha256};

use crate::builtin;
use crate::config::{ComponentConfig, Config, ModelConfig, Source};
use crate::metrics::{Metrics, Recorder};
use crate::{plan, weights};

/// Everything that is loaded once. It does not change: a changed configuration makes [another](App::next), which shares
/// with this one what is the same in both.
pub struct App {
    /// What it was made from.
    pub config: Config,
    /// The ONNX backend in use.
    pub runtime: Arc<Runtime>,
    /// The WebAssembly engine.
    pub sandbox: Arc<Sandbox>,
    /// Models by name.
    pub models: BTreeMap<String, Arc<Model>>,
    /// Components by name.
    pub components: BTreeMap<String, Arc<Policy>>,
    /// What was done since the program started.
    pub metrics: Arc<Metrics>,
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
        let memory = RequestMemory::new(plan::request_bytes(&config, &runtime)?);
        let sandbox = Sandbox::new(&SandboxOptions { memory, ..config.sandbox.clone() })?;
        let metrics = Metrics::new(sandbox.memory(), runtime.backend());
        let app = App {
            config,
            runtime: Arc::new(runtime),
            sandbox: Arc::new(sandbox),
            models: BTreeMap::new(),
            components: BTreeMap::new(),
            metrics: Arc::new(metrics),
        };
        let app = app.fill(None)?;
        app.metrics.tell_of(&app.models);
        Ok(app)
    }

    /// What `config` makes beside this one: models and components with the same settings and the same bytes are this
    /// one's, the others are loaded. Until [`App::alone`] requests have the memory that both together leave.
    ///
    /// # Errors
    ///
    /// As [`App::load`].
    pub fn next(&self, config: Config) -> anyhow::Result<Self> {
        plan::request_bytes(&config, &self.runtime)?;
        let beside = plan::request_bytes(&self.beside(&config)?, &self.runtime)
            .context("until the last request of what is replaced has ended")?;
        self.sandbox.memory().bound(beside);
        let next = self.load_beside(config);
        if next.is_err() {
            self.alone()?;
        }
        next
    }

    /// From now on there is no other version of this in memory.
    ///
    /// # Errors
    ///
    /// When what it needs cannot be told any more, for a file of its models has gone.
    pub fn alone(&self) -> anyhow::Result<()> {
        self.sandbox.memory().bound(plan::request_bytes(&self.config, &self.runtime)?);
        Ok(())
    }

    /// `config`, and those of this one's models that it has not.
    fn beside(&self, config: &Config) -> anyhow::Result<Config> {
        let mut both = config.clone();
        for (name, before) in &self.config.models {
            let same = match config.models.get(name) {
                Some(after) => before.is_same(after) && self.has(name, &weights_of(name, after)?),
                None => false,
            };
            if !same {
                both.models.insert(format!("{name} as it was"), before.clone());
            }
        }
        Ok(both)
    }

    /// Whether the model of this name is of these weights, and answers.
    fn has(&self, name: &str, weights: &Weights) -> bool {
        self.models.get(name).is_some_and(|model| model.hash() == weights.hash() && model.is_serving())
    }

    fn load_beside(&self, mut config: Config) -> anyhow::Result<Self> {
        let memory = self.sandbox.memory().clone();
        let (wanted, there) = (&config.sandbox, &self.config.sandbox);
        let sandbox = if there.serves(wanted) {
            config.sandbox = there.clone();
            self.sandbox.clone()
        } else {
            Arc::new(Sandbox::new(&SandboxOptions { memory, ..wanted.clone() })?)
        };
        let app = App {
            config,
            runtime: self.runtime.clone(),
            sandbox,
            models: BTreeMap::new(),
            components: BTreeMap::new(),
            metrics: self.metrics.clone(),
        };
        app.fill(Some(self))
    }

    /// Load the models and components of the configuration that `old` has not.
    fn fill(mut self, old: Option<&App>) -> anyhow::Result<Self> {
        for (name, config) in &self.config.models {
            let model = load_model(&self, name, config, old).with_context(|| config.at.to_string())?;
            self.models.insert(name.clone(), model);
        }
        for (name, config) in &self.config.components {
            let component =
                load_component(&self, name, config, old).with_context(|| config.at.to_string())?;
            self.components.insert(name.clone(), component);
        }
        Ok(self)
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

fn load_model(app: &App, name: &str, config: &ModelConfig, old: Option<&App>) -> anyhow::Result<Arc<Model>> {
    let weights = weights_of(name, config)?;
    if let Some(lock) = &app.config.lock {
        lock.check_model(name, weights.hash())?;
    }
    if let Some(old) = old
        && let (Some(model), Some(before)) = (old.models.get(name), old.config.models.get(name))
        && before.is_same(config)
        && old.has(name, &weights)
    {
        return Ok(model.clone());
    }
    let model = Model::load(&app.runtime, name, weights, &config.options)?;
    let Some(keep_alive) = config.keep_alive else { return Ok(Arc::new(model)) };
    let (runtime, name, config) = (app.runtime.clone(), name.to_owned(), config.clone());
    let again = move || {
        let weights = weights_of(&name, &config).map_err(|error| format!("{error:#}"))?;
        Model::load(&runtime, &name, weights, &config.options).map_err(|error| error.to_string())
    };
    Ok(Arc::new(model.resting(keep_alive, again)))
}

fn weights_of(name: &str, config: &ModelConfig) -> anyhow::Result<Weights> {
    weights::load(&config.source, config.reuse).with_context(|| format!("model `{name}`"))
}

fn load_component(
    app: &App,
    name: &str,
    config: &ComponentConfig,
    old: Option<&App>,
) -> anyhow::Result<Arc<Policy>> {
    let bytes = component_bytes(name, &config.source)?;
    let granted: BTreeMap<_, _> = config
        .models
        .iter()
        .filter_map(|(wanted, model)| Some((wanted.clone(), app.models.get(model)?.clone())))
        .collect();
    let hash = component_hash(&bytes);
    if let Some(lock) = &app.config.lock {
        lock.check_component(name, &hash)?;
    }
    if let Some(old) = old
        && let (Some(policy), Some(before)) = (old.components.get(name), old.config.components.get(name))
        && before.is_same(config)
        && policy.hash == hash
        && Arc::ptr_eq(&old.sandbox, &app.sandbox)
        && granted.iter().all(|(wanted, model)| {
            policy.component.models().get(wanted).is_some_and(|before| Arc::ptr_eq(before, model))
        })
    {
        return Ok(policy.clone());
    }
    let mut settings = config.settings.clone();
    for (wanted, model) in &granted {
        settings.extend(card_facts(wanted, model));
    }
    let options = ComponentOptions { models: granted, settings, limits: config.limits.clone() };
    let component = app.sandbox.load(name, &bytes, options)?;
    let calls = app.metrics.recorder(name);
    Ok(Arc::new(Policy { component, hash, route: config.route.clone(), calls }))
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
