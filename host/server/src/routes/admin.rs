//! `POST /admin/reload`, `GET /admin/state` and `GET /admin/versions`, for the operator.

use std::sync::{Arc, Weak};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use infer_config::Resolved;
use infer_control::live::{Live, Report};
use infer_control::versions;
use infer_control::versions::Versions;
use utoipa::openapi::path::HttpMethod;

use super::context::RequestContext;
use super::document::{RouteDoc, Table};
use crate::error::{ApiError, Envelope};

/// Path of the reload.
pub const RELOAD: &str = "/admin/reload";

/// Path of the resolved state.
pub const STATE: &str = "/admin/state";

/// Path of the comparison of models with their next versions.
pub const VERSIONS: &str = "/admin/versions";

pub(super) fn reload(live: Weak<Live>) -> Router {
    Router::new().route(RELOAD, post(serve_changes)).with_state(live)
}

pub(super) fn openapi_reload() -> RouteDoc {
    RouteDoc::new("Serve what the configuration says now")
        .answers::<Report>(StatusCode::OK, "what has changed")
        .fails::<Envelope<'_>>(&[409, 503])
}

pub(super) fn state(context: &Arc<RequestContext>) -> Table {
    let doc = RouteDoc::new("The configuration that is served")
        .answers::<Resolved>(StatusCode::OK, "every key of it");
    let table = Table::default().route(STATE, HttpMethod::Get, get(tell).with_state(context.clone()), doc);
    let doc = RouteDoc::new("Models and their next versions")
        .answers::<Vec<Versions>>(StatusCode::OK, "how each model that has one compares with it");
    table.route(VERSIONS, HttpMethod::Get, get(compare).with_state(context.clone()), doc)
}

/// Reloads the configuration: 200 with the changes, or 409 with the reason why nothing changed.
async fn serve_changes(State(live): State<Weak<Live>>) -> Result<Json<Report>, ApiError> {
    let live = live.upgrade().ok_or_else(|| ApiError::unavailable("the server is stopping"))?;
    live.reload().await.map(Json).map_err(|refused| ApiError::not_reloaded(refused.to_string()))
}

/// Compares models with their next versions.
async fn compare(State(context): State<Arc<RequestContext>>) -> Json<Vec<Versions>> {
    Json(versions::compare(&context.app))
}

/// Returns the resolved configuration and the hashes of the loaded models and components.
async fn tell(State(context): State<Arc<RequestContext>>) -> Json<Resolved> {
    Json(context.app.resolved())
}
