//! Open Inference Protocol v2 over REST, with its binary extension: tensors in and out of the ONNX
//! models.
//!
//! # Layout
//!
//! - `request`, `data`: parse a body into tensors
//! - `response`: writes tensors as a body; `facts`: the metadata of a model

mod data;
mod datatypes;
mod facts;
mod request;
mod response;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json};
use datatypes::VERSION;
use facts::Metadata;
use infer_engine::Model;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::path::HttpMethod;
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};

use super::call::Call;
use super::context::{self, AdmissionLayer, Caller, RequestContext};
use super::document::{RouteDoc, Table};
use crate::error::ApiError;

/// An error in the protocol's format.
#[derive(Serialize, ToSchema)]
#[schema(as = TensorFailure)]
struct Failure {
    error: String,
}

/// Server metadata.
#[derive(Serialize, ToSchema)]
#[schema(as = TensorServer)]
struct Server {
    name: &'static str,
    version: &'static str,
    extensions: [&'static str; 1],
}

/// Liveness of the server.
#[derive(Serialize, ToSchema)]
struct Live {
    live: bool,
}

/// Readiness of a model.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelReady)]
struct Ready {
    name: String,
    ready: bool,
}

/// Routes that need a key, if keys are configured.
pub(super) fn table(context: &Arc<RequestContext>) -> Table {
    let gate = Some(context.gate.clone());
    let door = AdmissionLayer { context: context.clone(), component: None, gate, takes_codings: false };
    let ok = StatusCode::OK;
    let server_doc = RouteDoc::new("What the server is").answers::<Server>(ok, "name, version, extensions");
    let mut table = Table::default().route(
        infer_config::paths::KSERVE,
        HttpMethod::Get,
        get(server),
        server_doc.behind_key::<Failure>(),
    );
    for path in ["/v2/models/{model}", "/v2/models/{model}/versions/{version}"] {
        let named = |summary: &str| {
            let doc = RouteDoc::new(summary).segment("model", "its name in infer.toml");
            if path.ends_with("{version}") { doc.segment("version", "`1`") } else { doc }
        };
        let doc = named("The tensors of a model").answers::<Metadata>(ok, "names, datatypes and shapes");
        let ready_doc = named("Whether a model answers").answers::<Ready>(ok, "whether it does");
        let failing = |doc: RouteDoc| doc.behind_key::<Failure>().fails::<Failure>(&[400, 404]);
        let add = |table: Table, end: &str, method, handler: MethodRouter<Arc<RequestContext>>, doc| {
            table.route(&format!("{path}{end}"), method, handler.with_state(context.clone()), doc)
        };
        let infer = post(infer).route_layer(from_fn_with_state(door.clone(), context::admit));
        table = add(table, "", HttpMethod::Get, get(metadata), failing(doc));
        table = add(table, "/ready", HttpMethod::Get, get(ready), failing(ready_doc));
        table = add(table, "/infer", HttpMethod::Post, infer, infer_doc(named("Run a model")));
    }
    table
}

fn infer_doc(doc: RouteDoc) -> RouteDoc {
    const BYTES: &str = "application/octet-stream";
    let binary = || {
        let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
        ObjectBuilder::new().schema_type(Type::String).format(Some(format))
    };
    let length = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0));
    doc.header(request::JSON_LENGTH, "how long the JSON is, where bytes come behind it", length)
        .reads::<request::Body<'_>>()
        .reads_as(BYTES, binary())
        .answers::<response::Body<'_>>(StatusCode::OK, "the outputs")
        .answers_as(StatusCode::OK, BYTES, "the same, with the bytes of outputs behind the JSON", binary())
        .tells(StatusCode::OK, request::JSON_LENGTH, "how long the JSON is, where bytes come behind it")
        .admitted::<Failure>()
        .fails::<Failure>(&[404, 415])
}

/// Routes that need no key.
pub(super) fn probes(context: &Arc<RequestContext>) -> Table {
    let live = get(async || Json(Live { live: true }));
    let doc = RouteDoc::new("Whether the process answers").answers::<Live>(StatusCode::OK, "it does");
    let ready = get(super::health::ready).with_state(context.clone());
    let ready_doc = super::health::ready_doc::<Failure>();
    Table::default().route("/v2/health/live", HttpMethod::Get, live, doc).route(
        "/v2/health/ready",
        HttpMethod::Get,
        ready,
        ready_doc,
    )
}

/// Formats `error` for the protocol: a string, where OpenAI's format has an object.
pub(super) fn failure(error: &ApiError) -> Response {
    Json(Failure { error: error.to_string() }).into_response()
}

async fn server() -> Json<Server> {
    Json(Server {
        name: env!("CARGO_PKG_NAME"),
        version: env!("CARGO_PKG_VERSION"),
        extensions: ["binary_tensor_data"],
    })
}

/// The path of a model, with or without its version.
type Named = Result<Path<Vec<(String, String)>>, PathRejection>;

async fn metadata(
    State(context): State<Arc<RequestContext>>,
    Extension(caller): Extension<Caller>,
    path: Named,
) -> Result<Json<Metadata>, ApiError> {
    Ok(Json(facts::of(find(&context, &caller, path)?)))
}

async fn ready(
    State(context): State<Arc<RequestContext>>,
    Extension(caller): Extension<Caller>,
    path: Named,
) -> Result<Json<Ready>, ApiError> {
    let model = find(&context, &caller, path)?;
    Ok(Json(Ready { name: model.name().to_owned(), ready: model.is_serving() }))
}

async fn infer(
    State(context): State<Arc<RequestContext>>,
    Extension(caller): Extension<Caller>,
    Extension(call): Call,
    path: Named,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let model = find(&context, &caller, path)?;
    let mut held = context.app.sandbox.memory().reservation();
    let request = request::read(&headers, &body?, model.card(), &mut held)?;
    let reply = model.run(request.inputs, call.deadline).await?;
    held.grow(response::bytes(&request.wanted, &reply)).map_err(|_| ApiError::busy())?;
    response::write(model, request.id, &request.wanted, &reply)
}

/// Looks up the model that a path names.
fn find<'e>(context: &'e RequestContext, caller: &Caller, path: Named) -> Result<&'e Arc<Model>, ApiError> {
    let Path(path) = path?;
    let part = |wanted: &str| path.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
    let name = part("model").unwrap_or_default();
    let reached = |name: &str| caller.0.as_ref().is_none_or(|key| key.may_ask(name));
    let found = context.app.models.get(name).filter(|_| reached(name));
    let Some(model) = found else {
        let known = context.app.models.values().filter(|model| is_served(model) && reached(model.name()));
        let known: Vec<_> = known.map(|model| model.name()).collect();
        return Err(ApiError::no_model(name, &known, "no model with tensors is configured for this caller"));
    };
    if !is_served(model) {
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

fn is_served(model: &Model) -> bool {
    !model.is_language()
}
