//! `GET /v1/models` and `GET /v1/models/NAME`: loaded models and components, in OpenAI's format
//! with additional members.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use infer_control::registry::Registry;
use serde::Serialize;
use utoipa::ToSchema;

use super::Caller;
use super::document::RouteDoc;
use crate::error::{ApiError, Envelope};

/// Route of a single model.
pub(super) const ONE: &str = "/v1/models/{model}";

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
}

pub(super) fn openapi() -> RouteDoc {
    RouteDoc::new("What is loaded, or what of it the key reaches")
        .answers::<List>(StatusCode::OK, "all of it")
}

pub(super) fn one_doc() -> RouteDoc {
    RouteDoc::new("A model or a component")
        .segment("model", "its name in infer.toml")
        .answers::<Entry>(StatusCode::OK, "it is loaded")
        .behind_key::<Envelope<'_>>()
        .fails::<Envelope<'_>>(&[400, 404])
}

/// Lists the models and components that the key permits.
pub(super) async fn list(State(app): State<Arc<Registry>>, caller: Option<Extension<Caller>>) -> Json<List> {
    Json(List { object: "list", data: entries(&app, caller) })
}

/// Returns one of them.
pub(super) async fn one(
    State(app): State<Arc<Registry>>,
    caller: Option<Extension<Caller>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Entry>, ApiError> {
    let Path(name) = name?;
    let mut entries = entries(&app, caller);
    let Some(place) = entries.iter().position(|entry| entry.id == name) else {
        let known: Vec<_> = entries.iter().map(|entry| entry.id.as_str()).collect();
        return Err(ApiError::no_model(&name, &known, "no model is configured for this caller"));
    };
    Ok(Json(entries.swap_remove(place)))
}

fn entries(app: &Registry, caller: Option<Extension<Caller>>) -> Vec<Entry> {
    let key = caller.and_then(|Extension(caller)| caller.0);
    let listed = |name: &str| key.as_ref().is_none_or(|key| key.may_ask(name));
    let models = app.models.values().filter(|model| listed(model.name())).map(|model| {
        let card = model.card();
        let facts = Facts::Model {
            task: card.task.to_string(),
            format: card.format.to_string(),
            license: card.license.clone(),
            backend: if model.is_language() { "infer" } else { app.runtime.backend() },
            hash: model.hash().to_owned(),
            dummy: model.is_dummy(),
        };
        (model.name().to_owned(), facts)
    });
    let reached = |name: &str| key.as_ref().is_none_or(|key| key.may_use(name));
    let components =
        app.components.values().filter(|policy| reached(policy.component.name())).map(|policy| {
            let component = &policy.component;
            let facts = Facts::Component {
                world: component.world().to_string(),
                route: policy.route.clone(),
                models: component.models().values().map(|model| model.name().to_owned()).collect(),
                hash: policy.hash.clone(),
            };
            (component.name().to_owned(), facts)
        });
    let entry = |(id, facts)| Entry { id, object: "model", created: 0, owned_by: "infer", facts };
    models.chain(components).map(entry).collect()
}
