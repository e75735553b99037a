//! `GET /v1/models` and `GET /v1/models/NAME`: loaded models and components, and models of
//! upstreams, in OpenAI's format with additional members.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use infer_engine::Format;
use serde::Serialize;
use utoipa::ToSchema;

use super::context::{Caller, RequestContext};
use super::document::RouteDoc;
use crate::error::{ApiError, Envelope};

/// Loaded models and components.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelList)]
pub(super) struct List {
    object: &'static str,
    data: Vec<Entry>,
}

/// A model or a component.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelEntry)]
pub(super) struct Entry {
    id: String,
    object: &'static str,
    /// OpenAI's clients require a time; models here have a hash instead.
    created: u64,
    owned_by: &'static str,
    #[serde(flatten)]
    facts: Facts,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ModelFacts)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Facts {
    Model {
        task: String,
        format: String,
        license: String,
        backend: &'static str,
        hash: String,
        /// The weights are random: answers of the model have no meaning.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        dummy: bool,
    },
    Component {
        world: String,
        route: Option<String>,
        models: Vec<String>,
        hash: String,
    },
    /// A language model of another server.
    Upstream {
        /// Name of the server in infer.toml.
        upstream: String,
    },
}

pub(super) fn openapi_list() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("Loaded models and components that the API key permits")
        .json_response::<List>(StatusCode::OK, "the list")
}

pub(super) fn openapi_one() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("A model or a component")
        .path_parameter("model", "name in infer.toml")
        .json_response::<Entry>(StatusCode::OK, "the model or component is loaded")
        .errors(&[400, 404])
}

/// Lists the models and components that the key permits.
pub(super) async fn list(
    State(context): State<Arc<RequestContext>>,
    caller: Option<Extension<Caller>>,
) -> Json<List> {
    Json(List { object: "list", data: entries(&context, caller) })
}

/// Returns one of them.
pub(super) async fn one(
    State(context): State<Arc<RequestContext>>,
    caller: Option<Extension<Caller>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Entry>, ApiError> {
    let Path(name) = name?;
    let mut entries = entries(&context, caller);
    let Some(index) = entries.iter().position(|entry| entry.id == name) else {
        let known: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
        return Err(ApiError::no_model(&name, &known, "no model is configured for this caller"));
    };
    Ok(Json(entries.swap_remove(index)))
}

fn entries(context: &RequestContext, caller: Option<Extension<Caller>>) -> Vec<Entry> {
    let registry = &context.registry;
    let key = caller.and_then(|Extension(caller)| caller.0);
    let may_ask = |name: &str| key.as_ref().is_none_or(|key| key.may_ask(name));
    let models = registry.models.values().filter(|model| may_ask(model.name())).map(|model| {
        let card = model.card();
        let facts = Facts::Model {
            task: card.task.to_string(),
            format: card.format.to_string(),
            license: card.license.clone(),
            backend: if card.format == Format::Gguf { "infer" } else { registry.runtime.backend() },
            hash: model.hash().to_owned(),
            dummy: model.is_dummy(),
        };
        (model.name().to_owned(), facts)
    });
    let may_use = |name: &str| key.as_ref().is_none_or(|key| key.may_use(name));
    let components =
        registry.components.values().filter(|loaded| may_use(loaded.component.name())).map(|loaded| {
            let component = &loaded.component;
            let facts = Facts::Component {
                world: component.world().to_string(),
                route: loaded.route.clone(),
                models: component.models().values().map(|model| model.name().to_owned()).collect(),
                hash: loaded.hash.clone(),
            };
            (component.name().to_owned(), facts)
        });
    let entry = |(id, facts)| Entry { id, object: "model", created: 0, owned_by: "infer", facts };
    let remote = context.upstreams.models().filter(|(name, _)| may_ask(name));
    let remote = remote
        .map(|(name, upstream)| (name.to_owned(), Facts::Upstream { upstream: upstream.name.to_string() }));
    models.chain(components).chain(remote).map(entry).collect()
}
