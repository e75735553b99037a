//! The route table, and the routers of the two listeners.
//!
//! # A request
//!
//! 1. `cors`: headers for pages of permitted origins
//! 2. `trace`: request id, deadline, span, access log; `dialect`: the error format of the path;
//!    `authority`: the `Host` header
//! 3. the guard of its row (`table`): API key, permissions, capacity, body (`context`)
//! 4. its handler, one module for each endpoint
//!
//! Paths, methods and listeners of the table are in [`infer_config::paths`].

pub mod admin;
mod authority;
mod call;
mod chat;
mod classify;
mod context;
mod cors;
mod dialect;
mod document;
mod embeddings;
mod encoding;
mod events;
mod form;
mod gateway;
mod guard;
mod handler;
mod health;
mod json;
mod kserve;
mod members;
mod models;
mod moderate;
mod perspective;
mod rerank;
mod table;
mod text_models;
mod timings;
mod trace;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::OriginalUri;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use chat::Form;
pub use context::RequestContext;
use document::Document;
use infer_config::paths::{self, Route};
use infer_control::registry::LoadedComponent;
use infer_sandbox::World;
pub use moderate::{CATEGORIES, Explain, LabelledSpan, ModerateResponse, WordSpan, respond};
use moderate::{Choice, ModerationState};
use table::{Guard, Row, Table};
pub use timings::Timings;
use tracing::warn;

use crate::error::{ApiError, Envelope};

/// Returns the row of `route`; `None` if the configuration has nothing behind it.
fn row(route: Route, context: &Arc<RequestContext>, document: &Document) -> Option<Row> {
    use Guard::{Admission, ApiKey, Body, Detached, Open};
    let state = || context.clone();
    let chat = |form| chat::Endpoint { context: context.clone(), form };
    let moderation = || ModerationState::new(context, Choice::Named(context.moderators.clone()));
    Some(match route {
        // A language model has its own bounded queue.
        Route::ChatCompletions => Row::new(Body, chat::openapi(Form::Chat), chat::handle, chat(Form::Chat)),
        Route::Completions => {
            Row::new(Body, chat::openapi(Form::Completion), chat::handle, chat(Form::Completion))
        }
        Route::Embeddings => Row::new(Admission, embeddings::openapi(), embeddings::handle, state()),
        Route::Rerank => Row::new(Admission, rerank::openapi(), rerank::handle, state()),
        Route::Moderations | Route::AnalyzeComment if context.moderators.is_empty() => return None,
        Route::Moderations => Row::new(Admission, moderate::openapi(true), moderate::handle, moderation()),
        Route::AnalyzeComment => {
            Row::new(Admission, perspective::openapi(), perspective::handle, moderation())
        }
        Route::ListModels => Row::new(ApiKey, models::openapi_list(), models::list, state()),
        Route::GetModel => Row::new(ApiKey, models::openapi_one(), models::one, state()),
        Route::ServerMetadata => Row::new(ApiKey, kserve::openapi_server(), kserve::server, ()),
        Route::ServerLive => Row::new(Open, kserve::openapi_live(), kserve::live, ()),
        Route::ServerReady => {
            Row::new(Open, health::openapi_ready::<kserve::Failure>(), health::ready, state())
        }
        Route::ModelMetadata => Row::new(ApiKey, kserve::openapi_metadata(), kserve::metadata, state()),
        Route::ModelReady => Row::new(ApiKey, kserve::openapi_ready(), kserve::ready, state()),
        Route::ModelInfer => Row::new(Admission, kserve::openapi_infer(), kserve::infer, state()),
        Route::OpenApi => Row::new(ApiKey, document::openapi(), document::serve, document.clone()),
        Route::Healthz => Row::new(Open, health::openapi_live(), health::live, ()),
        Route::Readyz => Row::new(Open, health::openapi_ready::<Envelope<'_>>(), health::ready, state()),
        Route::Metrics => Row::new(Open, health::openapi_metrics(), health::metrics, state()),
        Route::Reload => Row::new(Detached, admin::openapi_reload(), admin::reload, context.live.clone()),
        Route::State => Row::new(Open, admin::openapi_state(), admin::state, state()),
        Route::Versions => Row::new(Open, admin::openapi_versions(), admin::compare, state()),
    })
}

/// Builds the public router. If the operator has a separate listener, health is served only there.
pub fn router(context: &Arc<RequestContext>, has_admin: bool) -> Router {
    let mut table = Table::public(context);
    for component in context.registry.components.values() {
        add_component(&mut table, context, component);
    }
    let document = add_own(&mut table, context, |route| route.is_public(has_admin));
    let (router, _) = table.into_routers(&document);
    let origins = cors::Origins::new(&context.server.cors_origins);
    common_layers(router, context, origins.as_ref())
}

/// Builds the operator's router, without API keys. Requests of web pages are rejected, and so are
/// those for a host other than the listener's `own` address.
pub fn admin(context: &Arc<RequestContext>, own: Option<SocketAddr>) -> Router {
    let mut table = Table::admin();
    let document = add_own(&mut table, context, Route::is_admin);
    let (router, detached) = table.into_routers(&document);
    let guard = from_fn_with_state(own, authority::guard);
    common_layers(router, context, None).merge(detached).layer(guard)
}

/// Adds the server's own routes that `is_served`, and returns the document for them.
fn add_own(
    table: &mut Table<'_>,
    context: &Arc<RequestContext>,
    is_served: impl Fn(Route) -> bool,
) -> Document {
    let document = Document::default();
    for route in Route::ALL.iter().copied().filter(|route| is_served(*route)) {
        if let Some(row) = row(route, context, &document) {
            table.add(route.paths(), route.method(), row);
        }
    }
    document
}

/// Adds the route of a component, if it has one.
fn add_component(table: &mut Table<'_>, context: &Arc<RequestContext>, loaded: &Arc<LoadedComponent>) {
    let Some(route) = &loaded.route else { return };
    let component = &loaded.component;
    let name: Arc<str> = component.name().into();
    let row = match component.world() {
        World::Moderator => {
            let state = ModerationState::new(context, Choice::One(loaded.clone()));
            Row::new(Guard::Component(name), moderate::openapi(false), moderate::handle, state)
        }
        World::Classifier => {
            Row::new(Guard::Component(name), classify::openapi(), classify::handle, loaded.clone())
        }
        World::Handler => {
            let state = handler::Mount::new(loaded.clone(), context.server.tls.is_some());
            return table.mount(&paths::paths(route), &Guard::RawComponent(name), handler::handle, state);
        }
        World::Predictor => {
            warn!(component = &*name, route, "a predictor answers no requests; its route is not mounted");
            return;
        }
    };
    table.add(&[route.as_str()], paths::Method::Post, row);
}

/// Adds the layers that all routes share. Pages of `origins` may send requests and read responses.
fn common_layers(router: Router, context: &Arc<RequestContext>, origins: Option<&cors::Origins>) -> Router {
    let cors = |router: Router, layer: fn(Router, cors::Origins) -> Router| match origins {
        Some(origins) => layer(router, origins.clone()),
        None => router,
    };
    let router = router
        .fallback(async |OriginalUri(uri): OriginalUri| ApiError::not_found(uri.path()))
        .method_not_allowed_fallback(async |method: Method, OriginalUri(uri): OriginalUri| {
            ApiError::method_not_allowed(method.as_str(), uri.path())
        });
    let router = cors(router, |router, origins| router.layer(from_fn_with_state(origins, cors::preflight)));
    let router = router.layer(from_fn_with_state(context.clone(), trace::trace));
    cors(router, |router, origins| router.layer(from_fn_with_state(origins, cors::response_headers)))
}
