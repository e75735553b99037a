//! Open Inference Protocol v2 over REST, with its binary extension: tensors in and out of the ONNX
//! models.
//!
//! # Layout
//!
//! - `request`, `data`: parse a body into tensors; `texts`: texts as tensors
//! - `response`: writes tensors as a body; `facts`: the metadata of a model

mod data;
mod datatypes;
mod facts;
mod request;
mod response;
mod texts;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use datatypes::VERSION;
use facts::Metadata;
use infer_engine::Model;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};

use super::call::Call;
use super::context::{Caller, RequestContext};
use super::document::{PRODUCT, RouteDoc};
use crate::error::ApiError;

/// An error in the protocol's format.
#[derive(Serialize, ToSchema)]
#[schema(as = TensorFailure)]
pub(super) struct Failure {
    error: String,
}

/// Server metadata.
#[derive(Serialize, ToSchema)]
#[schema(as = TensorServer)]
pub(super) struct Server {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

/// Liveness of the server.
#[derive(Serialize, ToSchema)]
pub(super) struct Live {
    live: bool,
}

/// Readiness of a model.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelReady)]
pub(super) struct Ready {
    name: String,
    ready: bool,
}

pub(super) fn openapi_server() -> RouteDoc {
    RouteDoc::new::<Failure>("Server metadata")
        .json_response::<Server>(StatusCode::OK, "name, version, extensions")
}

pub(super) fn openapi_live() -> RouteDoc {
    RouteDoc::new::<Failure>("Liveness probe").json_response::<Live>(StatusCode::OK, "the process responds")
}

pub(super) fn openapi_metadata() -> RouteDoc {
    model_doc("Tensors of a model")
        .json_response::<Metadata>(StatusCode::OK, "names, datatypes and shapes")
        .errors(&[400, 404])
}

pub(super) fn openapi_ready() -> RouteDoc {
    model_doc("Readiness of a model")
        .json_response::<Ready>(StatusCode::OK, "true if the model accepts requests")
        .errors(&[400, 404])
}

pub(super) fn openapi_infer() -> RouteDoc {
    const BYTES: &str = "application/octet-stream";
    const LENGTH: &str = "length of the JSON in bytes, if binary tensors follow it";
    let binary = || {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format))
    };
    let length = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    model_doc("Inference by a model")
        .request_header(request::JSON_LENGTH, LENGTH, length)
        .json_body::<request::Body<'_>>()
        .body(BYTES, binary())
        .json_response::<response::Body<'_>>(StatusCode::OK, "the outputs")
        .response(StatusCode::OK, BYTES, "the outputs as JSON, followed by binary tensors", binary())
        .response_header(StatusCode::OK, request::JSON_LENGTH, LENGTH)
        .errors(&[404, 415])
}

/// Documentation of a route with a model in its path.
fn model_doc(summary: &str) -> RouteDoc {
    RouteDoc::new::<Failure>(summary)
        .path_parameter("model", "name in infer.toml")
        .path_parameter("version", "`1`")
}

/// Formats `error` for the protocol: a string, where OpenAI's format has an object.
pub(super) fn failure(error: &ApiError) -> Response {
    Json(Failure { error: error.to_string() }).into_response()
}

pub(super) async fn server() -> Json<Server> {
    Json(Server { name: PRODUCT, version: env!("CARGO_PKG_VERSION"), extensions: ["binary_tensor_data"] })
}

pub(super) async fn live() -> Json<Live> {
    Json(Live { live: true })
}

/// The path of a model, with or without its version.
type ModelPath = Result<Path<Vec<(String, String)>>, PathRejection>;

pub(super) async fn metadata(
    State(context): State<Arc<RequestContext>>,
    Extension(caller): Extension<Caller>,
    path: ModelPath,
) -> Result<Json<Metadata>, ApiError> {
    Ok(Json(facts::of(find(&context, &caller, path)?)))
}

pub(super) async fn ready(
    State(context): State<Arc<RequestContext>>,
    Extension(caller): Extension<Caller>,
    path: ModelPath,
) -> Result<Json<Ready>, ApiError> {
    let model = find(&context, &caller, path)?;
    Ok(Json(Ready { name: model.name().to_owned(), ready: model.is_serving() }))
}

pub(super) async fn infer(
    State(context): State<Arc<RequestContext>>,
    Extension(caller): Extension<Caller>,
    Extension(call): Call,
    path: ModelPath,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let model = find(&context, &caller, path)?;
    let mut reservation = context.registry.sandbox.memory().reservation();
    let request = request::read(&headers, &body?, model.card(), &mut reservation)?;
    let reply = model.run(request.inputs, call.deadline).await?;
    reservation.grow(response::bytes(&request.outputs, &reply)).map_err(|_| ApiError::busy())?;
    response::write(model, request.id, &request.outputs, &reply)
}

/// Looks up the model that a path names.
fn find<'e>(
    context: &'e RequestContext,
    caller: &Caller,
    path: ModelPath,
) -> Result<&'e Arc<Model>, ApiError> {
    let Path(path) = path?;
    let part = |name: &str| path.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let name = part("model").unwrap_or_default();
    let may_ask = |name: &str| caller.0.as_ref().is_none_or(|key| key.may_ask(name));
    let models = &context.registry.models;
    let Some(model) = models.get(name).filter(|_| may_ask(name)) else {
        let known = models.values().filter(|model| has_tensors(model) && may_ask(model.name()));
        let known: Vec<_> = known.map(|model| model.name()).collect();
        return Err(ApiError::no_model(name, &known, "no model with tensors is configured for this caller"));
    };
    if !has_tensors(model) {
        let message =
            format!("`{name}` is a language model, which has no tensors; POST /v1/chat/completions");
        return Err(ApiError::invalid("model", message));
    }
    match part("version") {
        None | Some(VERSION) => Ok(model),
        Some(other) => {
            let other = excerpt(other, QUOTE_BYTES);
            let message = format!("`{name}` has no version `{other}`; expected `{VERSION}`");
            Err(ApiError::no_version(message))
        }
    }
}

fn has_tensors(model: &Model) -> bool {
    !model.is_language()
}
