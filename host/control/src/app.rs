//! A configuration brought to life: what `infer serve` serves and every other command calls.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use infer_engine::{Mirror, Model, ModelOptions, Runtime, RuntimeOptions, Weights, files};
use infer_sandbox::types::{Label, Part, Verdict};
use infer_sandbox::{
    Body, Component, ComponentOptions, HttpOptions, Outcome, RequestMemory, Sandbox, SandboxOptions, World,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use crate::metrics::{Metrics, Recorder};
use crate::versions::{Canary, Count, Version};
use crate::{plan, versions};
use infer_config::lock::Lock;
use infer_config::paths::BELOW;
use infer_config::{ComponentConfig, Config, ModelConfig, Resolved, Trial};
use infer_models::builtin;
use infer_models::source::Source;
use infer_models::weights::{self, Reuse};

/// Everything that is loaded once. It does not change: a changed configuration makes
/// [another](App::next), which shares with this one what is the same in both.
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
    pub components: BTreeMap<String, Arc<LoadedComponent>>,
    /// What was done since the program started.
    pub metrics: Arc<Metrics>,
    /// What answers a share of the requests instead, where a next version is tried so.
    pub canary: Option<Canary>,
    /// Next versions in the shadow of models, by the models' names.
    pub shadows: BTreeMap<String, Arc<Mirror>>,
}

/// A component with what the configuration says of it.
pub struct LoadedComponent {
    /// The component, ready to be called.
    pub component: Component,
    /// SHA-256 of its bytes, in hexadecimal.
    pub hash: String,
    /// The path that it answers.
    pub route: Option<String>,
    /// Counts its calls.
    pub calls: Recorder,
    /// Counts them for the comparison of versions.
    pub count: Count,
}

impl LoadedComponent {
    /// [`Component::moderate`], counted.
    pub async fn moderate(&self, request: &infer_sandbox::Request, parts: &[Part]) -> Outcome<Verdict> {
        let outcome = self.component.moderate(request, parts).await;
        self.calls.called(&outcome.result, &outcome.usage);
        self.count.called(&outcome.result.as_ref().map(|verdict| verdict.flagged));
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
        self.count.called(&outcome.result.as_ref().map(|_| false));
        outcome
    }

    /// [`Component::handle`], counted.
    pub async fn handle(
        &self,
        request: &infer_sandbox::Request,
        incoming: http::Request<Bytes>,
        head: oneshot::Sender<http::Response<Body>>,
        gone: oneshot::Receiver<()>,
    ) -> Outcome<()> {
        let outcome = self.component.handle(request, incoming, head, gone).await;
        self.calls.called(&outcome.result, &outcome.usage);
        self.count.called(&outcome.result.as_ref().map(|()| false));
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
        let app = App::empty(config, Arc::new(runtime), Arc::new(sandbox), Arc::new(metrics));
        let app = app.fill(&[])?.with_trials(None)?;
        app.take_over();
        Ok(app)
    }

    fn empty(config: Config, runtime: Arc<Runtime>, sandbox: Arc<Sandbox>, metrics: Arc<Metrics>) -> Self {
        let (models, components, shadows) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        App { config, runtime, sandbox, models, components, metrics, canary: None, shadows }
    }

    /// From now on this is what is served: its models have their shadows, and are told of.
    pub fn take_over(&self) {
        for (name, model) in &self.models {
            model.set_mirror(self.shadows.get(name).cloned());
        }
        let next: Vec<_> = self.next_versions().map(|version| version.model).collect();
        self.metrics.tell_of(self.models.values(), &next);
    }

    /// Every model, and every next version of one.
    pub fn versions(&self) -> impl Iterator<Item = Version<'_>> {
        let current = self.models.iter().filter_map(|(name, model)| {
            let config = self.config.models.get(name)?.clone();
            Some(Version { name, config: ModelConfig { next: None, previous: None, ..config }, model })
        });
        current.chain(self.next_versions())
    }

    /// Every next version of a model.
    pub fn next_versions(&self) -> impl Iterator<Item = Version<'_>> {
        self.config.models.iter().filter_map(|(name, model)| {
            let config = model.next_version()?;
            let canary = self.canary.as_ref().filter(|canary| canary.name == *name);
            let model = match canary {
                Some(canary) => canary.app.models.get(name)?,
                None => self.shadows.get(name)?.next(),
            };
            Some(Version { name, config, model })
        })
    }

    /// What `config` makes beside this one: models and components with the same settings and the
    /// same bytes are this one's, the others are loaded. Until [`App::alone`] requests have the
    /// memory that both together leave.
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
        for (index, Version { name, config: before, .. }) in self.versions().enumerate() {
            let mut same = false;
            for (_, after) in config.versions().filter(|(after, _)| *after == name) {
                same = same
                    || (before.is_same(&after)
                        && self.find(name, &after, &weights_of(name, &after)?).is_some());
            }
            if !same {
                both.models.insert(format!("{name} as it was ({index})"), before);
            }
        }
        Ok(both)
    }

    /// The model of this name that was loaded for the same, of these weights, and answers.
    fn find(&self, name: &str, config: &ModelConfig, weights: &Weights) -> Option<&Arc<Model>> {
        let fits = |version: &Version<'_>| {
            version.name == name
                && version.config.is_same(config)
                && version.model.hash() == weights.hash()
                && version.model.is_serving()
        };
        self.versions().find(fits).map(|version| version.model)
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
        let app = App::empty(config, self.runtime.clone(), sandbox, self.metrics.clone());
        app.fill(&[self])?.with_trials(Some(self))
    }

    /// Load the models and components of the configuration that none of `known` has.
    fn fill(mut self, known: &[&App]) -> anyhow::Result<Self> {
        for (name, config) in &self.config.models {
            let lock = self.config.lock.as_ref();
            let model = load_model(&self.runtime, lock, name, config, known);
            self.models.insert(name.clone(), model.with_context(|| config.at.to_string())?);
        }
        for (name, config) in &self.config.components {
            let component = load_component(&self, name, config, known);
            self.components.insert(name.clone(), component.with_context(|| config.at.to_string())?);
        }
        Ok(self)
    }

    /// Load the models' next versions, and the components that use a canary; what `old` has of them
    /// is shared.
    fn with_trials(mut self, old: Option<&App>) -> anyhow::Result<Self> {
        let mut shadows = BTreeMap::new();
        {
            let known: Vec<_> = std::iter::once(&self).chain(old).collect();
            for (name, current) in &self.config.models {
                let (Some(next), Some(config)) = (&current.next, current.next_version()) else { continue };
                let Trial::Shadow { tolerance } = next.trial else { continue };
                let lock = self.config.lock.clone().map(|lock| lock.of_next(name));
                let load = || {
                    let model = load_model(&self.runtime, lock.as_ref(), name, &config, &known)?;
                    versions::interchangeable(name, self.models[name].card(), model.card())?;
                    let before = old.and_then(|old| old.shadows.get(name));
                    let same = |mirror: &&Arc<Mirror>| {
                        Arc::ptr_eq(mirror.next(), &model) && mirror.tolerance() == tolerance
                    };
                    Ok(match before.filter(same) {
                        Some(mirror) => mirror.clone(),
                        None => Arc::new(Mirror::new(model, tolerance)?),
                    })
                };
                let mirror: anyhow::Result<_> = load();
                shadows.insert(name.clone(), mirror.with_context(|| next.at.to_string())?);
            }
        }
        self.shadows = shadows;
        if let Some((name, percent, config)) = self.config.canary() {
            let at = config.models[&name].at.to_string();
            let (runtime, sandbox) = (self.runtime.clone(), self.sandbox.clone());
            let app = App::empty(config, runtime, sandbox, self.metrics.clone());
            let known: Vec<_> = std::iter::once(&self).chain(old).collect();
            let app = Arc::new(app.fill(&known)?);
            let cards = (self.models[&name].card(), app.models[&name].card());
            versions::interchangeable(&name, cards.0, cards.1).with_context(|| at)?;
            let before = old.and_then(|old| old.canary.as_ref());
            self.canary = Some(Canary::new(name, percent, app, &self, before));
        }
        Ok(self)
    }

    /// The configuration that this was made from, and the hashes of its models and components.
    #[must_use]
    pub fn resolved(&self) -> Resolved {
        let mut resolved = Resolved::of(&self.config);
        for (name, model) in &self.models {
            resolved.put(&format!("models.{name}.hash"), model.hash());
        }
        for version in self.next_versions() {
            resolved.put(&format!("models.{}.next.hash", version.model.name()), version.model.hash());
        }
        for (name, policy) in &self.components {
            resolved.put(&format!("components.{name}.hash"), &policy.hash);
        }
        resolved
    }

    /// The component called `name`, or the only one of `world` when there is no name.
    ///
    /// # Errors
    ///
    /// When there is none, or more than one to choose from.
    pub fn component(&self, name: Option<&str>, world: World) -> anyhow::Result<&Arc<LoadedComponent>> {
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
    runtime: &Arc<Runtime>,
    lock: Option<&Lock>,
    name: &str,
    config: &ModelConfig,
    known: &[&App],
) -> anyhow::Result<Arc<Model>> {
    let weights = weights_of(name, config)?;
    if let Some(lock) = lock {
        lock.check_model(name, weights.hash())?;
    }
    if let Some(model) = known.iter().find_map(|app| app.find(name, config, &weights)) {
        return Ok(model.clone());
    }
    let model = Model::load(runtime, name, weights, &config.options)?;
    let Some(keep_alive) = config.keep_alive else { return Ok(Arc::new(model)) };
    let (runtime, name, config) = (runtime.clone(), name.to_owned(), config.clone());
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
    known: &[&App],
) -> anyhow::Result<Arc<LoadedComponent>> {
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
    let canaries = known.iter().filter_map(|app| app.canary.as_ref().map(|canary| &*canary.app));
    for old in known.iter().copied().chain(canaries) {
        if let (Some(policy), Some(before)) = (old.components.get(name), old.config.components.get(name))
            && before.is_same(config)
            && policy.hash == hash
            && Arc::ptr_eq(&old.sandbox, &app.sandbox)
            && granted.iter().all(|(wanted, model)| {
                policy.component.models().get(wanted).is_some_and(|before| Arc::ptr_eq(before, model))
            })
        {
            return Ok(policy.clone());
        }
    }
    let mut settings = config.settings.clone();
    for (wanted, model) in &granted {
        settings.extend(card_facts(wanted, model));
    }
    let (limits, http) = (config.limits.clone(), config.http.clone());
    let component =
        app.sandbox.load(name, &bytes, ComponentOptions { models: granted, settings, limits, http })?;
    if component.world() != World::Handler {
        only_handlers(name, &component, config)?;
    }
    let calls = app.metrics.recorder(name);
    Ok(Arc::new(LoadedComponent {
        component,
        hash,
        route: config.route.clone(),
        calls,
        count: Count::default(),
    }))
}

/// Refuse what is typed for a handler alone.
fn only_handlers(name: &str, component: &Component, config: &ComponentConfig) -> anyhow::Result<()> {
    let world = component.world();
    let HttpOptions { outbound, clock, random_seed } = &config.http;
    let typed = [
        ("allowed_outbound_hosts", !outbound.is_empty()),
        ("clock", *clock != HttpOptions::default().clock),
        ("random_seed", random_seed.is_some()),
    ];
    if let Some((key, _)) = typed.into_iter().find(|(_, is_typed)| *is_typed) {
        anyhow::bail!(
            "component `{name}`: `{key}` is for a component that exports wasi:http/incoming-handler, and this is a {world}, \
             which has no network, no clock and no randomness; leave it out"
        );
    }
    if let Some(route) = config.route.as_ref().filter(|route| route.ends_with(BELOW)) {
        anyhow::bail!(
            "component `{name}`: route `{route}` is for a component that exports wasi:http/incoming-handler, and this is a \
             {world}, which answers one path; leave out `{}`",
            BELOW
        );
    }
    Ok(())
}

/// The model called `name`: a configured one, a built-in one, or a GGUF file.
///
/// # Errors
///
/// When there is none of that name.
pub fn find_model(config: &Config, name: &str) -> anyhow::Result<(Source, ModelOptions, Reuse)> {
    let unconfigured = |source| Ok((source, ModelOptions::default(), Reuse::All));
    match config.models.get(name) {
        Some(model) => Ok((model.source.clone(), model.options.clone(), model.reuse)),
        None if weights::is_gguf(Path::new(name)) => unconfigured(Source::Path(name.into())),
        None if weights::exists(name) => unconfigured(Source::Builtin(name.to_owned())),
        None => {
            let known: Vec<_> = config.models.keys().map(|name| format!("`{name}`")).collect();
            anyhow::bail!(
                "no model `{name}` in {}; expected one of {}, a built-in model as `infer models` lists them, or a GGUF file",
                config.origin,
                known.join(", ")
            )
        }
    }
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
        Source::Path(path) => {
            let read = || format!("component `{name}`: cannot read `{}`", path.display());
            let file = files::open(path).with_context(read)?;
            let bytes = file.metadata().with_context(read)?.len();
            if bytes > MAX_COMPONENT_BYTES {
                anyhow::bail!(
                    "component `{name}`: `{}` is {bytes} bytes, expected at most {MAX_COMPONENT_BYTES}: a guest carries its code and \
                     its vocabulary, models are the host's",
                    path.display()
                );
            }
            files::read_opened(file, MAX_COMPONENT_BYTES).with_context(read)?.into()
        }
    })
}

/// A larger file is not read: the compiler takes many times a component's size.
const MAX_COMPONENT_BYTES: u64 = 64 << 20;

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
