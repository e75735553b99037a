//! Turns parsed keys into a `Config`: resolves references, checks ranges, and collects all
//! mistakes.

mod component_test;
mod guard;
mod number;
mod server;
mod thresholds;
mod trial;
mod upstream;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infer_engine::{KvType, ModelOptions, Onnxruntime};
use infer_models::source::{HUB, HubModel, Source};
use infer_models::weights::Reuse;
use infer_models::{builtin, weights};
use infer_sandbox::{ClockKind, HttpOptions, Limits, OutboundHost, RequestMemory, SandboxOptions};
use toml::Spanned;

use crate::paths::{BELOW, is_reserved, paths};
use crate::{ComponentConfig, Config, Files, Mistake, ModelConfig, Origin, Place, file, table};

/// Checks the parsed file and collects the mistakes.
pub(super) struct Checker<'a, P> {
    pub(super) place: &'a P,
    /// Folder that relative paths start from.
    pub(super) base: PathBuf,
    pub(super) mistakes: Vec<Mistake>,
}

impl<P: Fn(usize) -> Place> Checker<'_, P> {
    pub(super) fn mistake(&mut self, offset: usize, message: String) {
        self.mistakes.push(Mistake { at: (self.place)(offset), message });
    }

    pub(super) fn check(&mut self, file: file::File, origin: Origin) -> Config {
        let onnxruntime = self.onnxruntime(&file.server);
        let guards = self.guards(&file);
        let models: BTreeMap<_, _> =
            file.models.into_iter().map(|(name, model)| (name.clone(), self.model(&name, &model))).collect();
        self.one_canary(&models);
        let mut routes = BTreeMap::new();
        let mut components = BTreeMap::new();
        for (name, component) in file.components {
            let component = self.component(&name, component, &models, &mut routes);
            components.insert(name, component);
        }
        let server = self.server(&file.server, file.keys.is_empty(), &components);
        let upstreams = self.upstreams(file.upstreams, &models, server.max_body_bytes);
        let remote = upstreams.values().flat_map(|upstream| upstream.models.keys());
        let names = models.keys().chain(remote).map(|name| (name.clone(), ())).collect();
        let keys = self.keys(&file.keys, &names, &components);
        let sandbox = SandboxOptions {
            instances: self.number("", file.server.instances()) as u32,
            waiting: self.number("", file.server.waiting()) as u32,
            max_memory_bytes: largest(&components, |limits| limits.memory_bytes),
            max_table_elements: largest(&components, |limits| limits.table_elements),
            compiled_folder: builtin::cache_folder().map(|cache| cache.join("compiled")),
            memory: RequestMemory::default(),
        };
        Config {
            origin,
            server,
            keys,
            sandbox,
            onnxruntime,
            models,
            components,
            guards,
            upstreams,
            lock: None,
            files: Files::default(),
        }
    }

    fn onnxruntime(&mut self, server: &table::Server) -> Onnxruntime {
        if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
            return Onnxruntime::Path(path.into());
        }
        match server.onnxruntime().text() {
            "auto" => Onnxruntime::Auto { search: builtin::onnxruntime_folders() },
            "off" => Onnxruntime::Off,
            path => {
                let path = self.base.join(path);
                if let Some(entry) = &server.onnxruntime
                    && !path.exists()
                {
                    let message = format!(
                        "`onnxruntime` is `{}`, which does not exist; expected `auto`, `off` or the path of a \
                         libonnxruntime shared library",
                        path.display()
                    );
                    self.mistake(entry.span().start, message);
                }
                Onnxruntime::Path(path)
            }
        }
    }

    fn model(&mut self, name: &str, model: &table::Model) -> ModelConfig {
        let offset = model.source.span().start;
        let source = self.model_source(&format!("model `{name}`"), &model.source);
        let subject = format!("model `{name}`: ");
        let kv_type = self.kv_type(&subject, model);
        let mut size = |entry| self.optional(&subject, entry).map(|size| size as usize);
        let options = ModelOptions {
            sessions: size(model.sessions()),
            threads: size(model.threads()),
            queue_capacity: size(model.queue_capacity()),
            max_batch: size(model.max_batch()),
            context_tokens: size(model.context_tokens()),
            kv_bytes: size(model.kv_bytes()),
            kv_type,
            prefix_cache_bytes: size(model.prefix_cache_bytes()),
        };
        let heads = self.heads(&subject, model.heads.as_deref().unwrap_or_default());
        let reuse = if model.packed_cache().flag() { Reuse::All } else { Reuse::Off };
        let keep_alive = self.optional(&subject, model.keep_alive_ms()).map(Duration::from_millis);
        let next = model.next.as_ref().map(|next| self.next(name, next));
        let previous = model.previous.as_ref().map(|previous| previous.get_ref().clone());
        ModelConfig { at: (self.place)(offset), source, heads, options, reuse, keep_alive, next, previous }
    }

    fn kv_type(&mut self, subject: &str, model: &table::Model) -> Option<KvType> {
        let entry = model.kv_type.as_ref()?;
        let known = KvType::ALL.into_iter().find(|kv_type| kv_type.name() == entry.get_ref());
        if known.is_none() {
            let message = format!("{subject}`kv_type` is `{}`, expected `f16` or `int8`", entry.get_ref());
            self.mistake(entry.span().start, message);
        }
        known
    }

    /// The paths of a model's heads, which must exist.
    fn heads(&mut self, subject: &str, entries: &[Spanned<String>]) -> Vec<PathBuf> {
        let heads = entries.iter().map(|entry| (entry.span().start, self.base.join(entry.get_ref())));
        let heads: Vec<_> = heads.collect();
        for (offset, path) in heads.iter().filter(|(_, path)| !path.is_file()) {
            let path = path.display();
            self.mistake(*offset, format!("{subject}`heads` names `{path}`, which is not a file"));
        }
        heads.into_iter().map(|(_, path)| path).collect()
    }

    pub(super) fn model_source(&mut self, subject: &str, entry: &Spanned<String>) -> Source {
        if let Some(text) = entry.get_ref().strip_prefix(HUB) {
            return self.hub_source(subject, entry, text);
        }
        let exists = |path: &Path| path.is_dir() || weights::is_gguf(path);
        let expected = "neither a folder with a card.toml nor a GGUF file, which begins with `GGUF`";
        self.source(subject, entry, builtin::weights_names(), (exists, expected))
    }

    fn hub_source(&mut self, subject: &str, entry: &Spanned<String>, text: &str) -> Source {
        let parsed = HubModel::parse(text);
        let problem = match &parsed {
            Ok(HubModel { revision: Some(_), .. }) => None,
            Ok(model) => Some(format!(
                "names no revision, expected `{model}@COMMIT`, because a branch changes; `infer import {model}` prints the \
                 newest commit, and the page `Files and versions` of the hub lists all"
            )),
            Err(expected) => Some(format!("is invalid, {expected}")),
        };
        if let Some(problem) = problem {
            let message = format!("{subject}: source `{}` {problem}", entry.get_ref());
            self.mistake(entry.span().start, message);
        }
        parsed.map_or_else(|_| Source::Path(PathBuf::new()), Source::Hub)
    }

    fn component(
        &mut self,
        name: &str,
        component: table::Component,
        models: &BTreeMap<String, ModelConfig>,
        routes: &mut BTreeMap<String, String>,
    ) -> ComponentConfig {
        let subject = format!("component `{name}`");
        let offset = component.source.span().start;
        let is_file = (Path::is_file, "not a file");
        let source = self.source(&subject, &component.source, builtin::guest_names(), is_file);
        for (guest_name, model) in component.models.iter().flatten() {
            let model_name = model.get_ref();
            if !models.contains_key(model_name) {
                let message = format!(
                    "{subject}: model `{model_name}` (for the guest's `{guest_name}`) is not configured; expected {}, \
                     or a section [models.{model_name}]",
                    one_of(models.keys()),
                );
                self.mistake(model.span().start, message);
            }
        }
        if let Some(route) = &component.route {
            self.route(&subject, route);
            let before =
                paths(route.get_ref()).into_iter().filter_map(|path| routes.insert(path, name.to_owned()));
            if let Some(other) = before.last() {
                let message =
                    format!("{subject}: route `{}` is already used by component `{other}`", route.get_ref());
                self.mistake(route.span().start, message);
            }
        }
        for key in component.settings.iter().flatten().map(|(key, _)| key) {
            for (reserved, owner) in [("models.", "the models' cards"), ("request.", "the request")] {
                if key.starts_with(reserved) {
                    let message = format!(
                        "{subject}: setting `{key}`: keys that start with `{reserved}` are reserved for {owner}"
                    );
                    self.mistake(offset, message);
                }
            }
        }
        let thresholds = self.thresholds(&subject, &component);
        ComponentConfig {
            at: (self.place)(offset),
            source,
            limits: self.limits(&subject, component.limits.as_ref().unwrap_or(&table::Limits::default())),
            http: self.http(&subject, &component),
            route: component.route.map(Spanned::into_inner),
            models: inner(component.models),
            settings: component
                .settings
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, value.to_string()))
                .collect(),
            thresholds,
            tests: self.tests(&subject, offset, component.tests.unwrap_or_default()),
        }
    }

    fn http(&mut self, subject: &str, component: &table::Component) -> HttpOptions {
        let mut outbound = Vec::new();
        for entry in component.allowed_outbound_hosts.iter().flatten() {
            match entry.get_ref().parse::<OutboundHost>() {
                Ok(host) => outbound.push(host),
                Err(reason) => {
                    let message =
                        format!("{subject}: `allowed_outbound_hosts` has `{}`: {reason}", entry.get_ref());
                    self.mistake(entry.span().start, message);
                }
            }
        }
        let clock = match component.clock().text() {
            "frozen" => ClockKind::Frozen,
            other => {
                if let Some(entry) = component.clock.as_ref().filter(|_| other != "system") {
                    let message = format!("{subject}: `clock` is `{other}`, expected `system` or `frozen`");
                    self.mistake(entry.span().start, message);
                }
                ClockKind::System
            }
        };
        HttpOptions { outbound, clock, random_seed: component.random_seed }
    }

    fn limits(&mut self, subject: &str, limits: &table::Limits) -> Limits {
        let subject = format!("{subject}: ");
        let instances = self.optional(&subject, limits.instances()).map(|instances| instances as usize);
        let mut size = |entry| self.number(&subject, entry) as usize;
        let memory_bytes = size(limits.memory_bytes());
        let table_elements = size(limits.table_elements());
        let handles = size(limits.handles());
        let tensor_bytes = size(limits.tensor_bytes());
        let log_lines = size(limits.log_lines());
        let outbound_requests = size(limits.outbound_requests());
        Limits {
            instances,
            memory_bytes,
            table_elements,
            handles,
            tensor_bytes,
            guest_time: self.duration(&subject, limits.guest_ms()),
            compute_time: self.duration(&subject, limits.compute_ms()),
            log_lines,
            outbound_requests,
        }
    }

    fn route(&mut self, subject: &str, route: &Spanned<String>) {
        let text = route.get_ref();
        let path = text.strip_suffix(BELOW).unwrap_or(text);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
        let is_path = path.starts_with('/') && path.len() > 1 && path.bytes().all(plain);
        if !is_path && text != BELOW {
            let message = format!(
                "{subject}: route is `{text}`, expected a path such as `/moderate`, of letters, digits and `/-_.~`, or one \
                 such as `/gate{BELOW}` with all that is below it"
            );
            self.mistake(route.span().start, message);
        }
        if is_reserved(path) {
            self.mistake(route.span().start, format!("{subject}: route `{text}` is the server's own"));
        }
    }

    fn source(
        &mut self,
        subject: &str,
        entry: &Spanned<String>,
        builtins: impl Iterator<Item = &'static str>,
        (exists, expected): (impl Fn(&Path) -> bool, &str),
    ) -> Source {
        let text = entry.get_ref().as_str();
        if let Some(name) = text.strip_prefix("builtin:") {
            let names: Vec<_> = builtins.collect();
            if !names.contains(&name) {
                let message =
                    format!("{subject}: source `{text}` is not built in; expected {}", one_of(&names));
                self.mistake(entry.span().start, message);
            }
            return Source::Builtin(name.to_owned());
        }
        let path = self.base.join(text);
        if !exists(&path) {
            let found = if path.exists() { format!("is {expected}") } else { "does not exist".to_owned() };
            let message = format!(
                "{subject}: source `{}` {found}; expected a path from the configuration's folder, or `builtin:` and one \
                 of {}",
                path.display(),
                one_of(builtins)
            );
            self.mistake(entry.span().start, message);
        }
        Source::Path(path)
    }
}

/// Returns the largest value of a limit, at least the default.
fn largest(components: &BTreeMap<String, ComponentConfig>, limit: impl Fn(&Limits) -> usize) -> usize {
    let limits = components.values().map(|component| limit(&component.limits));
    limits.fold(limit(&Limits::DEFAULT), usize::max)
}

/// Removes the positions of a map's values.
fn inner(map: Option<BTreeMap<String, Spanned<String>>>) -> BTreeMap<String, String> {
    map.into_iter().flatten().map(|(name, value)| (name, value.into_inner())).collect()
}

/// Names the expected values.
pub(super) fn one_of<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "one that is configured (there are none)".to_owned(),
        [only] => only.clone(),
        [others @ .., last] => format!("{} or {last}", others.join(", ")),
    }
}
