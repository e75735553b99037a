//! `GET /healthz` and `GET /readyz`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::Entrance;
use crate::error::ApiError;

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Requests are welcome: the models are loaded before the listener opens, so only a coming stop says otherwise, a model
/// whose thread has ended, and a queue that stays full.
pub(super) async fn ready(State(entrance): State<Arc<Entrance>>) -> Result<Json<Value>, ApiError> {
    entrance.ready()?;
    Ok(Json(json!({ "status": "ready" })))
}
