//! `GET /healthz` and `GET /readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::error::ApiError;

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Requests are welcome: the models are loaded before the listener opens, so only a coming stop says otherwise.
pub(super) async fn ready(State(stopping): State<Arc<AtomicBool>>) -> Result<Json<Value>, ApiError> {
    if stopping.load(Ordering::Relaxed) {
        return Err(ApiError::unavailable("the server is stopping"));
    }
    Ok(Json(json!({ "status": "ready" })))
}
