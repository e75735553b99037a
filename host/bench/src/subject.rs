//! The subject of a measurement: found, loaded, with the paths to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use infer_config::lock::Lock;
use infer_config::{ComponentConfig, Config, ModelConfig, Place};
use infer_control::component::component_bytes;
use infer_control::registry::{LoadedComponent, Registry};
use infer_engine::text::names;
use infer_engine::{Model, Task};
use infer_models::dummy::Mix;
use infer_models::source::Source;
use infer_models::{builtin, weights};
use infer_sandbox::{HttpOptions, Limits, World};
use infer_server::serve::Listeners;
use infer_server::service::Service;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::args::{Bench, BenchTask, PrefixCache, Server, Target};
use crate::client::Client;
use crate::limits::MAX_REQUEST_TIME;
use crate::path::{COMPONENT, PathKind};
use crate::report::Subject as Facts;
use crate::work;

/// Time limit for a server to list its models.
const INTRODUCTION: Duration = Duration::from_secs(5);

/// The subject of a measurement.
pub(super) struct Subject {
    pub(super) task: BenchTask,
    pub(super) facts: Option<Facts>,
    pub(super) dummy: bool,
    /// True if native and sandbox do the same work, so that their difference is the sandbox's cost.
    pub(super) same_work: bool,
    /// True if images are moderated.
    pub(super) of_images: bool,
    /// Paths in the order of the rows; at least one.
    pub(super) path_kinds: Vec<PathKind>,
    /// `None` if a server is measured.
    pub(super) registry: Option<Arc<Registry>>,
    pub(super) model: Option<Arc<Model>>,
    /// The server of the http row, in this process; dropping this stops it.
    _server: Option<oneshot::Sender<()>>,
}

/// Finds and loads the subject that `arguments` name.
///
/// # Errors
///
/// If it does not exist, cannot be loaded, or does not fit the other arguments.
pub(super) async fn load(config: Config, arguments: &Bench) -> anyhow::Result<Subject> {
    match &arguments.target {
        Target::Inproc => inproc(config, arguments).await,
        Target::Server(server) => running(server, arguments).await,
    }
}

async fn inproc(mut config: Config, arguments: &Bench) -> anyhow::Result<Subject> {
    let began = Instant::now();
    let max = arguments.concurrency.iter().copied().max().unwrap_or(1);
    config.sandbox.instances = config.sandbox.instances.max(max);
    config.server.deadline = MAX_REQUEST_TIME;
    // A benchmark measures speed, so requests are not rejected for their time in the queue.
    config.server.queue_time = MAX_REQUEST_TIME;
    config.server.rate_per_ip = None;
    config.server.body_memory_bytes = usize::MAX;
    config.server.connections.max_per_ip = usize::MAX;
    config.server.connections.max_connections = usize::MAX;
    config.keys.clear();
    let mut quantization = None;
    let (component, requested) = match &arguments.component {
        Some(name) => {
            let known = names(config.components.keys());
            ensure!(
                config.components.contains_key(name),
                "no component `{name}` in {}; expected one of {known}",
                config.origin
            );
            config.retain_components(|component| component == name);
            (name.clone(), None)
        }
        None => {
            let name = model_name(arguments)?;
            config.lock = config.lock.map(Lock::of_models);
            let model = match config.models.remove(&name) {
                Some(model) => model,
                None => {
                    config.lock = None;
                    let (source, options, reuse) = infer_control::loader::find_model(&config, &name)?;
                    ModelConfig::new(Place::of(config.origin.clone()), source, options, reuse)
                }
            };
            let listed = model.list().with_context(|| format!("model `{name}`"))?;
            let task = task_of_model(arguments.task, listed.card.task, &name)?;
            quantization = listed.weight_types;
            let component = component(&model, &name, task, listed.card.task);
            config.models = [(name.clone(), model)].into();
            config.components = [(COMPONENT.to_owned(), component)].into();
            (COMPONENT.to_owned(), Some((name, task)))
        }
    };
    let registry =
        tokio::task::spawn_blocking(|| Registry::load(config)).await.context("loading ended")??;
    let registry = Arc::new(registry);
    let load_ms = began.elapsed().as_secs_f64() * 1e3;
    let loaded = registry.components[&component].clone();
    let task = match &requested {
        Some((_, task)) => *task,
        None => task_of_component(arguments.task, &loaded)?,
    };
    let models = loaded.component.models();
    let language = models.values().find(|model| model.language().is_some());
    let (alias, model) = models
        .iter()
        .find(|(_, model)| language.is_none_or(|language| Arc::ptr_eq(language, model)))
        .map(|(alias, model)| (alias.as_str(), model.clone()))
        .with_context(|| format!("component `{component}` has no model; give it one under `models`"))?;

    let mut path_kinds = Vec::new();
    if requested.is_some() {
        path_kinds.push(PathKind::Native(model.clone()));
    }
    let mut server = None;
    if !arguments.native {
        path_kinds.push(PathKind::Sandbox { loaded: loaded.clone(), model: alias.into() });
        let routed = matches!(task, BenchTask::Moderate | BenchTask::Classify);
        if let (Some(route), true, PrefixCache::On) = (&loaded.route, routed, arguments.prefix_cache) {
            let (authority, stop) = serve(&registry).await?;
            path_kinds.push(PathKind::Http(Arc::new(Client::new(&authority, route))));
            server = Some(stop);
        }
    }
    let backend = match model.language() {
        Some(language) => language.instruction_set(),
        None => registry.runtime.backend(),
    };
    let capacity = model.capacity();
    let facts = Facts {
        name: model.name().to_owned(),
        hash: model.hash().to_owned(),
        component: arguments.component.clone(),
        backend: backend.to_owned(),
        quantization,
        sessions: Some(capacity.sessions),
        threads: Some(capacity.threads),
        solo_threads: capacity.solo_threads,
        load_ms: Some(load_ms),
    };
    Ok(Subject {
        task,
        facts: Some(facts),
        dummy: models.values().any(|model| model.is_dummy()),
        same_work: model.language().is_some() || task == BenchTask::Tensor,
        of_images: models.values().all(|model| model.card().task == Task::ImageClassification),
        path_kinds,
        registry: Some(registry.clone()),
        model: Some(model),
        _server: server,
    })
}

/// The named model. With --dummy, the random model of its kind, which is written if it is missing.
fn model_name(arguments: &Bench) -> anyhow::Result<String> {
    let named = arguments.model.as_deref();
    if !arguments.dummy {
        return Ok(named.unwrap_or_default().to_owned());
    }
    let known = [None, Some("phi3"), Some(builtin::PHI3_DUMMY)];
    ensure!(
        known.contains(&named),
        "`--dummy` supports only `phi3`, found `--model {}`; remove one of the two",
        named.unwrap_or_default()
    );
    if !weights::exists(builtin::PHI3_DUMMY) {
        infer_models::dummy::builtin_phi3(Mix::Q4KM, 1)?;
    }
    Ok(builtin::PHI3_DUMMY.to_owned())
}

fn task_of_model(requested: Option<BenchTask>, model: Task, name: &str) -> anyhow::Result<BenchTask> {
    use BenchTask::{Classify, Generate, Moderate, Score, Tensor};
    let fitting: &[BenchTask] = match model {
        Task::TextGeneration => &[Moderate, Score, Generate],
        Task::TextClassification | Task::TokenClassification => &[Tensor, Moderate],
        Task::TextEmbedding | Task::TextDetection | Task::TextRecognition => &[Tensor],
        Task::ImageClassification => &[Tensor, Moderate, Classify],
    };
    let task = requested.unwrap_or(fitting[0]);
    ensure!(
        fitting.contains(&task),
        "`--task {task}`: model `{name}` is for {model}, which supports the tasks {}",
        names(fitting)
    );
    Ok(task)
}

fn task_of_component(requested: Option<BenchTask>, loaded: &LoadedComponent) -> anyhow::Result<BenchTask> {
    let component = &loaded.component;
    let language = component.models().values().any(|model| model.is_language());
    let fitting: &[BenchTask] = match component.world() {
        World::Moderator => &[BenchTask::Moderate],
        World::Classifier => &[BenchTask::Classify],
        World::Predictor if language => &[BenchTask::Score, BenchTask::Generate],
        World::Predictor => &[BenchTask::Tensor],
        World::Handler => bail!(
            "component `{}` is a handler, whose requests are specific to its clients; expected a moderator, a classifier or a predictor",
            component.name()
        ),
    };
    let task = requested.unwrap_or(fitting[0]);
    ensure!(
        fitting.contains(&task),
        "`--task {task}`: component `{}` is a {}, which supports the tasks {}",
        component.name(),
        component.world(),
        names(fitting)
    );
    Ok(task)
}

/// The component for measuring a model that was named without one.
fn component(model: &ModelConfig, name: &str, task: BenchTask, kind: Task) -> ComponentConfig {
    let guest = match task {
        BenchTask::Moderate => "moderate",
        BenchTask::Classify => "classify",
        BenchTask::Score | BenchTask::Generate | BenchTask::Tensor => "predict",
    };
    let alias = match (guest, kind) {
        ("predict", _) => "model",
        (_, Task::TextGeneration) => "language",
        (_, Task::TextClassification | Task::TokenClassification | Task::TextEmbedding) => "text",
        (_, Task::ImageClassification | Task::TextDetection | Task::TextRecognition) => "image",
    };
    let mut settings = BTreeMap::new();
    if kind == Task::TextGeneration {
        settings.insert("policy.text".to_owned(), work::POLICY.to_owned());
    }
    ComponentConfig {
        at: model.at.clone(),
        source: Source::Builtin(guest.to_owned()),
        route: (guest != "predict").then(|| format!("/{guest}")),
        models: [(alias.to_owned(), name.to_owned())].into(),
        settings,
        thresholds: None,
        // A measured model may be slower than the default limits permit.
        limits: Limits { compute_time: MAX_REQUEST_TIME, ..Limits::default() },
        http: HttpOptions::default(),
        tests: Vec::new(),
    }
}

/// Serves `registry` on a free local port.
async fn serve(registry: &Arc<Registry>) -> anyhow::Result<(String, oneshot::Sender<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
    let authority = listener.local_addr().context("the listener has no address")?.to_string();
    let (stop, stopped) = oneshot::channel();
    let listeners = Listeners::from(listener);
    let service = Service::new(registry.clone(), listeners.admin_address(), None);
    tokio::spawn(infer_server::serve::run(service, listeners, async {
        let _ = stopped.await;
    }));
    Ok((authority, stop))
}

async fn running(server: &Server, arguments: &Bench) -> anyhow::Result<Subject> {
    let target = &arguments.target;
    let local = [
        ("--model", arguments.model.is_some()),
        ("--native", arguments.native),
        ("--cold", arguments.cold),
        ("--dummy", arguments.dummy),
        ("--prefix-cache", arguments.prefix_cache != PrefixCache::On),
    ];
    if let Some((flag, _)) = local.iter().find(|(_, is_set)| *is_set) {
        bail!(
            "`{flag}` applies to models of this process, not to `--target {target}`; remove one of the two"
        );
    }
    let deadline = Instant::now() + INTRODUCTION;
    let introduced = Client::new(&server.authority, "/").get("/v1/models", deadline).await;
    // A server of another kind may not list models. A server that is unreachable is reported here,
    // not by a thousand errors.
    let listed = match introduced {
        Ok(listed) => listed,
        Err(why) if why.starts_with(char::is_numeric) || why.contains("JSON") => Value::Null,
        Err(why) => bail!("`{target}`: {why}"),
    };
    let entries = listed["data"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_world = |entry: &Value| match entry["world"].as_str() {
        Some("moderator") => Some(BenchTask::Moderate),
        Some("classifier") => Some(BenchTask::Classify),
        _ => None,
    };
    let chosen = entries.iter().filter(|entry| entry["route"].is_string()).find(|entry| {
        let named = arguments.component.as_deref().is_none_or(|name| entry["id"] == name);
        let typed = server.path.as_deref().map(|path| path.split('?').next().unwrap_or(path));
        let at = typed.is_none_or(|path| entry["route"] == path);
        let able = match arguments.task {
            Some(task) => of_world(entry) == Some(task),
            None => {
                arguments.component.is_some()
                    || typed.is_some()
                    || of_world(entry) == Some(BenchTask::Moderate)
            }
        };
        named && at && able
    });
    if let (Some(name), None) = (&arguments.component, chosen) {
        let known = entries
            .iter()
            .filter(|entry| entry["route"].is_string())
            .filter_map(|entry| entry["id"].as_str());
        bail!("`{target}` serves no component `{name}`; expected one of {}", names(known));
    }
    let task = arguments.task.or_else(|| of_world(chosen?)).unwrap_or(BenchTask::Moderate);
    ensure!(
        matches!(task, BenchTask::Moderate | BenchTask::Classify),
        "`--task {task}`: a server has no route for it; measure it with `--target inproc`"
    );
    let path = server
        .path
        .clone()
        .or_else(|| Some(chosen?["route"].as_str()?.to_owned()))
        .unwrap_or_else(|| format!("/{task}"));
    let model = chosen.and_then(|component| {
        let used: Vec<_> = component["models"].as_array()?.iter().collect();
        let of = |entry: &&Value| entry["kind"] == "model" && used.contains(&&entry["id"]);
        let models = || entries.iter().filter(of);
        models().find(|entry| entry["task"] == "text-generation").or_else(|| models().next())
    });
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    let facts = model.map(|model| Facts {
        name: text(&model["id"]),
        hash: text(&model["hash"]),
        component: chosen.map(|component| text(&component["id"])),
        backend: text(&model["backend"]),
        quantization: None,
        sessions: None,
        threads: None,
        solo_threads: None,
        load_ms: None,
    });
    Ok(Subject {
        task,
        dummy: entries.iter().any(|entry| entry["dummy"] == true),
        of_images: model.is_some_and(|model| model["task"] == "image-classification"),
        facts,
        same_work: false,
        path_kinds: vec![PathKind::Http(Arc::new(Client::new(&server.authority, &path)))],
        registry: None,
        model: None,
        _server: None,
    })
}

/// The bytes of the guest that sandbox rows instantiate.
///
/// # Errors
///
/// If its file can no longer be read.
pub(super) fn guest_bytes(registry: &Registry, loaded: &LoadedComponent) -> anyhow::Result<Vec<u8>> {
    let config = registry.config.components.get(loaded.component.name());
    let source = &config.context("the component is configured")?.source;
    Ok(component_bytes(loaded.component.name(), source)?.into_owned())
}
