//! The checked configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use infer_engine::{ModelOptions, Onnxruntime, Task};
use infer_models::source::Source;
use infer_models::weights::{self, Listed, Reuse};
use infer_sandbox::{HttpOptions, Limits, SandboxOptions};

use crate::component_test::ComponentTest;
use crate::guard::GuardConfig;
use crate::lock::Lock;
use crate::place::{Origin, Place};
use crate::server::{KeyConfig, ServerConfig};
use crate::thresholds::Thresholds;
use crate::trial::{Next, Trial};
use crate::upstream::UpstreamConfig;
use crate::watched::Files;

/// A configuration in which every reference has been checked. Nothing has been loaded yet.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, or the built-in configuration.
    pub origin: Origin,
    /// Listeners and limits of requests.
    pub server: ServerConfig,
    /// API keys by name. If there are none, requests need no key.
    pub keys: BTreeMap<String, KeyConfig>,
    /// Number of guest instances and limits of the sandbox.
    pub sandbox: SandboxOptions,
    /// Selection of the ONNX backend.
    pub onnxruntime: Onnxruntime,
    /// Models by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Components by name.
    pub components: BTreeMap<String, ComponentConfig>,
    /// Guards of chats.
    pub guards: Guards,
    /// Upstreams by name.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// Pinned hashes. Without a lock any model and component may be served.
    pub lock: Option<Lock>,
    /// The files that it depends on; empty unless `watch` is on.
    pub files: Files,
}

/// Guards of chats.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guards {
    /// `[chat.guard]`, for the models that have none.
    pub default: Option<GuardConfig>,
    /// `[models.NAME.guard]` by the model's name.
    pub models: BTreeMap<String, GuardConfig>,
    /// `[upstreams.NAME.guard]` by the upstream's name.
    pub upstreams: BTreeMap<String, GuardConfig>,
}

impl Guards {
    /// The guard of the upstream `name`.
    #[must_use]
    pub fn of_upstream(&self, name: &str) -> Option<&GuardConfig> {
        self.upstreams.get(name).or(self.default.as_ref())
    }

    /// The guard of the local `model`.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<&GuardConfig> {
        self.models.get(model).or(self.default.as_ref())
    }

    /// Iterates over the guards, with the section of each.
    pub fn iter(&self) -> impl Iterator<Item = (String, &GuardConfig)> {
        let default = self.default.iter().map(|guard| ("chat.guard".to_owned(), guard));
        let models = self.models.iter().map(|(name, guard)| (format!("models.{name}.guard"), guard));
        let upstreams = self.upstreams.iter().map(|(name, guard)| (format!("upstreams.{name}.guard"), guard));
        default.chain(models).chain(upstreams)
    }
}

/// Configuration of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Its line in the configuration.
    pub at: Place,
    /// Source of its weights: built in, a folder with a card.toml, a GGUF file, or the hub.
    pub source: Source,
    /// Files of heads that are added to its card.
    pub heads: Vec<PathBuf>,
    /// Sessions, queue and batches.
    pub options: ModelOptions,
    /// Data of a language model that is cached for later starts.
    pub reuse: Reuse,
    /// Idle time after which it is unloaded; `None` keeps it loaded.
    pub keep_alive: Option<Duration>,
    /// A second version that is tried beside this one.
    pub next: Option<Next>,
    /// The source that `infer rollback` restores.
    pub previous: Option<String>,
}

/// Configuration of a component.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentConfig {
    /// Its line in the configuration.
    pub at: Place,
    /// Source of its WebAssembly file: a path, or built in.
    pub source: Source,
    /// The path that it answers; `None` if only the command line uses it.
    pub route: Option<String>,
    /// Models that it may use: the configuration's names by the guest's names.
    pub models: BTreeMap<String, String>,
    /// Settings that the guest reads through `wasi:config/store`.
    pub settings: BTreeMap<String, String>,
    /// Thresholds that hold for these models and settings only.
    pub thresholds: Option<Thresholds>,
    /// Limits of each instance.
    pub limits: Limits,
    /// Options of HTTP components.
    pub http: HttpOptions,
    /// Self-tests before it is served.
    pub tests: Vec<ComponentTest>,
}

impl Config {
    /// Keeps the components that `keep` accepts, and the models that they use. Drops the guards.
    pub fn retain_components(&mut self, keep: impl Fn(&str) -> bool) {
        self.components.retain(|name, _| keep(name));
        self.guards = Guards::default();
        let used: BTreeSet<_> =
            self.components.values().flat_map(|component| component.models.values()).collect();
        self.models.retain(|name, _| used.contains(name));
    }
}

impl ModelConfig {
    /// A model without heads and other versions, which stays loaded.
    #[must_use]
    pub fn new(at: Place, source: Source, options: ModelOptions, reuse: Reuse) -> Self {
        ModelConfig {
            at,
            source,
            heads: Vec::new(),
            options,
            reuse,
            keep_alive: None,
            next: None,
            previous: None,
        }
    }

    /// Describes its weights, as [`weights::list`] does. With heads, a model for embeddings is a
    /// classifier.
    ///
    /// # Errors
    ///
    /// As [`weights::list`].
    pub fn list(&self) -> anyhow::Result<Listed> {
        let mut listed = weights::list(&self.source)?;
        if !self.heads.is_empty() && listed.card.task == Task::TextEmbedding {
            listed.card.task = Task::TextClassification;
        }
        Ok(listed)
    }

    /// Returns true if both load the same model. Their lines in the file and their next and
    /// previous versions are ignored.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let ModelConfig { at, next, previous, .. } = self.clone();
        *self == ModelConfig { at, next, previous, ..other.clone() }
    }
}

impl ComponentConfig {
    /// Returns true if both are equal, apart from their lines in the file.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        *self == ComponentConfig { at: self.at.clone(), ..other.clone() }
    }
}

impl ModelConfig {
    /// Returns the next version, as a model of its own.
    #[must_use]
    pub fn next_version(&self) -> Option<ModelConfig> {
        let Next { at, source, trial: _ } = self.next.clone()?;
        Some(ModelConfig { at, source, next: None, previous: None, ..self.clone() })
    }
}

impl Config {
    /// Iterates over every model and every next version, with the model's name.
    pub fn versions(&self) -> impl Iterator<Item = (&String, ModelConfig)> {
        self.models.iter().flat_map(|(name, model)| {
            let current = ModelConfig { next: None, previous: None, ..model.clone() };
            [Some(current), model.next_version()].into_iter().flatten().map(move |version| (name, version))
        })
    }

    /// Returns the model that has a canary, the canary's share of the requests in percent, and the
    /// configuration with the canary in the model's place.
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

    /// Removes the models' next versions, for a command that sends a single request.
    pub fn drop_trials(&mut self) {
        self.models.values_mut().for_each(|model| model.next = None);
    }
}
