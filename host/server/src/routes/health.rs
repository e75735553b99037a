//! `GET /healthz`, `GET /readyz` and `GET /metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use infer_config::paths;
use infer_control::metrics;
use serde::Serialize;
use utoipa::openapi::path::HttpMethod;
use utoipa::{PartialSchema as _, ToSchema};

use super::context::RequestContext;
use super::document::{RouteDoc, Table};
use crate::abort::Abort;
use crate::error::{ApiError, Envelope};

/// Status of the server.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    status: &'static str,
}

pub(super) fn table(context: &Arc<RequestContext>) -> Table {
    let ok = StatusCode::OK;
    let live_doc = RouteDoc::new("Whether the process answers").answers::<Health>(ok, "it does");
    let metrics_doc = RouteDoc::new("What is counted")
        .answers_as(ok, metrics::CONTENT_TYPE, "the text format of OpenMetrics", String::schema())
        .fails::<Envelope<'_>>(&[500]);
    Table::default()
        .route(paths::HEALTHZ, HttpMethod::Get, get(live), live_doc)
        .route(
            paths::READYZ,
            HttpMethod::Get,
            get(ready).with_state(context.clone()),
            ready_doc::<Envelope<'_>>(),
        )
        .route(paths::METRICS, HttpMethod::Get, get(metrics).with_state(context.clone()), metrics_doc)
}

/// Documentation of [`ready`], with errors of type `E`.
pub(super) fn ready_doc<E: ToSchema>() -> RouteDoc {
    RouteDoc::new("Whether requests are welcome")
        .answers::<Health>(StatusCode::OK, "they are")
        .fails::<E>(&[503])
}

/// Liveness probe.
async fn live() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Counters and histograms, formatted on a worker thread to keep the connection thread free.
async fn metrics(State(context): State<Arc<RequestContext>>) -> Result<Response, ApiError> {
    let app = context.app.clone();
    let mut text = Abort(context.work.spawn(async move { app.metrics.text().await }));
    let text = (&mut text.0).await.ok().and_then(Result::ok).ok_or_else(|| ApiError::internal("internal"))?;
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}

/// Readiness probe. Models are loaded before the listener opens, so the server is unready only when
/// it is stopping, the thread of a model has ended, or the queue stays full.
pub(super) async fn ready(State(context): State<Arc<RequestContext>>) -> Result<Json<Health>, ApiError> {
    context.ready()?;
    Ok(Json(Health { status: "ready" }))
}
