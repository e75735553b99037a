//! Loads components: compiles them, checks their imports, links them to the host.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use infer_engine::Model;
use infer_engine::text::names;
use tokio::sync::Semaphore;
use wasmtime::component::{Component as Compiled, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::bindings::classifier::ClassifierPre;
use crate::bindings::moderator::ModeratorPre;
use crate::bindings::predictor::PredictorPre;
use crate::compiled::{CachedCode, Entry};
use crate::component::{Component, Linked};
use crate::error::LoadError;
use crate::expectation::Expectations;
use crate::guest_limits::Limits;
use crate::http::{self, HttpOptions};
use crate::interruptible::interruptible;
use crate::sandbox::Sandbox;
use crate::state::{Grants, State};

/// Options of a component.
#[derive(Debug, Default)]
pub struct ComponentOptions {
    /// Models by the name that the guest uses. The guest can reach no others.
    pub models: BTreeMap<String, Arc<Model>>,
    /// Settings that `wasi:config/store` returns.
    pub settings: BTreeMap<String, String>,
    /// Budgets of each instance.
    pub limits: Limits,
    /// Options of a component that answers HTTP requests itself.
    pub http: HttpOptions,
}

impl Sandbox {
    /// Compiles a component, or reads its cached machine code, and links it to the host.
    ///
    /// `name` is the component's name in the configuration; `bytes` is a component in binary form.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component, or when it imports an interface that guests may not use,
    /// or exports the interface of no world.
    pub fn load(&self, name: &str, bytes: &[u8], options: ComponentOptions) -> Result<Component, LoadError> {
        let component = || name.to_owned();
        let (compiled, _) = self.compile(name, bytes)?;
        let ty = compiled.component_type();
        let is_handler = ty.exports(&self.engine).any(|(export, _)| export.starts_with(http::EXPORT));
        self.check_imports(name, &compiled, if is_handler { &http::GRANTED } else { &[] })?;
        let limit = |error: wasmtime::Error| LoadError::Limit {
            component: component(),
            message: format!("{error:#}"),
        };
        let linked = if is_handler {
            let pre = self.http_linker.instantiate_pre(&compiled).map_err(limit)?;
            ProxyPre::new(pre).ok().map(Linked::Handler)
        } else {
            link(self.linker.instantiate_pre(&compiled).map_err(limit)?)
        };
        let linked = linked.ok_or_else(|| {
            let exports = names(ty.exports(&self.engine).map(|(name, _)| name));
            let exports = if exports.is_empty() { "nothing".to_owned() } else { exports };
            LoadError::Export { component: component(), exports }
        })?;
        let ComponentOptions { models, settings, limits, http } = options;
        let own_slots = limits.instances.map(|instances| Arc::new(Semaphore::new(instances)));
        let grants = Arc::new(Grants { component: Arc::from(name), models, settings, limits, http });
        let (engine, slots, memory) = (self.engine.clone(), self.slots.clone(), self.memory.clone());
        let expectations = Arc::new(Expectations::new());
        Ok(Component { engine, linked, grants, slots, own_slots, memory, expectations })
    }

    /// Compiles a component before its first use. Returns the cache entry of its machine code, or
    /// `None` if there is no cache.
    ///
    /// # Errors
    ///
    /// When the bytes are not a component that compiles.
    pub fn compile_ahead(&self, name: &str, bytes: &[u8]) -> Result<Option<CachedCode>, LoadError> {
        self.compile(name, bytes).map(|(_, cached)| cached)
    }

    /// Path of the cached machine code of these bytes, if they are cached.
    pub fn cached_code(&self, bytes: &[u8]) -> Option<PathBuf> {
        let entry = Entry::new(self.compiled_folder.as_deref()?, &self.engine, bytes);
        Some(entry.path().to_owned()).filter(|path| path.is_file())
    }

    /// Compiles, or reads from the cache. A cache that fails costs a warning and the time to
    /// compile, not the component.
    fn compile(&self, name: &str, bytes: &[u8]) -> Result<(Compiled, Option<CachedCode>), LoadError> {
        let entry = self.compiled_folder.as_deref().map(|folder| Entry::new(folder, &self.engine, bytes));
        if let Some(entry) = &entry {
            let path = entry.path().to_owned();
            match entry.open(&self.engine) {
                Ok(Some((compiled, bytes))) => {
                    return Ok((compiled, Some(CachedCode { path, bytes, reused: true })));
                }
                Ok(None) => {}
                Err(reason) => {
                    tracing::warn!(
                        component = name,
                        "`{}` {reason}; recompiling the component",
                        path.display()
                    );
                }
            }
        }
        let compiled = interruptible(bytes).and_then(|changed| {
            Compiled::from_binary(&self.engine, &changed).map_err(|error| format!("{error:#}"))
        });
        let compiled = compiled.map_err(|reason| {
            // The error message describes the bytes of the file, not the changed ones.
            let message = Compiled::from_binary(&self.engine, bytes).err();
            let message = message.map_or(reason, |error| explain(bytes, &error));
            LoadError::Compile { component: name.to_owned(), message }
        })?;
        let Some(entry) = entry else { return Ok((compiled, None)) };
        let path = entry.path().to_owned();
        let cached = match entry.write(&compiled) {
            Ok(bytes) => Some(CachedCode { path, bytes, reused: false }),
            Err(error) => {
                let shown = path.display();
                tracing::warn!(
                    component = name,
                    "cannot write `{shown}`: {error}; the component will be recompiled at the next start"
                );
                None
            }
        };
        Ok((compiled, cached))
    }

    /// Checks that the component imports only interfaces that every guest may use, and `beside`.
    fn check_imports(&self, name: &str, compiled: &Compiled, beside: &[&str]) -> Result<(), LoadError> {
        const GRANTED: [&str; 3] = ["wasi:nn/", "wasi:config/store@", "infer:guest/"];
        let ty = compiled.component_type();
        let is_granted =
            |import: &str| GRANTED.iter().chain(beside).any(|granted| import.starts_with(granted));
        let imports = names(ty.imports(&self.engine).map(|(name, _)| name).filter(|name| !is_granted(name)));
        if imports.is_empty() {
            return Ok(());
        }
        Err(LoadError::Import { component: name.to_owned(), imports })
    }
}

fn link(pre: InstancePre<State>) -> Option<Linked> {
    if let Ok(pre) = ModeratorPre::new(pre.clone()) {
        return Some(Linked::Moderator(pre));
    }
    if let Ok(pre) = ClassifierPre::new(pre.clone()) {
        return Some(Linked::Classifier(pre));
    }
    PredictorPre::new(pre).ok().map(Linked::Predictor)
}

fn explain(bytes: &[u8], error: &wasmtime::Error) -> String {
    // Magic number, then version and layer: 1 is a core module, 0x1000d a component.
    match bytes {
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => {
            "the file is a core module; convert it to a component first (`make guests` or `wasm-tools component new`)"
                .to_owned()
        }
        [0, b'a', b's', b'm', ..] => format!("{error:#}"),
        _ => "the file does not start with the WebAssembly magic number".to_owned(),
    }
}
