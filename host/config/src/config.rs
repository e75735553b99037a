//! A checked configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use infer_engine::{ModelOptions, Onnxruntime};
use infer_models::source::Source;
use infer_models::weights::Reuse;
use infer_sandbox::{HttpOptions, Limits, SandboxOptions};

use crate::component_test::ComponentTest;
use crate::lock::Lock;
use crate::place::{Origin, Place};
use crate::server::{KeyConfig, ServerConfig};
use crate::trial::{Next, Trial};
use crate::watched::Files;

/// A configuration in which every reference has been checked; nothing has been loaded yet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it comes from.
    pub origin: Origin,
    /// The listener and the requests.
    pub server: ServerConfig,
    /// Who may ask, by name; nobody is asked for a key where there is none.
    pub keys: BTreeMap<String, KeyConfig>,
    /// Guest instances.
    pub sandbox: SandboxOptions,
    /// How the ONNX backend is chosen.
    pub onnxruntime: Onnxruntime,
    /// Models by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Components by name.
    pub components: BTreeMap<String, ComponentConfig>,
    /// What is pinned; anything may be served where there is no lock.
    pub lock: Option<Lock>,
    /// What it was made of, where it is to be watched.
    pub files: Files,
}

/// One model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Where it is configured.
    pub at: Place,
    /// Its weights: built in, a folder with a card.toml, or a GGUF file.
    pub source: Source,
    /// Sessions, queue and batches.
    pub options: ModelOptions,
    /// What of a language model is kept in the cache folder for later starts.
    pub reuse: Reuse,
    /// How long it stays loaded while nobody asks it; for ever where there is no such time.
    pub keep_alive: Option<Duration>,
    /// A second version that is tried beside it.
    pub next: Option<Next>,
    /// The source that `infer rollback` puts back.
    pub previous: Option<String>,
}

/// One component.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentConfig {
    /// Where it is configured.
    pub at: Place,
    /// The component's file, or one that the program carries.
    pub source: Source,
    /// The path that it answers; none for a component that is only reached from the command line.
    pub route: Option<String>,
    /// The models that it may use: the guest's name for each, and the configuration's.
    pub models: BTreeMap<String, String>,
    /// What `wasi:config/store` answers.
    pub settings: BTreeMap<String, String>,
    /// The budgets of each instance.
    pub limits: Limits,
    /// What only a component that answers HTTP requests is given.
    pub http: HttpOptions,
    /// What it is asked before it is served.
    pub tests: Vec<ComponentTest>,
}

impl Config {
    /// Keep only the components that `keep` accepts, and the models that these use.
    pub fn retain_components(&mut self, keep: impl Fn(&str) -> bool) {
        self.components.retain(|name, _| keep(name));
        let used: BTreeSet<_> =
            self.components.values().flat_map(|component| component.models.values()).collect();
        self.models.retain(|name, _| used.contains(name));
    }
}

impl ModelConfig {
    /// Whether the same is loaded for both, on whichever line they are; other versions beside them
    /// are no matter.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let ModelConfig { at, next, previous, .. } = self.clone();
        *self == ModelConfig { at, next, previous, ..other.clone() }
    }
}

impl ComponentConfig {
    /// Whether both say the same, on whichever line.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        *self == ComponentConfig { at: self.at.clone(), ..other.clone() }
    }
}

impl ModelConfig {
    /// The next version, as a model of its own.
    #[must_use]
    pub fn next_version(&self) -> Option<ModelConfig> {
        let Next { at, source, trial: _ } = self.next.clone()?;
        Some(ModelConfig { at, source, next: None, previous: None, ..self.clone() })
    }
}

impl Config {
    /// Every model, and every next version of one: its name, and what is loaded for it.
    pub fn versions(&self) -> impl Iterator<Item = (&String, ModelConfig)> {
        self.models.iter().flat_map(|(name, model)| {
            let current = ModelConfig { next: None, previous: None, ..model.clone() };
            [Some(current), model.next_version()].into_iter().flatten().map(move |version| (name, version))
        })
    }

    /// The model that has a canary, how many requests of a hundred that answers, and the
    /// configuration by which it does.
    #[must_use]
    pub fn canary(&self) -> Option<(String, f64, Config)> {
        let (name, percent) =
            self.models.iter().find_map(|(name, model)| match model.next.as_ref()?.trial {
                Trial::Canary { percent } => Some((name.clone(), percent)),
                Trial::Shadow { .. } => None,
            })?;
        let mut config = self.clone();
        config.lock = config.lock.map(|lock| lock.of_next(&name));
        for (other, model) in &mut config.models {
            let next = model.next_version().filter(|_| *other == name);
            *model = next.unwrap_or_else(|| ModelConfig { next: None, previous: None, ..model.clone() });
        }
        Some((name, percent, config))
    }

    /// Without the models' next versions: what a command needs that asks once.
    pub fn drop_trials(&mut self) {
        self.models.values_mut().for_each(|model| model.next = None);
    }
}
