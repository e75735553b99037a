//! A checked configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infer_engine::{ModelOptions, Onnxruntime, files};
use infer_sandbox::{HttpOptions, Limits, SandboxOptions};

use crate::check::Checker;
use crate::component_test::ComponentTest;
use crate::lock::Lock;
use crate::server::{KeyConfig, ServerConfig};
use crate::trial::Next;
use crate::watched::Files;
use infer_models::source::Source;
use infer_models::weights::Reuse;

/// The configuration that is used when there is no infer.toml.
pub const CONFIG: &str = include_str!("default.toml");

/// A longer configuration is not read.
pub const MAX_BYTES: u64 = 64 << 20;

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

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The one that the program carries.
    Builtin,
    /// A file.
    File(PathBuf),
}

/// A line of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    origin: Origin,
    line: usize,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is read and has mistakes.
    #[error("{}", join(.0))]
    Mistakes(Vec<Mistake>),
}

/// One mistake, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where.
    pub at: Place,
    /// What is wrong, what was expected, and the way out.
    pub message: String,
}

impl Config {
    /// The file at `path` and the lock beside it; without one `./infer.toml` where it exists, else
    /// the configuration that the program carries.
    ///
    /// # Errors
    ///
    /// As [`Config::read`], or when the lock is none.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let mut config = Config::read(path)?;
        let lock = Lock::beside(&config.origin);
        config.lock = lock.map_err(|mistake| ConfigError::Mistakes(vec![mistake]))?;
        Ok(config)
    }

    /// As [`Config::load`], whatever the lock says.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or for all the mistakes in it at once.
    pub fn read(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new("infer.toml");
        let path = match path {
            Some(path) => path,
            // Also a file that cannot be read: it was meant.
            None if default.symlink_metadata().is_ok() => default,
            None => return Config::parse(CONFIG, &Origin::Builtin),
        };
        let text = files::read_to_string(path, MAX_BYTES)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config = Config::parse(&text, &Origin::File(path.to_owned()))?;
        if config.server.watch {
            config.files = Files::read(path, &text);
        }
        Ok(config)
    }

    /// Parse and check `text`.
    ///
    /// # Errors
    ///
    /// For a mistake of syntax, or for all the other mistakes at once.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let place = |offset: usize| Place { origin: origin.clone(), line: line(text, offset) };
        let file: crate::file::File = toml::from_str(text).map_err(|error| {
            let at = place(error.span().map_or(0, |span| span.start));
            let mistake = Mistake { at, message: error.message().trim_end().replace('\n', " ") };
            ConfigError::Mistakes(vec![mistake])
        })?;
        let mut checker = Checker { place: &place, base: base(origin), mistakes: Vec::new() };
        let config = checker.check(file, origin.clone());
        if checker.mistakes.is_empty() { Ok(config) } else { Err(ConfigError::Mistakes(checker.mistakes)) }
    }

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

pub(crate) fn base(origin: &Origin) -> PathBuf {
    match origin {
        Origin::Builtin => PathBuf::new(),
        Origin::File(path) => path.parent().unwrap_or(Path::new("")).to_owned(),
    }
}

fn line(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn join(mistakes: &[Mistake]) -> String {
    let lines: Vec<_> =
        mistakes.iter().map(|mistake| format!("{}: {}", mistake.at, mistake.message)).collect();
    lines.join("\nerror: ")
}

impl Place {
    /// No line of its own: what is used and does not stand in the configuration.
    pub fn of(origin: Origin) -> Place {
        Place { origin, line: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => self.origin.fmt(f),
            line => write!(f, "{}:{line}", self.origin),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Builtin => f.write_str("built-in configuration"),
            Origin::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
