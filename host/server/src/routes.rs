//! The route table and the layers around every route: request id, span, access log, host check.

pub mod admin;
mod authority;
mod call;
mod chat;
mod classify;
mod context;
mod cors;
mod dialect;
mod document;
mod encoding;
mod form;
mod handler;
mod health;
mod json;
mod kserve;
mod members;
mod models;
mod moderate;
mod perspective;
mod timings;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, OriginalUri, Request, State};
use axum::http::uri::Scheme;
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, any, get, post};
use call::{Endpoint, milliseconds};
pub use context::RequestContext;
use context::{AdmissionLayer, Caller};
use dialect::Dialect;
use document::Table;
use infer_config::paths::{self, MODELS, MODERATIONS};
use infer_sandbox::{RequestUsage, World};
pub use moderate::{CATEGORIES, ModerateResponse, respond};
use moderate::{Choice, ModerationState, Moderators};
pub use timings::Timings;
use tokio::time::timeout_at;
use tracing::field::Empty;
use tracing::{Instrument as _, info, info_span, warn};
use utoipa::openapi::path::HttpMethod;

use crate::error::{ApiError, Envelope};
use crate::serve::Lease;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Time after its deadline in which a handler may still respond itself, before the layer responds
/// for it.
const GRACE: Duration = Duration::from_millis(250);

/// Builds the public routes. If the operator has a separate listener, health is served only there.
pub fn router(context: &Arc<RequestContext>, has_admin: bool) -> Router {
    let app = &context.app;
    let server = Arc::new(context.server.clone());
    let list = get(models::list).with_state(app.clone());
    let one = get(models::one).with_state(app.clone());
    let mut known = Table::default()
        .route(MODELS, HttpMethod::Get, list, models::openapi().behind_key::<Envelope<'_>>())
        .route(models::ONE, HttpMethod::Get, one, models::one_doc());
    let desk = |choice| ModerationState { choice, server: server.clone(), answers: context.answers.clone() };
    for policy in app.components.values() {
        let Some(route) = &policy.route else { continue };
        let endpoint = Endpoint { policy: policy.clone() };
        let component = Some(policy.component.name().into());
        let gate = Some(context.gate.clone());
        let takes_codings = policy.component.world() == World::Handler;
        let door = AdmissionLayer { context: context.clone(), component, gate, takes_codings };
        let admit = middleware::from_fn_with_state(door, context::admit);
        let (handler, doc) = match policy.component.world() {
            World::Moderator => {
                let desk = desk(Choice::One(policy.clone()));
                (post(moderate::handle).with_state(desk), moderate::openapi(false))
            }
            World::Classifier => (post(classify::handle).with_state(endpoint), classify::openapi()),
            World::Predictor => {
                warn!(
                    component = policy.component.name(),
                    route, "a predictor answers no route; not mounted"
                );
                continue;
            }
            World::Handler => {
                let scheme = if server.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
                let handler = any(handler::handle).with_state(handler::Mount { endpoint, scheme });
                known = known.mount(&paths::paths(route), &handler.layer(admit));
                continue;
            }
        };
        known = known.route(route, HttpMethod::Post, handler.route_layer(admit), doc);
    }
    let identify = || middleware::from_fn_with_state(context.clone(), context::identify);
    let moderators = Arc::new(Moderators::new(app));
    let mut perspective = Table::default();
    if !moderators.is_empty() {
        let gate = Some(context.gate.clone());
        let door = AdmissionLayer { context: context.clone(), component: None, gate, takes_codings: false };
        let admit = || middleware::from_fn_with_state(door.clone(), context::admit);
        let desk = desk(Choice::Named(moderators));
        let named = post(moderate::handle).with_state(desk.clone()).route_layer(admit());
        known = known.route(MODERATIONS, HttpMethod::Post, named, moderate::openapi(true));
        let analyze = post(perspective::handle).with_state(desk).route_layer(admit()).route_layer(identify());
        perspective =
            perspective.route(paths::PERSPECTIVE, HttpMethod::Post, analyze, perspective::openapi());
    }
    let known = known.merge(chat::table(context)).wrap(|router| router.route_layer(identify()));
    let kserve = kserve::table(context).wrap(|router| router.route_layer(identify()));
    let kserve = kserve.merge(kserve::probes(context));
    let mut known = known.merge(perspective).merge(kserve);
    if !has_admin {
        known = known.merge(health::table(context));
    }
    let doc = document::openapi().behind_key::<Envelope<'_>>();
    let guard = |handler: MethodRouter| handler.route_layer(identify());
    let router = known.into_router(doc, context.asks_for_keys(), guard);
    let origins = cors::Origins::new(&context.server.cors_origins);
    finish(router, context, origins.as_ref())
}

/// Builds the operator's routes, without API keys: health, models and components, reload. Requests
/// of web pages are rejected, and so are those for a host other than the listener's `own` address.
pub fn admin(context: &Arc<RequestContext>, own: Option<SocketAddr>) -> Router {
    let list = get(models::list).with_state(context.app.clone());
    let known = health::table(context)
        .route(MODELS, HttpMethod::Get, list, models::openapi())
        .merge(admin::state(context))
        .beside(admin::RELOAD, HttpMethod::Post, admin::openapi_reload());
    // Outside the common layers: they hold the snapshot that the request came with, and a reload
    // waits for its requests.
    let reload = admin::reload(context.live.clone());
    let known = known.into_router(document::openapi(), false, |handler| handler);
    let guard = middleware::from_fn_with_state(own, authority::guard);
    finish(known, context, None).merge(reload).layer(guard)
}

/// Adds the layers that all routes share. Pages of `origins` may send requests and read responses.
fn finish(router: Router, context: &Arc<RequestContext>, origins: Option<&cors::Origins>) -> Router {
    let cors = |router: Router, layer: fn(Router, cors::Origins) -> Router| match origins {
        Some(origins) => layer(router, origins.clone()),
        None => router,
    };
    let router = router
        .fallback(async |OriginalUri(uri): OriginalUri| ApiError::not_found(uri.path()))
        .method_not_allowed_fallback(async |method: Method, OriginalUri(uri): OriginalUri| {
            ApiError::method_not_allowed(method.as_str(), uri.path())
        })
        .layer(DefaultBodyLimit::max(context.server.max_body_bytes));
    let router = cors(router, |router, origins| {
        router.layer(middleware::from_fn_with_state(origins, cors::preflight))
    });
    let router = router
        .layer(middleware::from_fn(authority::check))
        .layer(middleware::from_fn_with_state(context.clone(), trace));
    cors(router, |router, origins| router.layer(middleware::from_fn_with_state(origins, cors::tell)))
}

/// Gives the request its id and its deadline, runs it inside a span that carries the id, and logs
/// its outcome.
async fn trace(State(context): State<Arc<RequestContext>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let dialect = Dialect::of(&path);
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let server = &context.server;
    let time = if paths::COMPLETIONS.contains(&&*path) { server.chat_deadline } else { server.deadline };
    let call = infer_sandbox::Request::new(request_id(&request), began + time);
    let span = info_span!("request", id = &*call.id, %method, path, key = Empty, trace = trace_id(&request));
    if let Some(lease) = request.extensions().get::<Lease>() {
        lease.until(call.deadline + GRACE);
    }
    request.extensions_mut().insert(call.clone());
    // A handler responds by the deadline itself; this is for one that does not.
    let answer = timeout_at((call.deadline + GRACE).into(), next.run(request).instrument(span.clone())).await;
    let answer = answer.unwrap_or_else(|_| ApiError::deadline().into_response());
    let mut response = dialect.write(answer);
    let (status, took) = (response.status().as_u16(), began.elapsed());
    let elapsed_ms = milliseconds(took);
    span.in_scope(|| match call.usage() {
        RequestUsage { calls: 0, .. } => info!(status, elapsed_ms, "answered"),
        RequestUsage { calls, guest, compute, memory_bytes_peak, tensor_bytes_peak } => info!(
            status,
            elapsed_ms,
            calls,
            guest_ms = milliseconds(guest),
            compute_ms = milliseconds(compute),
            memory_bytes_peak,
            tensor_bytes_peak,
            "answered"
        ),
    });
    context.app.metrics.answered(&route, status, took);
    if let Ok(value) = HeaderValue::from_str(&call.id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The client's request id if it is valid, otherwise a new one.
fn request_id(request: &Request) -> Arc<str> {
    let sensible =
        |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let sent = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(sensible);
    sent.map_or_else(|| uuid::Uuid::new_v4().simple().to_string().into(), Arc::from)
}

/// The trace id of the client's `traceparent` header (W3C Trace Context), logged for correlation.
fn trace_id(request: &Request) -> Option<&str> {
    let header = request.headers().get("traceparent")?.to_str().ok()?;
    let mut fields = header.split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let plain = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let named = |text: &str, length| plain(text, length) && text.bytes().any(|byte| byte != b'0');
    let is_whole =
        plain(version, 2) && version != "ff" && named(trace, 32) && named(parent, 16) && plain(flags, 2);
    // Later versions may have more fields.
    (is_whole && (version != "00" || fields.next().is_none())).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_taken_from_a_whole_header_alone() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let cases = [
            (format!("00-{TRACE}-00f067aa0ba902b7-01"), true),
            (format!("01-{TRACE}-00f067aa0ba902b7-01-more"), true),
            (format!("00-{TRACE}-00f067aa0ba902b7-01-more"), false),
            (format!("ff-{TRACE}-00f067aa0ba902b7-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false),
            (format!("00-{TRACE}-0000000000000000-01"), false),
            (format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false),
            (format!("00-{TRACE}-00f067aa0ba902b7"), false),
            (String::new(), false),
        ];
        for (header, is_taken) in cases {
            let request = Request::builder().header("traceparent", &header).body(Default::default()).unwrap();
            assert_eq!(trace_id(&request), is_taken.then_some(TRACE), "{header}");
        }
    }
}
