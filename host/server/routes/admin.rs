//! `POST /admin/reload` and `GET /admin/state`: the operator's own.

use std::sync::{Arc, Weak};

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::Entrance;
use crate::config::Resolved;
use crate::error::ApiError;
use crate::live::{Live, Report};

/// Where a reload is asked for.
pub(crate) const RELOAD: &str = "/admin/reload";

/// Where it is told what is served.
pub(crate) const STATE: &str = "/admin/state";

pub(super) fn reload(live: Weak<Live>) -> Router {
    Router::new().route(RELOAD, post(serve_changes)).with_state(live)
}

pub(super) fn state(entrance: &Arc<Entrance>) -> Router {
    Router::new().route(STATE, get(tell)).with_state(entrance.clone())
}

/// Serve what the configuration says now: 200 with what has changed, or 409 with why nothing has.
async fn serve_changes(State(live): State<Weak<Live>>) -> Result<Json<Report>, ApiError> {
    let live = live.upgrade().ok_or_else(|| ApiError::unavailable("the server is stopping"))?;
    live.reload().await.map(Json).map_err(|refused| ApiError::not_reloaded(refused.to_string()))
}

/// Every key of the configuration that is served, and the hashes of what is loaded.
async fn tell(State(entrance): State<Arc<Entrance>>) -> Json<Resolved> {
    Json(Resolved::of_app(&entrance.app))
}
