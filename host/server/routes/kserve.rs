//! Open Inference Protocol v2 over REST: tensors in and out of the ONNX models, with their binary extension.
//!
//! # Layout
//!
//! - `request`, `data`: a body becomes tensors
//! - `response`: tensors become a body; `facts`: what a model says of itself

mod data;
mod facts;
mod request;
mod response;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use infer_engine::{DType, Model};
use serde_json::{Value, json};

use super::entrance::{self, Caller, Door, Entrance};
use super::{Call, health};
use crate::error::ApiError;

/// Every path begins with it.
pub(super) const PREFIX: &str = "/v2";

/// Models have one version: the file that the configuration names, which its hash tells apart.
const VERSION: &str = "1";

/// The protocol's names of the element types.
const DATATYPES: [(DType, &str); 7] = [
    (DType::F16, "FP16"),
    (DType::BF16, "BF16"),
    (DType::F32, "FP32"),
    (DType::F64, "FP64"),
    (DType::U8, "UINT8"),
    (DType::I32, "INT32"),
    (DType::I64, "INT64"),
];

fn datatype(dtype: DType) -> &'static str {
    DATATYPES.iter().find(|(known, _)| *known == dtype).map_or("", |(_, name)| name)
}

/// What needs a key, where there are keys.
pub(super) fn router(entrance: &Arc<Entrance>) -> Router {
    let door = Door { entrance: entrance.clone(), component: None, gate: Some(entrance.gate.clone()) };
    let infer = || post(infer).route_layer(from_fn_with_state(door.clone(), entrance::admit));
    Router::new()
        .route("/v2", get(server))
        .route("/v2/models/{model}", get(metadata))
        .route("/v2/models/{model}/versions/{version}", get(metadata))
        .route("/v2/models/{model}/ready", get(ready))
        .route("/v2/models/{model}/versions/{version}/ready", get(ready))
        .route("/v2/models/{model}/infer", infer())
        .route("/v2/models/{model}/versions/{version}/infer", infer())
        .with_state(entrance.clone())
}

/// What needs none.
pub(super) fn probes(entrance: &Arc<Entrance>) -> Router {
    Router::new()
        .route("/v2/health/live", get(async || Json(json!({ "live": true }))))
        .route("/v2/health/ready", get(health::ready).with_state(entrance.clone()))
}

/// The protocol's errors are a sentence, where those of the other routes are an object.
pub(super) fn errors(router: Router) -> Router {
    router.layer(map_response(async |response: Response| {
        let Some(error) = response.extensions().get::<ApiError>() else { return response };
        let body = Json(json!({ "error": error.to_string() }));
        let (mut parts, _) = response.into_parts();
        parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        (parts, body).into_response()
    }))
}

async fn server() -> Json<Value> {
    Json(json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data"],
    }))
}

/// The path of a model, with or without its version.
type Named = Path<Vec<(String, String)>>;

async fn metadata(
    State(entrance): State<Arc<Entrance>>,
    Extension(caller): Extension<Caller>,
    Path(path): Named,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(facts::of(find(&entrance, &caller, &path)?)))
}

async fn ready(
    State(entrance): State<Arc<Entrance>>,
    Extension(caller): Extension<Caller>,
    Path(path): Named,
) -> Result<Json<Value>, ApiError> {
    let model = find(&entrance, &caller, &path)?;
    Ok(Json(json!({ "name": model.name(), "ready": model.is_serving() })))
}

async fn infer(
    State(entrance): State<Arc<Entrance>>,
    Extension(caller): Extension<Caller>,
    Extension(call): Call,
    Path(path): Named,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let model = find(&entrance, &caller, &path)?;
    let request = request::read(&headers, &body?, model.card())?;
    let reply = model.run(request.inputs, call.deadline).await?;
    response::write(model, request.id, &request.wanted, &reply)
}

/// The model that a path names.
fn find<'e>(
    entrance: &'e Entrance,
    caller: &Caller,
    path: &[(String, String)],
) -> Result<&'e Arc<Model>, ApiError> {
    let part = |wanted: &str| path.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
    let name = part("model").unwrap_or_default();
    let reached = |name: &str| caller.0.as_ref().is_none_or(|key| key.may_ask(name));
    let found = entrance.app.models.get(name).filter(|_| reached(name));
    let Some(model) = found else {
        let known = entrance.app.models.values().filter(|model| is_served(model) && reached(model.name()));
        let known: Vec<_> = known.map(|model| model.name()).collect();
        return Err(ApiError::no_model(name, &known));
    };
    if !is_served(model) {
        let message =
            format!("`{name}` is a language model, which has no tensors; POST /v1/chat/completions");
        return Err(ApiError::invalid("model", message));
    }
    match part("version") {
        None | Some(VERSION) => Ok(model),
        Some(other) => {
            let other = super::json::beginning(other);
            let message = format!("`{name}` has no version `{other}`; expected `{VERSION}`");
            Err(ApiError::no_version(message))
        }
    }
}

fn is_served(model: &Model) -> bool {
    !model.is_language()
}
