//! Loads the models and components of a configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use infer_config::lock::Lock;
use infer_config::paths::BELOW;
use infer_config::thresholds::{Versions, settings_hash};
use infer_config::{ComponentConfig, Config, ModelConfig, Trial};
use infer_engine::text::names;
use infer_engine::{Card, Model, ModelOptions, Runtime, RuntimeOptions, Shadow, Weights};
use infer_models::source::Source;
use infer_models::weights::{self, Reuse};
use infer_sandbox::{
    Component, ComponentOptions, HttpOptions, RequestMemory, Sandbox, SandboxOptions, World,
};

use crate::component::{card_facts, component_bytes, component_hash};
use crate::metrics::Metrics;
use crate::plan;
use crate::registry::{Canary, Count, LoadedComponent, Registry, Version};

impl Registry {
    /// Loads the models, then the components that use them.
    ///
    /// # Errors
    ///
    /// If a model or component cannot be loaded; names the first, with its line in the
    /// configuration.
    pub fn load(config: Config) -> anyhow::Result<Self> {
        let runtime = Runtime::new(&RuntimeOptions { onnxruntime: config.onnxruntime.clone() })?;
        // Checked before anything is loaded, so a configuration that does not fit takes no memory.
        let memory = RequestMemory::new(plan::request_bytes(&config, &runtime)?);
        let sandbox = Sandbox::new(&SandboxOptions { memory, ..config.sandbox.clone() })?;
        let metrics = Metrics::new(sandbox.memory(), runtime.backend());
        let registry = Registry::empty(config, Arc::new(runtime), Arc::new(sandbox), Arc::new(metrics));
        let registry = registry.fill(&[])?.with_trials(None)?;
        registry.activate();
        Ok(registry)
    }

    /// Loads `config` beside this registry. Models and components with the same settings and the
    /// same bytes are shared. Until [`Registry::restore_memory`] is called, the request budget is
    /// reduced to the memory that both registries leave.
    ///
    /// # Errors
    ///
    /// As [`Registry::load`].
    pub fn load_next(&self, config: Config) -> anyhow::Result<Self> {
        plan::request_bytes(&config, &self.runtime)?;
        let beside = plan::request_bytes(&self.beside(&config)?, &self.runtime)
            .context("while requests in flight use the previous configuration")?;
        self.sandbox.memory().set_max_bytes(beside);
        let next = self.load_beside(config);
        if next.is_err() {
            self.restore_memory()?;
        }
        next
    }

    /// Restores the full request budget, once no other version of this registry is in memory.
    ///
    /// # Errors
    ///
    /// If the memory plan cannot be made, because a file of a model is missing.
    pub fn restore_memory(&self) -> anyhow::Result<()> {
        self.sandbox.memory().set_max_bytes(plan::request_bytes(&self.config, &self.runtime)?);
        Ok(())
    }

    /// Returns `config` plus the models of this registry that it would not share, for the memory
    /// plan.
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

    fn load_beside(&self, mut config: Config) -> anyhow::Result<Self> {
        let memory = self.sandbox.memory().clone();
        let (requested, current) = (&config.sandbox, &self.config.sandbox);
        let sandbox = if current.serves(requested) {
            config.sandbox = current.clone();
            self.sandbox.clone()
        } else {
            Arc::new(Sandbox::new(&SandboxOptions { memory, ..requested.clone() })?)
        };
        let registry = Registry::empty(config, self.runtime.clone(), sandbox, self.metrics.clone());
        registry.fill(&[self])?.with_trials(Some(self))
    }

    /// Loads the models and components of the configuration, sharing those that a registry in
    /// `known` has.
    fn fill(mut self, known: &[&Registry]) -> anyhow::Result<Self> {
        for (name, config) in &self.config.models {
            let lock = self.config.lock.as_ref();
            let model = load_model(&self.runtime, lock, name, config, known);
            self.models.insert(name.clone(), model.with_context(|| config.at.to_string())?);
        }
        for (name, config) in &self.config.components {
            let component = load_component(&self, name, config, known);
            self.components.insert(name.clone(), component.with_context(|| config.at.to_string())?);
        }
        self.check_guards()?;
        Ok(self)
    }

    /// Checks that guards of chats are moderators.
    fn check_guards(&self) -> anyhow::Result<()> {
        for (section, guard) in self.config.guards.iter() {
            for (key, name) in [("input", &guard.input), ("output", &guard.output)] {
                let Some(name) = name else { continue };
                let world = self.components.get(name).map(|loaded| loaded.component.world());
                ensure!(
                    world == Some(World::Moderator),
                    "`[{section}]`: `{key}` is `{name}`, {}; expected a moderator, such as `builtin:moderate`",
                    world.map_or("which is not loaded".to_owned(), |world| format!(
                        "a component of the world {world}"
                    ))
                );
            }
        }
        Ok(())
    }

    /// Loads the models' next versions and the components that use a canary, sharing those that
    /// `old` has.
    fn with_trials(mut self, old: Option<&Registry>) -> anyhow::Result<Self> {
        let mut shadows = BTreeMap::new();
        {
            let known: Vec<_> = std::iter::once(&self).chain(old).collect();
            for (name, current) in &self.config.models {
                let (Some(next), Some(config)) = (&current.next, current.next_version()) else { continue };
                let Trial::Shadow { tolerance } = next.trial else { continue };
                let lock = self.config.lock.clone().map(|lock| lock.of_next(name));
                let load = || {
                    let model = load_model(&self.runtime, lock.as_ref(), name, &config, &known)?;
                    interchangeable(name, self.models[name].card(), model.card())?;
                    let before = old.and_then(|old| old.shadows.get(name));
                    let same = |shadow: &&Arc<Shadow>| {
                        Arc::ptr_eq(shadow.next(), &model) && shadow.tolerance() == tolerance
                    };
                    Ok(match before.filter(same) {
                        Some(shadow) => shadow.clone(),
                        None => Arc::new(Shadow::new(model, tolerance)?),
                    })
                };
                let shadow: anyhow::Result<_> = load();
                shadows.insert(name.clone(), shadow.with_context(|| next.at.to_string())?);
            }
        }
        self.shadows = shadows;
        if let Some((name, percent, config)) = self.config.canary() {
            let at = config.models[&name].at.to_string();
            let (runtime, sandbox) = (self.runtime.clone(), self.sandbox.clone());
            let registry = Registry::empty(config, runtime, sandbox, self.metrics.clone());
            let known: Vec<_> = std::iter::once(&self).chain(old).collect();
            let registry = Arc::new(registry.fill(&known)?);
            let cards = (self.models[&name].card(), registry.models[&name].card());
            interchangeable(&name, cards.0, cards.1).with_context(|| at)?;
            let before = old.and_then(|old| old.canary.as_ref());
            self.canary = Some(Canary::new(name, percent, registry, &self, before));
        }
        Ok(self)
    }
}

fn load_model(
    runtime: &Arc<Runtime>,
    lock: Option<&Lock>,
    name: &str,
    config: &ModelConfig,
    known: &[&Registry],
) -> anyhow::Result<Arc<Model>> {
    let weights = weights_of(name, config)?;
    if let Some(lock) = lock {
        lock.check_model(name, weights.hash())?;
    }
    if let Some(model) = known.iter().find_map(|registry| registry.find(name, config, &weights)) {
        return Ok(model.clone());
    }
    let model = Model::load(runtime, name, weights, &config.options)?;
    let Some(keep_alive) = config.keep_alive else { return Ok(Arc::new(model)) };
    let (runtime, name, config) = (runtime.clone(), name.to_owned(), config.clone());
    let again = move || {
        let weights = weights_of(&name, &config).map_err(|error| format!("{error:#}"))?;
        Model::load(&runtime, &name, weights, &config.options).map_err(|error| error.to_string())
    };
    Ok(Arc::new(model.unload_when_idle(keep_alive, again)))
}

fn weights_of(name: &str, config: &ModelConfig) -> anyhow::Result<Weights> {
    weights::load(&config.source, &config.heads, config.reuse).with_context(|| format!("model `{name}`"))
}

fn load_component(
    registry: &Registry,
    name: &str,
    config: &ComponentConfig,
    known: &[&Registry],
) -> anyhow::Result<Arc<LoadedComponent>> {
    let bytes = component_bytes(name, &config.source)?;
    let granted: BTreeMap<_, _> = config
        .models
        .iter()
        .filter_map(|(alias, model)| Some((alias.clone(), registry.models.get(model)?.clone())))
        .collect();
    let hash = component_hash(&bytes);
    if let Some(lock) = &registry.config.lock {
        lock.check_component(name, &hash)?;
    }
    let canaries =
        known.iter().filter_map(|registry| registry.canary.as_ref().map(|canary| &*canary.registry));
    for old in known.iter().copied().chain(canaries) {
        if let (Some(loaded), Some(before)) = (old.components.get(name), old.config.components.get(name))
            && before.is_same(config)
            && loaded.hash == hash
            && Arc::ptr_eq(&old.sandbox, &registry.sandbox)
            && granted.iter().all(|(alias, model)| {
                loaded.component.models().get(alias).is_some_and(|before| Arc::ptr_eq(before, model))
            })
        {
            return Ok(loaded.clone());
        }
    }
    let mut settings = config.settings.clone();
    if let Some(thresholds) = &config.thresholds {
        let hashes = granted.iter().map(|(alias, model)| (alias.clone(), model.hash().to_owned()));
        let versions = Versions {
            component: hash.clone(),
            models: hashes.collect(),
            settings: settings_hash(&config.settings),
        };
        thresholds.check(name, &versions)?;
        settings.extend(thresholds.as_settings());
    }
    for (alias, model) in &granted {
        settings.extend(card_facts(alias, model));
    }
    let (limits, http) = (config.limits.clone(), config.http.clone());
    let component =
        registry.sandbox.load(name, &bytes, ComponentOptions { models: granted, settings, limits, http })?;
    if component.world() != World::Handler {
        only_handlers(name, &component, config)?;
    }
    let calls = registry.metrics.recorder(name);
    Ok(Arc::new(LoadedComponent {
        component,
        hash,
        route: config.route.clone(),
        calls,
        count: Count::default(),
    }))
}

/// Rejects settings that only a handler may have.
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
             {world}, which answers one path; leave out `{BELOW}`"
        );
    }
    Ok(())
}

/// Finds the model `name`: a configured one, a built-in one, or a GGUF file.
///
/// # Errors
///
/// If there is no such model.
pub fn find_model(config: &Config, name: &str) -> anyhow::Result<(Source, ModelOptions, Reuse)> {
    let unconfigured = |source| Ok((source, ModelOptions::default(), Reuse::All));
    match config.models.get(name) {
        Some(model) => Ok((model.source.clone(), model.options.clone(), model.reuse)),
        None if weights::is_gguf(Path::new(name)) => unconfigured(Source::Path(name.into())),
        None if weights::exists(name) => unconfigured(Source::Builtin(name.to_owned())),
        None => {
            anyhow::bail!(
                "no model `{name}` in {}; expected one of {}, a built-in model as `infer models` lists them, or a GGUF file",
                config.origin,
                names(config.models.keys())
            )
        }
    }
}

/// Checks that `next` has the inputs and outputs of `current`, so that guests can use either.
///
/// # Errors
///
/// If they differ; names the difference.
fn interchangeable(name: &str, current: &Card, next: &Card) -> anyhow::Result<()> {
    let differs = |what: &str, expected: String, found: String| {
        anyhow::bail!(
            "model `{name}`: {what} of the next version is {found}, expected {expected} as in the current version, because components use either; configure it as a separate model"
        )
    };
    if current.task != next.task || current.format != next.format {
        let kind = |card: &Card| format!("{} ({:?})", card.task, card.format);
        return differs("task", kind(current), kind(next));
    }
    // Guests pass texts to a text model, whatever its file takes.
    let is_text = current.takes_texts();
    if is_text != next.takes_texts() {
        let input = |card: &Card| if card.takes_texts() { "texts" } else { "tensors" }.to_owned();
        return differs("input", input(current), input(next));
    }
    if !is_text && current.inputs != next.inputs {
        return differs("input", format!("{:?}", current.inputs), format!("{:?}", next.inputs));
    }
    if !is_text && current.outputs != next.outputs {
        return differs("output", format!("{:?}", current.outputs), format!("{:?}", next.outputs));
    }
    if current.labels != next.labels {
        return differs("labels", current.labels.join(", "), next.labels.join(", "));
    }
    Ok(())
}
