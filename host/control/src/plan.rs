//! Predicts the memory that a configuration needs before anything is loaded, and checks it against
//! `memory_bytes`.
//!
//! Each part has two figures: its expected size under load, measured as in tests/plan.rs, and its
//! maximum. The maxima of all parts that do not depend on requests have to fit into `memory_bytes`.
//! The remainder is the request memory budget, which the sandbox enforces
//! ([`infer_sandbox::RequestMemory`]).

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use infer_config::{Config, ConfigError, Mistake, ModelConfig, Next, Trial};
use infer_engine::{Footprint, Format, Loading, MAX_SHADOW_BYTES, Need, Runtime};
use infer_models::source::Source;
use infer_models::weights;
use infer_models::weights::{Reuse, State};
use infer_sandbox::{INSTANCE_BYTES, Sandbox};
use serde::Serialize;

use crate::component::component_bytes;

/// Measured on Linux x86-64 as the difference in resident bytes of a server with a part and without
/// it. `make plan` compares their sum with real servers under load.
mod measured {
    /// The program without models and components: its code, its threads, the tables of the
    /// WebAssembly engine.
    pub(super) const PROGRAM: u64 = 27 << 20;
    /// ONNX Runtime 1.32: its environment and its operators' tables.
    pub(super) const ONNXRUNTIME: u64 = 21 << 20;
    /// Pages of ONNX Runtime's code that are touched once a model runs.
    pub(super) const OPERATORS: u64 = 8 << 20;
    /// Pages of the program's code that are touched once there is a component.
    pub(super) const GUESTS: u64 = 5 << 20;
    /// Compiled machine code and its tables, as a multiple of a component's size.
    pub(super) const MACHINE_CODE: f64 = 2.5;
    /// Peak memory of the compiler, as a multiple of the largest component that has to be compiled.
    /// Later requests reuse it.
    pub(super) const COMPILER: f64 = 60.0;
    /// Memory and stacks that one instance touches with a text of a few hundred bytes.
    pub(super) const INSTANCE: u64 = 640 << 10;
    /// Additional memory of an instance that decodes an image: the average of 32 that decode photos
    /// of 640 × 427 pixels concurrently.
    pub(super) const IMAGE: u64 = 1 << 20;
}

/// Predicted memory of a configuration.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The parts; `bytes` is their sum.
    pub parts: Vec<Part>,
    /// Expected bytes of all parts under load.
    pub bytes: u64,
    /// Maximum bytes of all parts but requests.
    pub standing_bytes: u64,
    /// Maximum bytes of one request, by its component's limits and `max_body_bytes`.
    pub request_bytes: u64,
    /// The configured `memory_bytes`.
    pub contract_bytes: Option<u64>,
}

/// One part of the predicted memory.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// Its owner: `program`, `model NAME`, `component NAME`, `instances`, `requests`.
    pub subject: String,
    /// A short description.
    #[serde(rename = "what")]
    pub label: String,
    /// Expected bytes under load.
    pub bytes: u64,
    /// Maximum bytes.
    #[serde(rename = "most_bytes")]
    pub max_bytes: u64,
    /// True for mapped files, whose pages are shared between processes and can be evicted by the
    /// system.
    pub mapped: bool,
}

impl Plan {
    /// Predicts the memory of `config` on the backend of `runtime`. Of model files only the header
    /// of a GGUF is read.
    ///
    /// # Errors
    ///
    /// If a model's card or file cannot be read.
    pub fn of(config: &Config, runtime: &Runtime) -> anyhow::Result<Self> {
        let mut plan = Plan {
            parts: Vec::new(),
            bytes: 0,
            standing_bytes: 0,
            request_bytes: 0,
            contract_bytes: config.server.memory.as_ref().map(|contract| contract.bytes as u64),
        };
        plan.push("program", "code, threads, engine", measured::PROGRAM);
        if runtime.backend() != "rten" {
            let runs_onnx = |model: &ModelConfig| {
                weights::list(&model.source).is_ok_and(|listed| listed.card.format == Format::Onnx)
            };
            let used = if config.models.values().any(runs_onnx) { measured::OPERATORS } else { 0 };
            plan.push("program", "ONNX Runtime", measured::ONNXRUNTIME + used);
        }
        let tensors = config.components.values().map(|component| component.limits.tensor_bytes).max();
        let job_bytes = config.server.max_body_bytes.max(tensors.unwrap_or(0)) as u64;
        for (name, model) in &config.models {
            plan.model(runtime, name, model, job_bytes)
                .with_context(|| format!("{}: model `{name}`", model.at))?;
            let Some(next) = model.next_version() else { continue };
            let subject = format!("{name} next");
            plan.model(runtime, &subject, &next, job_bytes)
                .with_context(|| format!("{}: model `{name}`: `next`", next.at))?;
            if matches!(&model.next, Some(Next { trial: Trial::Shadow { .. }, .. })) {
                let (subject, label) = (format!("model {subject}"), "queued comparisons".to_owned());
                let max_bytes = MAX_SHADOW_BYTES as u64;
                plan.parts.push(Part { subject, label, bytes: 0, max_bytes, mapped: false });
            }
        }
        plan.components(config)?;
        plan.standing_bytes = plan.parts.iter().map(|part| part.max_bytes).fold(0, u64::saturating_add);
        plan.requests(config);
        plan.bytes = plan.parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add);
        Ok(plan)
    }

    fn push(&mut self, subject: &str, label: &str, bytes: u64) {
        let (subject, label) = (subject.to_owned(), label.to_owned());
        self.parts.push(Part { subject, label, bytes, max_bytes: bytes, mapped: false });
    }

    fn model(
        &mut self,
        runtime: &Runtime,
        name: &str,
        model: &ModelConfig,
        job_bytes: u64,
    ) -> anyhow::Result<()> {
        let listed = weights::list(&model.source)?;
        let file = file(&model.source, &listed.card.model_file().path);
        let is_there = file.as_ref().is_none_or(|file| file.is_file()) && listed.state == State::Ready;
        let subject = format!("model {name}");
        if listed.card.format == Format::Gguf && !is_there {
            // Without the header, assume that packed weights are about as large as the file.
            let bytes = listed.card.files.iter().map(|file| file.bytes).sum();
            self.push(&subject, "not pulled: size from its card", bytes);
            self.push(&subject, "keys and values", model.options.kv_bytes.unwrap_or(384 << 20) as u64);
            return Ok(());
        }
        let loading = Loading {
            name,
            options: &model.options,
            file: file.as_deref(),
            caches_packed: model.reuse != Reuse::Off,
            job_bytes,
        };
        for need in Footprint::predict(runtime, &listed.card, &loading)?.needs {
            let Need { label, bytes, max_bytes, is_mapped: mapped } = need;
            self.parts.push(Part {
                subject: subject.clone(),
                label: label.to_owned(),
                bytes,
                max_bytes,
                mapped,
            });
        }
        Ok(())
    }

    fn components(&mut self, config: &Config) -> anyhow::Result<()> {
        if config.components.is_empty() {
            return Ok(());
        }
        self.push("program", "code that runs guests", measured::GUESTS);
        let sandbox = Sandbox::new(&config.sandbox)?;
        let mut compiler = 0;
        for (name, component) in &config.components {
            let bytes = component_bytes(name, &component.source).with_context(|| component.at.to_string())?;
            let of = |factor: f64| (factor * bytes.len() as f64) as u64;
            let cached =
                sandbox.cached_code(&bytes).and_then(|path| fs::metadata(path).ok()).map(|found| found.len());
            // The code is read, verified and then copied to its final place, so it counts twice.
            let code = 2 * cached.unwrap_or_else(|| of(measured::MACHINE_CODE)) + bytes.len() as u64;
            self.push(&format!("component {name}"), "machine code and file", code);
            if cached.is_none() {
                compiler = compiler.max(of(measured::COMPILER));
            }
        }
        if compiler > 0 {
            self.push("components", "compilation, once; see `infer compile`", compiler);
        }
        let instances = u64::from(config.sandbox.instances);
        let looks_at_images =
            |name: &String| config.models.get(name).is_some_and(|model| has_image(&model.source));
        let images =
            config.components.values().any(|component| component.models.values().any(looks_at_images));
        let each = measured::INSTANCE + if images { measured::IMAGE } else { 0 };
        let (subject, label) = ("instances".to_owned(), format!("{instances} × {} KiB", each >> 10));
        let max_bytes = instances * (INSTANCE_BYTES as u64).max(each);
        self.parts.push(Part { subject, label, bytes: instances * each, max_bytes, mapped: false });
        Ok(())
    }

    /// Adds the memory of requests beyond their instances: expected to be negligible, at most their
    /// limits.
    fn requests(&mut self, config: &Config) {
        let body = 2 * config.server.max_body_bytes as u64;
        let limits = config.components.values().map(|component| &component.limits);
        let guest = limits.map(|limits| {
            limits.memory_bytes.saturating_sub(INSTANCE_BYTES) as u64 + limits.tensor_bytes as u64
        });
        self.request_bytes = body + guest.max().unwrap_or(0);
        let max = self.request_bytes.saturating_mul(u64::from(config.sandbox.instances));
        let left = self.contract_bytes.map(|contract| contract.saturating_sub(self.standing_bytes));
        self.parts.push(Part {
            subject: "requests".to_owned(),
            label: format!("at most {} each", mebibytes(self.request_bytes)),
            bytes: 0,
            max_bytes: left.map_or(max, |left| left.min(max)),
            mapped: false,
        });
    }

    /// Returns the request memory budget in bytes; `None` without `memory_bytes`.
    ///
    /// # Errors
    ///
    /// If the parts that do not depend on requests leave no memory for one request.
    pub fn admit(&self, config: &Config) -> Result<Option<usize>, ConfigError> {
        let Some(contract) = &config.server.memory else { return Ok(None) };
        let needed = self.standing_bytes.saturating_add(self.request_bytes);
        let bytes = contract.bytes as u64;
        if needed <= bytes {
            return Ok(Some((bytes - self.standing_bytes) as usize));
        }
        let mut parts: Vec<(String, u64)> = Vec::new();
        for part in self.parts.iter().filter(|part| part.subject != "requests") {
            match parts.last_mut().filter(|(subject, _)| *subject == part.subject) {
                Some((_, sum)) => *sum += part.max_bytes,
                None => parts.push((part.subject.clone(), part.max_bytes)),
            }
        }
        parts.push(("one request".to_owned(), self.request_bytes));
        parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
        let largest: Vec<_> =
            parts.iter().take(3).map(|(subject, bytes)| format!("{subject} {}", mebibytes(*bytes))).collect();
        let message = format!(
            "`memory_bytes` is {bytes}, and this configuration needs {needed}; the largest parts are {}; raise it, or lower {} \
             (`infer plan` lists all parts)",
            largest.join(", "),
            remedy(&parts[0].0, config)
        );
        Err(ConfigError::Mistakes(vec![Mistake { at: contract.at.clone(), message }]))
    }
}

/// Returns the request memory budget in bytes; `None` without `memory_bytes`.
///
/// # Errors
///
/// As [`Plan::of`] and [`Plan::admit`].
pub fn request_bytes(config: &Config, runtime: &Runtime) -> anyhow::Result<Option<usize>> {
    if config.server.memory.is_none() {
        return Ok(None);
    }
    Ok(Plan::of(config, runtime)?.admit(config)?)
}

/// Names the configuration keys that reduce the part `subject`.
fn remedy(subject: &str, config: &Config) -> String {
    if let Some(name) = subject.strip_prefix("model ") {
        let source = config.models.get(name).and_then(|model| weights::list(&model.source).ok());
        return match source {
            Some(listed) if listed.card.format == Format::Gguf => {
                format!("`kv_bytes` of model `{name}`, or take a smaller model")
            }
            _ => format!(
                "`sessions` and `max_batch` of model `{name}`, and `tensor_bytes` of the components that use it"
            ),
        };
    }
    match subject {
        "one request" => {
            "`max_body_bytes`, and `memory_bytes` and `tensor_bytes` of the components' limits".to_owned()
        }
        "components" => "nothing: run `infer compile` on a larger machine of the same kind".to_owned(),
        _ => "`instances`".to_owned(),
    }
}

fn has_image(source: &Source) -> bool {
    let images = |listed: weights::Listed| listed.card.inputs.iter().any(|input| input.image.is_some());
    weights::list(source).is_ok_and(images)
}

/// Path of a model's file; `None` if the program carries it.
fn file(source: &Source, file: &str) -> Option<PathBuf> {
    match source {
        Source::Path(path) if weights::is_gguf(path) => Some(path.clone()),
        Source::Path(folder) => Some(folder.join(file)),
        Source::Hub(model) => weights::folder(&model.folder()).map(|folder| folder.join(file)),
        Source::Builtin(name) => {
            let carried = infer_models::builtin::weights(name).unwrap_or_default();
            let is_carried = carried.iter().any(|(known, _)| *known == file);
            if is_carried { None } else { weights::folder(name).map(|folder| folder.join(file)) }
        }
    }
}

/// Formats bytes in MiB, with one decimal.
#[must_use]
pub fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
