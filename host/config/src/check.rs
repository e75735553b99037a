//! Turns parsed keys into a `Config`: resolves references, checks ranges, and collects all
//! mistakes.

mod component_test;
mod server;
mod trial;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use infer_engine::{ModelOptions, Onnxruntime};
use infer_models::source::Source;
use infer_models::weights::Reuse;
use infer_models::{builtin, weights};
use infer_sandbox::{ClockKind, HttpOptions, Limits, OutboundHost, RequestMemory, SandboxOptions};
use toml::Spanned;

use crate::paths::{BELOW, is_reserved, paths};
use crate::{ComponentConfig, Config, Files, Mistake, ModelConfig, Origin, Place, file};

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
        let onnxruntime = self.onnxruntime(file.server.onnxruntime.as_ref());
        let models: BTreeMap<_, _> =
            file.models.into_iter().map(|(name, model)| (name.clone(), self.model(&name, &model))).collect();
        self.one_canary(&models);
        let mut routes = BTreeMap::new();
        let mut components = BTreeMap::new();
        for (name, component) in file.components {
            let component = self.component(&name, component, &models, &mut routes);
            components.insert(name, component);
        }
        let keys = self.keys(&file.keys, &models, &components);
        let server = self.server(&file.server, keys.is_empty(), &components);
        let sandbox = SandboxOptions {
            instances: self.number("", "instances", &file.server.instances, 32, 1..=1_000) as u32,
            waiting: self.number("", "waiting", &file.server.waiting, 256, 0..=65_536) as u32,
            max_memory_bytes: most(&components, |limits| limits.memory_bytes),
            max_table_elements: most(&components, |limits| limits.table_elements),
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
            lock: None,
            files: Files::default(),
        }
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
        let source = self.model_source(&format!("model `{name}`"), &model.source);
        let subject = format!("model `{name}`: ");
        let mut size = |key, typed, range| self.optional(&subject, key, typed, range);
        let options = ModelOptions {
            sessions: size("sessions", &model.sessions, 1..=64),
            threads: size("threads", &model.threads, 1..=256),
            queue_capacity: size("queue_capacity", &model.queue_capacity, 1..=65_536),
            max_batch: size("max_batch", &model.max_batch, 1..=4_096),
            context_tokens: size("context_tokens", &model.context_tokens, 16..=1 << 20),
            kv_bytes: size("kv_bytes", &model.kv_bytes, 1 << 20..=1 << 40),
        };
        let reuse = if model.packed_cache.unwrap_or(true) { Reuse::All } else { Reuse::Off };
        // At most a week. The minimum keeps a model loaded between two requests of one client.
        let keep_alive =
            self.optional(&subject, "keep_alive_ms", &model.keep_alive_ms, 1_000..=7 * 86_400_000);
        let keep_alive = keep_alive.map(|time| Duration::from_millis(time as u64));
        let next = model.next.as_ref().map(|next| self.next(name, next));
        let previous = model.previous.clone();
        ModelConfig { at: (self.place)(offset), source, options, reuse, keep_alive, next, previous }
    }

    pub(super) fn model_source(&mut self, subject: &str, typed: &Spanned<String>) -> Source {
        let exists = |path: &Path| path.is_dir() || weights::is_gguf(path);
        let expected = "neither a folder with a card.toml nor a GGUF file, which begins with `GGUF`";
        self.source(subject, typed, builtin::weights_names(), (exists, expected))
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
        let source =
            self.source(&subject, &component.source, builtin::guest_names(), (Path::is_file, "no file"));
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
            let before =
                paths(route.get_ref()).into_iter().filter_map(|path| routes.insert(path, name.to_owned()));
            if let Some(other) = before.last() {
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
            limits: self.limits(&subject, &component.limits),
            http: self.http(
                &subject,
                &component.allowed_outbound_hosts,
                component.clock.as_ref(),
                component.random_seed,
            ),
            tests: self.tests(&subject, offset, component.tests),
        }
    }

    fn http(
        &mut self,
        subject: &str,
        hosts: &[Spanned<String>],
        clock: Option<&Spanned<String>>,
        random_seed: Option<u64>,
    ) -> HttpOptions {
        let mut outbound = Vec::new();
        for typed in hosts {
            match typed.get_ref().parse::<OutboundHost>() {
                Ok(host) => outbound.push(host),
                Err(reason) => {
                    let message =
                        format!("{subject}: `allowed_outbound_hosts` has `{}`: {reason}", typed.get_ref());
                    self.mistake(typed.span().start, message);
                }
            }
        }
        let clock = match clock.map(|typed| (typed, typed.get_ref().as_str())) {
            None | Some((_, "system")) => ClockKind::System,
            Some((_, "frozen")) => ClockKind::Frozen,
            Some((typed, other)) => {
                let message = format!("{subject}: `clock` is `{other}`, expected `system` or `frozen`");
                self.mistake(typed.span().start, message);
                ClockKind::System
            }
        };
        HttpOptions { outbound, clock, random_seed }
    }

    fn limits(&mut self, subject: &str, typed: &file::LimitsTable) -> Limits {
        let subject = format!("{subject}: ");
        let defaults = Limits::default();
        let instances = self.optional(&subject, "instances", &typed.instances, 1..=1_000);
        let mut size = |key, typed, default, range| self.size(&subject, key, typed, default, range);
        // At least one page; at most the size that the pool reserves for a memory.
        let memory_bytes = size("memory_bytes", &typed.memory_bytes, defaults.memory_bytes, 65_536..=4 << 30);
        // An instruction on a table cannot be interrupted while it runs. With a million elements it
        // takes some milliseconds.
        let table_elements =
            size("table_elements", &typed.table_elements, defaults.table_elements, 1..=1_000_000);
        let handles = size("handles", &typed.handles, defaults.handles, 1..=1_000_000);
        let tensor_bytes = size("tensor_bytes", &typed.tensor_bytes, defaults.tensor_bytes, 1_024..=4 << 30);
        let log_lines = size("log_lines", &typed.log_lines, defaults.log_lines, 0..=1_000_000);
        let outbound_requests =
            size("outbound_requests", &typed.outbound_requests, defaults.outbound_requests, 0..=1_000);
        Limits {
            instances,
            memory_bytes,
            table_elements,
            handles,
            tensor_bytes,
            guest_time: self.duration(&subject, "guest_ms", &typed.guest_ms, defaults.guest_time),
            compute_time: self.duration(&subject, "compute_ms", &typed.compute_ms, defaults.compute_time),
            log_lines,
            outbound_requests,
        }
    }

    /// Returns the number at `key`, or the default. A number out of range is a mistake.
    pub(super) fn number(
        &mut self,
        subject: &str,
        key: &str,
        typed: &file::Number,
        default: u64,
        range: RangeInclusive<u64>,
    ) -> u64 {
        let Some(typed) = typed else { return default };
        let value = *typed.get_ref();
        if !range.contains(&value) {
            let message =
                format!("{subject}`{key}` is {value}, expected {} to {}", range.start(), range.end());
            self.mistake(typed.span().start, message);
        }
        value
    }

    /// Returns the number at `key`, or `None` if the key is absent.
    pub(super) fn optional(
        &mut self,
        subject: &str,
        key: &str,
        typed: &file::Number,
        range: RangeInclusive<u64>,
    ) -> Option<usize> {
        typed.is_some().then(|| self.size(subject, key, typed, 0, range))
    }

    pub(super) fn size(
        &mut self,
        subject: &str,
        key: &str,
        typed: &file::Number,
        default: usize,
        range: RangeInclusive<u64>,
    ) -> usize {
        self.number(subject, key, typed, default as u64, range) as usize
    }

    /// Returns the duration at `key`, in milliseconds, at most an hour.
    pub(super) fn duration(
        &mut self,
        subject: &str,
        key: &str,
        typed: &file::Number,
        default: Duration,
    ) -> Duration {
        Duration::from_millis(self.number(subject, key, typed, default.as_millis() as u64, 1..=3_600_000))
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
        typed: &Spanned<String>,
        builtins: impl Iterator<Item = &'static str>,
        (exists, expected): (impl Fn(&Path) -> bool, &str),
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
            let found = if path.exists() { format!("is {expected}") } else { "does not exist".to_owned() };
            let message = format!(
                "{subject}: source `{}` {found}; expected a path from the configuration's folder, or `builtin:` and one \
                 of {}",
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

pub(super) fn one_of<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.as_slice() {
        [] => "none (none is configured)".to_owned(),
        [only] => only.clone(),
        [most @ .., last] => format!("{} or {last}", most.join(", ")),
    }
}
