//! `POST /admin/reload` and `GET /admin/state`: the operator's own.

use std::sync::{Arc, Weak};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use utoipa::openapi::path::HttpMethod;

use super::Entrance;
use super::document::{Table, Told};
use crate::config::Resolved;
use crate::error::{ApiError, Envelope};
use crate::live::{Live, Report};
use crate::versions::{self, Versions};

/// Where a reload is asked for.
pub(crate) const RELOAD: &str = "/admin/reload";

/// Where it is told what is served.
pub(crate) const STATE: &str = "/admin/state";

/// Where models are compared with their next versions.
pub(crate) const VERSIONS: &str = "/admin/versions";

pub(super) fn reload(live: Weak<Live>) -> Router {
    Router::new().route(RELOAD, post(serve_changes)).with_state(live)
}

pub(super) fn told_reload() -> Told {
    Told::new("Serve what the configuration says now")
        .answers::<Report>(StatusCode::OK, "what has changed")
        .fails::<Envelope<'_>>(&[409, 503])
}

pub(super) fn state(entrance: &Arc<Entrance>) -> Table {
    let told =
        Told::new("The configuration that is served").answers::<Resolved>(StatusCode::OK, "every key of it");
    let table = Table::default().route(STATE, HttpMethod::Get, get(tell).with_state(entrance.clone()), told);
    let told = Told::new("Models and their next versions")
        .answers::<Vec<Versions>>(StatusCode::OK, "how each model that has one compares with it");
    table.route(VERSIONS, HttpMethod::Get, get(compare).with_state(entrance.clone()), told)
}

/// Serve what the configuration says now: 200 with what has changed, or 409 with why nothing has.
async fn serve_changes(State(live): State<Weak<Live>>) -> Result<Json<Report>, ApiError> {
    let live = live.upgrade().ok_or_else(|| ApiError::unavailable("the server is stopping"))?;
    live.reload().await.map(Json).map_err(|refused| ApiError::not_reloaded(refused.to_string()))
}

/// How models compare with their next versions.
async fn compare(State(entrance): State<Arc<Entrance>>) -> Json<Vec<Versions>> {
    Json(versions::compare(&entrance.app))
}

/// Every key of the configuration that is served, and the hashes of what is loaded.
async fn tell(State(entrance): State<Arc<Entrance>>) -> Json<Resolved> {
    Json(Resolved::of_app(&entrance.app))
}
