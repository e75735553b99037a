//! `POST /admin/reload`, `GET /admin/state` and `GET /admin/versions`, for the operator.

use std::sync::{Arc, Weak};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use infer_config::Resolved;
use infer_config::paths::Route;
use infer_control::live::{Live, Report};
use infer_control::versions;
use infer_control::versions::Versions;

use super::context::RequestContext;
use super::document::RouteDoc;
use crate::error::{ApiError, Envelope};

/// Path of the reload.
pub const RELOAD: &str = Route::Reload.paths()[0];

/// Path of the resolved state.
pub const STATE: &str = Route::State.paths()[0];

/// Path of the comparison of models with their next versions.
pub const VERSIONS: &str = Route::Versions.paths()[0];

pub(super) fn openapi_reload() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("Reload the configuration")
        .json_response::<Report>(StatusCode::OK, "the changes")
        .errors(&[409, 503])
}

/// Reloads the configuration: 200 with the changes, or 409 with the reason why nothing changed.
pub(super) async fn reload(State(live): State<Weak<Live>>) -> Result<Json<Report>, ApiError> {
    let live = live.upgrade().ok_or_else(|| ApiError::unavailable("the server is stopping"))?;
    live.reload().await.map(Json).map_err(|rejected| ApiError::not_reloaded(rejected.to_string()))
}

pub(super) fn openapi_state() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("The resolved configuration")
        .json_response::<Resolved>(StatusCode::OK, "every key of the configuration, and hashes")
}

/// Returns the resolved configuration and the hashes of the loaded models and components.
pub(super) async fn state(State(context): State<Arc<RequestContext>>) -> Json<Resolved> {
    Json(context.registry.resolved())
}

pub(super) fn openapi_versions() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("Comparison of models with their next versions")
        .json_response::<Vec<Versions>>(StatusCode::OK, "one comparison for each model with a next version")
}

/// Compares models with their next versions.
pub(super) async fn compare(State(context): State<Arc<RequestContext>>) -> Json<Vec<Versions>> {
    Json(versions::compare(&context.registry))
}
