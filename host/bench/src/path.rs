//! Paths of requests: the model itself, a sandboxed guest, or a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use infer_control::registry::LoadedComponent;
use infer_engine::{Answer, Model, Output, Request, Session, Tensor};
use infer_sandbox::Component;
use infer_sandbox::types::{NamedTensor, Part};

use crate::answer::{self, Reply};
use crate::args::{BenchTask, PrefixCache};
use crate::client::Client;
use crate::item::Item;
use crate::limits::MAX_REQUEST_TIME;
use crate::stats::Stages;
use crate::work::Work;
use crate::{sample, work};

/// Component name of the measured requests in the engine. The prefix cache is per component.
pub(super) const COMPONENT: &str = "bench";

/// The path of a row's requests.
pub(super) struct Path {
    pub(super) path_kind: PathKind,
    pub(super) work: Arc<Work>,
    pub(super) prefix_cache: PrefixCache,
    /// Index of the row's first request, so that rows do not repeat each other's inputs.
    pub(super) first: u64,
    pub(super) turn: AtomicU64,
}

/// The paths to a model.
#[derive(Clone)]
pub(super) enum PathKind {
    /// The engine, without a sandbox.
    Native(Arc<Model>),
    /// A fresh guest instance for each request.
    Sandbox { loaded: Arc<LoadedComponent>, model: Arc<str> },
    /// A server.
    Http(Arc<Client>),
}

/// A request that is ready to be sent.
pub(super) enum Prepared {
    Language { model: Arc<Model>, request: Request, session: Session },
    Tensors { model: Arc<Model>, inputs: Vec<(String, Tensor)> },
    Guest { loaded: Arc<LoadedComponent>, model: Arc<str>, twin: Option<String>, input: GuestInput },
    Http { client: Arc<Client>, request: crate::client::Request },
}

/// The input of a guest, for each world.
pub(super) enum GuestInput {
    Moderate(Vec<Part>),
    Classify(Arc<[u8]>),
    Predict(Arc<Vec<NamedTensor>>),
}

impl Path {
    /// Name of the path in reports.
    pub(super) fn name(&self) -> &'static str {
        match self.path_kind {
            PathKind::Native(_) => "native",
            PathKind::Sandbox { .. } => "sandbox",
            PathKind::Http(_) => "http",
        }
    }

    pub(super) fn begin_turn(&self) {
        self.turn.fetch_add(1, Ordering::Relaxed);
    }

    /// The request number `index` of the row.
    pub(super) fn request(&self, index: u64) -> Prepared {
        let identity = match self.prefix_cache {
            PrefixCache::On => None,
            PrefixCache::Off => Some(format!("{COMPONENT} {}", self.first + index)),
            PrefixCache::Cold => {
                Some(format!("{COMPONENT} {} turn {}", self.first, self.turn.load(Ordering::Relaxed)))
            }
        };
        self.prepare(self.work.item(self.first + index), identity)
    }

    /// Prepares the request for `item`, as the component `identity` if given. Prefixes are cached
    /// per component, so a new name starts with an empty cache.
    pub(super) fn prepare(&self, item: Item, identity: Option<String>) -> Prepared {
        match (&self.path_kind, item) {
            (PathKind::Native(model), Item::Tensors(inputs)) => {
                Prepared::Tensors { model: model.clone(), inputs: inputs.native.clone() }
            }
            (PathKind::Native(model), Item::Text(text)) if model.card().takes_texts() => {
                Prepared::Tensors { model: model.clone(), inputs: vec![sample::text(&text)] }
            }
            (PathKind::Native(model), item) if model.language().is_some() => {
                let session = Session::new(&Arc::from(identity.as_deref().unwrap_or(COMPONENT)));
                Prepared::Language { model: model.clone(), request: work::request(item), session }
            }
            // The native row of a classifier runs the model alone, on prepared tensors.
            (PathKind::Native(model), _) => {
                Prepared::Tensors { model: model.clone(), inputs: self.work.ready_tensors() }
            }
            (PathKind::Sandbox { loaded, model }, item) => {
                let input = match (self.work.task, item) {
                    (BenchTask::Moderate, Item::Text(text)) => GuestInput::Moderate(vec![Part::Text(text)]),
                    (BenchTask::Moderate, Item::Image(image)) => {
                        GuestInput::Moderate(vec![Part::Image(image.to_vec())])
                    }
                    (BenchTask::Classify, Item::Image(image)) => GuestInput::Classify(image),
                    (_, Item::Tensors(inputs)) => GuestInput::Predict(inputs.guest.clone()),
                    (_, item) => GuestInput::Predict(Arc::new(work::tensors(work::request(item)))),
                };
                Prepared::Guest { loaded: loaded.clone(), model: model.clone(), twin: identity, input }
            }
            (PathKind::Http(client), item) => Prepared::Http {
                client: client.clone(),
                request: client.request(work::body(self.work.task, item)),
            },
        }
    }

    /// Sends `request` and waits for the answer, at most [`MAX_REQUEST_TIME`].
    ///
    /// # Errors
    ///
    /// A one-line message if the request fails.
    pub(super) async fn ask(&self, request: Prepared) -> Result<Reply, String> {
        let deadline = Instant::now() + MAX_REQUEST_TIME;
        match request {
            Prepared::Language { model, request, mut session } => {
                let language = model.language().ok_or("the model is not a language model")?;
                let answer = language.run(&mut session, request, None, deadline).await;
                let Answer { output, usage, queue, compute, batch } =
                    answer.map_err(|error| error.to_string())?;
                let stages = Stages { queue, compute, instance: None, batch: Some(batch), tokens: usage };
                let said = match output {
                    Output::Scores(logprobs) => Some(answer::Said::logprobs(&logprobs)),
                    Output::Text { .. } => None,
                };
                Ok(Reply { stages, said })
            }
            Prepared::Tensors { model, inputs } => {
                let reply = model.run(inputs, deadline).await.map_err(|error| error.to_string())?;
                let (queue, compute, batch) = (reply.queue, reply.compute, Some(reply.batch));
                let tokens = reply.usage.unwrap_or_default();
                let scores = reply.outputs.iter().find(|(name, _)| name == "scores");
                let scores = scores.and_then(|(_, tensor)| tensor.to_vec::<f32>().ok());
                let said = scores.and_then(|scores| answer::Said::scores(model.card(), &scores));
                Ok(Reply { stages: Stages { queue, compute, instance: None, batch, tokens }, said })
            }
            Prepared::Guest { loaded, model, twin, input } => {
                let renamed = twin.map(|name| loaded.component.renamed(&name));
                guest(renamed.as_ref().unwrap_or(&loaded.component), &model, &input, deadline).await
            }
            Prepared::Http { client, request } => {
                let body = client.send(request, deadline).await?;
                answer::of_server(self.work.task, &body)
            }
        }
    }
}

async fn guest(
    component: &Component,
    model: &str,
    input: &GuestInput,
    deadline: Instant,
) -> Result<Reply, String> {
    let request = infer_sandbox::Request::new(COMPONENT.into(), deadline);
    let (usage, said) = match input {
        GuestInput::Moderate(parts) => {
            let outcome = component.moderate(&request, parts).await;
            (outcome.usage, outcome.result.map(|verdict| Some(answer::Said::verdict(&verdict))))
        }
        GuestInput::Classify(image) => {
            let outcome = component.classify(&request, image, 1).await;
            (outcome.usage, outcome.result.map(|labels| answer::Said::labels(&labels)))
        }
        GuestInput::Predict(inputs) => {
            let outcome = component.predict(&request, model, inputs).await;
            let card = component.models().get(model).map(|model| model.card());
            let said = |outputs: Vec<NamedTensor>| answer::Said::tensors(card?, &outputs);
            (outcome.usage, outcome.result.map(said))
        }
    };
    Ok(Reply { stages: Stages::from(&usage), said: said.map_err(|error| error.to_string())? })
}
