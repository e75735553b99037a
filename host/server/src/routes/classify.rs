//! `POST /classify`: an image in, labels out.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use infer_control::registry::LoadedComponent;
use infer_sandbox::types::Label;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::{AdditionalProperties, KnownFormat, SchemaFormat, Type};

use super::call::Call;
use super::document::RouteDoc;
use super::form::read_image;
use super::timings::{Judges, Timings};
use crate::error::{ApiError, Envelope};
use crate::limits::MAX_LABELS;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    #[serde(default = "five")]
    top: u32,
}

fn five() -> u32 {
    5
}

/// Labels of an image.
#[derive(Serialize, ToSchema)]
#[schema(as = Classification)]
pub(super) struct Response {
    labels: Vec<Labelled>,
    infer: Facts,
}

#[derive(Serialize, ToSchema)]
struct Labelled {
    label: String,
    /// Index in the model's output.
    index: u32,
    score: f32,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ClassificationFacts)]
struct Facts {
    #[serde(flatten)]
    judges: Judges,
    /// Remarks of the component, such as the part of the image that the labels are of, if it is not
    /// the whole image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    timings: Timings,
}

pub(super) fn openapi() -> RouteDoc {
    let bytes = || {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
    };
    let form = ObjectBuilder::new().additional_properties(Some(AdditionalProperties::from(bytes())));
    let top = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(MAX_LABELS))
        .default(Some(five().into()));
    RouteDoc::new::<Envelope<'_>>("Labels of an image, the likeliest first")
        .query_parameter("top", "number of labels", top)
        .body("application/octet-stream", bytes())
        .body("image/*", bytes())
        .body("multipart/form-data", form)
        .json_response::<Response>(StatusCode::OK, "the labels")
        .errors(&[403, 415])
}

pub(super) async fn handle(
    State(loaded): State<Arc<LoadedComponent>>,
    Extension(call): Call,
    parameters: Result<Query<Parameters>, QueryRejection>,
    request: Request,
) -> Result<Json<Response>, ApiError> {
    let started = Instant::now();
    let Query(Parameters { top }) = parameters?;
    if !(1..=MAX_LABELS).contains(&top) {
        return Err(ApiError::invalid("top", format!("`top` is {top}, expected 1 to {MAX_LABELS}")));
    }
    let image = read_image(request).await?;
    let outcome = loaded.classify(&call, &image, top).await;
    let labels = outcome.result?;
    let facts = Facts {
        judges: Judges::new(&loaded),
        notes: outcome.annotations.notes,
        timings: Timings::new([&outcome.usage], started.elapsed()),
    };
    Ok(Json(Response { labels: labels.into_iter().map(Labelled::from).collect(), infer: facts }))
}

impl From<Label> for Labelled {
    fn from(label: Label) -> Self {
        Labelled { label: label.name, index: label.index, score: label.score }
    }
}
