//! `GET /healthz` and `GET /readyz`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};

use super::Entrance;
use crate::error::ApiError;
use crate::metrics;

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// What is counted.
pub(super) async fn metrics(State(entrance): State<Arc<Entrance>>) -> Result<Response, ApiError> {
    let told = entrance.app.metrics.tell().map_err(|_| ApiError::internal("internal"))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], told).into_response())
}

/// Requests are welcome: the models are loaded before the listener opens, so only a coming stop says otherwise, a model
/// whose thread has ended, and a queue that stays full.
pub(super) async fn ready(State(entrance): State<Arc<Entrance>>) -> Result<Json<Value>, ApiError> {
    entrance.ready()?;
    Ok(Json(json!({ "status": "ready" })))
}
