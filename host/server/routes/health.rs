//! `GET /healthz` and `GET /readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;

/// The process answers.
pub(super) async fn live() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Requests are welcome: the models are loaded before the listener opens, so only a coming stop says otherwise, and a model
/// whose thread has ended.
pub(super) async fn ready(
    State((app, stopping)): State<(Arc<App>, Arc<AtomicBool>)>,
) -> Result<Json<Value>, ApiError> {
    if stopping.load(Ordering::Relaxed) {
        return Err(ApiError::unavailable("the server is stopping"));
    }
    if let Some((name, _)) = app.models.iter().find(|(_, model)| !model.is_serving()) {
        return Err(ApiError::unavailable(format!("model `{name}` has stopped; start the server again")));
    }
    Ok(Json(json!({ "status": "ready" })))
}
