//! infer.toml: what is typed ([`file`]) becomes what it means ([`Config`]), and each mistake names its line.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infer_engine::{ModelOptions, Onnxruntime};
use infer_sandbox::{Limits, SandboxOptions};
use toml::Spanned;

use crate::builtin;

/// A configuration in which every reference has been checked; nothing has been loaded yet.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it comes from.
    pub origin: Origin,
    /// The listener and the requests.
    pub server: ServerConfig,
    /// Guest instances.
    pub sandbox: SandboxOptions,
    /// How the ONNX backend is chosen.
    pub onnxruntime: Onnxruntime,
    /// Models by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Components by name.
    pub components: BTreeMap<String, ComponentConfig>,
}

/// The listener and the requests.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// The longest that a request may take.
    pub deadline: Duration,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The most inputs of one `/moderate` request.
    pub max_inputs: usize,
    /// How long requests under way may take to finish after a signal to stop.
    pub drain: Duration,
}

/// One model.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Where it is configured.
    pub at: Place,
    /// Its weights: a folder with a card.toml, or weights that the program carries.
    pub source: Source,
    /// Sessions, queue and batches.
    pub options: ModelOptions,
}

/// One component.
#[derive(Clone, Debug)]
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
}

/// Where something is loaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `builtin:NAME`, carried by the program.
    Builtin(String),
    /// A path, made absolute against the configuration's folder.
    Path(PathBuf),
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
    /// The file at `path`; without one `./infer.toml` where it exists, else the configuration that the program carries.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or for all the mistakes in it at once.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let default = Path::new("infer.toml");
        let path = match path {
            Some(path) => path,
            None if default.is_file() => default,
            None => return Config::parse(builtin::CONFIG, &Origin::Builtin),
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text, &Origin::File(path.to_owned()))
    }

    /// Parse and check `text`.
    ///
    /// # Errors
    ///
    /// For a mistake of syntax, or for all the other mistakes at once.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let place = |offset: usize| Place { origin: origin.clone(), line: line(text, offset) };
        let file: file::File = toml::from_str(text).map_err(|error| {
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

fn base(origin: &Origin) -> PathBuf {
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

/// Turns what was typed into what it means, and collects the mistakes on the way.
struct Checker<'a, P> {
    place: &'a P,
    base: PathBuf,
    mistakes: Vec<Mistake>,
}

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    fn mistake(&mut self, offset: usize, message: String) {
        self.mistakes.push(Mistake { at: (self.place)(offset), message });
    }

    fn check(&mut self, file: file::File, origin: Origin) -> Config {
        let onnxruntime = self.onnxruntime(file.server.onnxruntime.as_ref());
        let models: BTreeMap<_, _> =
            file.models.into_iter().map(|(name, model)| (name.clone(), self.model(&name, &model))).collect();
        let mut routes = BTreeMap::new();
        let mut components = BTreeMap::new();
        for (name, component) in file.components {
            let component = self.component(&name, component, &models, &mut routes);
            components.insert(name, component);
        }
        let server = &file.server;
        let sandbox = SandboxOptions {
            instances: server.instances,
            waiting: server.waiting,
            max_memory_bytes: most(&components, |limits| limits.memory_bytes),
            max_table_elements: most(&components, |limits| limits.table_elements),
        };
        if !(1..=1_000).contains(&server.instances) {
            let message = format!("`instances` is {}, expected 1 to 1000", server.instances);
            self.mistake(0, message);
        }
        let server = ServerConfig {
            listen: server.listen,
            deadline: Duration::from_millis(server.deadline_ms),
            max_body_bytes: server.max_body_bytes,
            max_inputs: server.max_inputs,
            drain: Duration::from_millis(server.drain_ms),
        };
        Config { origin, server, sandbox, onnxruntime, models, components }
    }

    fn onnxruntime(&mut self, typed: Option<&Spanned<String>>) -> Onnxruntime {
        let auto = || Onnxruntime::Auto { search: builtin::onnxruntime_folders() };
        if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
            return Onnxruntime::Path(path.into());
        }
        match typed {
            None => auto(),
            Some(typed) => match typed.get_ref().as_str() {
                "auto" => auto(),
                "off" => Onnxruntime::Off,
                path => {
                    let path = self.base.join(path);
                    if !path.exists() {
                        let message = format!(
                            "`onnxruntime` is `{}`, which does not exist; expected `auto`, `off` or the path of a \
                             libonnxruntime shared library",
                            path.display()
                        );
                        self.mistake(typed.span().start, message);
                    }
                    Onnxruntime::Path(path)
                }
            },
        }
    }

    fn model(&mut self, name: &str, model: &file::Model) -> ModelConfig {
        let offset = model.source.span().start;
        let source =
            self.source(&format!("model `{name}`"), &model.source, builtin::weights_names(), Path::is_dir);
        let defaults = ModelOptions::default();
        let options = ModelOptions {
            sessions: model.sessions.unwrap_or(defaults.sessions),
            threads: model.threads.unwrap_or(defaults.threads),
            queue_capacity: model.queue_capacity.unwrap_or(defaults.queue_capacity),
            max_batch: model.max_batch.unwrap_or(defaults.max_batch),
        };
        let sizes = [
            ("sessions", options.sessions, 64),
            ("threads", options.threads, 256),
            ("queue_capacity", options.queue_capacity, 65_536),
            ("max_batch", options.max_batch, 1_024),
        ];
        for (key, value, most) in sizes {
            if !(1..=most).contains(&value) {
                self.mistake(offset, format!("model `{name}`: `{key}` is {value}, expected 1 to {most}"));
            }
        }
        ModelConfig { at: (self.place)(offset), source, options }
    }

    fn component(
        &mut self,
        name: &str,
        component: file::Component,
        models: &BTreeMap<String, ModelConfig>,
        routes: &mut BTreeMap<String, String>,
    ) -> ComponentConfig {
        let subject = format!("component `{name}`");
        let offset = component.source.span().start;
        let source = self.source(&subject, &component.source, builtin::guest_names(), Path::is_file);
        for (wanted, model) in &component.models {
            if !models.contains_key(model.get_ref()) {
                let message = format!(
                    "{subject}: model `{}` (for the guest's `{wanted}`) is not configured; expected {}, or a section \
                     [models.{}]",
                    model.get_ref(),
                    one_of(models.keys()),
                    model.get_ref(),
                );
                self.mistake(model.span().start, message);
            }
        }
        if let Some(route) = &component.route {
            self.route(&subject, route);
            if let Some(other) = routes.insert(route.get_ref().clone(), name.to_owned()) {
                let message =
                    format!("{subject}: route `{}` is already the component `{other}`'s", route.get_ref());
                self.mistake(route.span().start, message);
            }
        }
        for key in component.settings.keys().filter(|key| key.starts_with("models.")) {
            let message = format!(
                "{subject}: setting `{key}`: keys that start with `models.` tell of the models' cards"
            );
            self.mistake(offset, message);
        }
        ComponentConfig {
            at: (self.place)(offset),
            source,
            route: component.route.map(Spanned::into_inner),
            models: component
                .models
                .into_iter()
                .map(|(wanted, model)| (wanted, model.into_inner()))
                .collect(),
            settings: component.settings.into_iter().map(|(key, value)| (key, value.to_string())).collect(),
            limits: component.limits.into(),
        }
    }

    fn route(&mut self, subject: &str, route: &Spanned<String>) {
        let text = route.get_ref();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        if !text.starts_with('/') || text.len() < 2 || !text.bytes().all(plain) {
            let message = format!(
                "{subject}: route is `{text}`, expected a path such as `/moderate`, of letters, digits and `/-_.~`"
            );
            self.mistake(route.span().start, message);
        }
        if crate::routes::RESERVED.contains(&text.as_str()) {
            self.mistake(route.span().start, format!("{subject}: route `{text}` is the server's own"));
        }
    }

    fn source(
        &mut self,
        subject: &str,
        typed: &Spanned<String>,
        builtins: impl Iterator<Item = &'static str>,
        exists: impl Fn(&Path) -> bool,
    ) -> Source {
        let text = typed.get_ref().as_str();
        if let Some(name) = text.strip_prefix("builtin:") {
            let names: Vec<_> = builtins.collect();
            if !names.contains(&name) {
                let message =
                    format!("{subject}: source `{text}` is not built in; expected {}", one_of(&names));
                self.mistake(typed.span().start, message);
            }
            return Source::Builtin(name.to_owned());
        }
        let path = self.base.join(text);
        if !exists(&path) {
            let message = format!(
                "{subject}: source `{}` does not exist; expected a path from the configuration's folder, or `builtin:` \
                 and one of {}",
                path.display(),
                one_of(builtins)
            );
            self.mistake(typed.span().start, message);
        }
        Source::Path(path)
    }
}

fn most(components: &BTreeMap<String, ComponentConfig>, limit: impl Fn(&Limits) -> usize) -> usize {
    let default = limit(&Limits::default());
    components.values().map(|component| limit(&component.limits)).fold(default, usize::max)
}

fn one_of<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none (none is configured)".to_owned(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.line)
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

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Builtin(name) => write!(f, "builtin:{name}"),
            Source::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
