//! `GET /v1/models`: what is loaded, in the shape of OpenAI's list with our facts beside it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::Caller;
use super::document::Told;
use crate::app::App;

/// What is loaded.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelList)]
pub(super) struct List {
    object: &'static str,
    data: Vec<Entry>,
}

/// A model or a component.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelEntry)]
struct Entry {
    id: String,
    object: &'static str,
    /// OpenAI's clients require a time; a model here has a hash instead.
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
        /// The weights are random: whatever the model answers means nothing.
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

pub(super) fn told() -> Told {
    Told::new("What is loaded, or what of it the key reaches").answers::<List>(StatusCode::OK, "all of it")
}

/// All of it, or what the caller's key reaches.
pub(super) async fn list(State(app): State<Arc<App>>, caller: Option<Extension<Caller>>) -> Json<List> {
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
    Json(List { object: "list", data: models.chain(components).map(entry).collect() })
}
