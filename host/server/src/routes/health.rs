//! `GET /healthz`, `GET /readyz` and `GET /metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use infer_control::metrics;
use serde::Serialize;
use utoipa::{PartialSchema as _, ToSchema};

use super::context::RequestContext;
use super::document::RouteDoc;
use crate::abort::Abort;
use crate::error::{ApiError, Envelope};

/// Status of the server.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

pub(super) fn openapi_live() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("Liveness probe")
        .json_response::<Health>(StatusCode::OK, "the process responds")
}

/// Documentation of [`ready`], with errors of type `E`.
pub(super) fn openapi_ready<E: ToSchema>() -> RouteDoc {
    RouteDoc::new::<E>("Readiness probe")
        .json_response::<Health>(StatusCode::OK, "the server accepts requests")
        .errors(&[503])
}

pub(super) fn openapi_metrics() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("Counters and histograms")
        .response(StatusCode::OK, metrics::CONTENT_TYPE, "the text format of OpenMetrics", String::schema())
        .errors(&[500])
}

/// Liveness probe.
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Counters and histograms, formatted on a worker thread to keep the connection thread free.
pub(super) async fn metrics(State(context): State<Arc<RequestContext>>) -> Result<Response, ApiError> {
    let registry = context.registry.clone();
    let mut text = Abort(context.work.spawn(async move { registry.metrics.text().await }));
    let text = (&mut text.0).await.ok().and_then(Result::ok).ok_or_else(|| ApiError::internal("internal"))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// Readiness probe. Models are loaded before the listener opens, so the server is unready only when
/// it is stopping, the thread of a model has ended, or the queue stays full.
pub(super) async fn ready(State(context): State<Arc<RequestContext>>) -> Result<Json<Health>, ApiError> {
    context.ready()?;
    Ok(Json(Health { status: "ready" }))
}
