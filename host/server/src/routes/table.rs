//! A row of the route table: guard, documentation and handler of a route; and the router and the
//! OpenAPI document that the rows become.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, any, on};
use infer_config::paths::Method;

use super::context::{self, AdmissionLayer, RequestContext};
use super::document::{Document, Operations, RouteDoc};

/// The checks in front of a handler on the public listener. The operator's listener has none of
/// them.
pub(super) enum Guard {
    /// No check.
    Open,
    /// No check, and none of the common layers: they keep the snapshot of the request alive, and a
    /// reload waits until it is released.
    Detached,
    /// An API key, if the server has any, and the rate limits.
    ApiKey,
    /// As `ApiKey`; then the body is read within its budget, and the handler runs on the worker
    /// threads.
    Body,
    /// As `Body`, with a permit of the instances.
    Admission,
    /// As `Admission`, if the API key permits this component.
    Component(Arc<str>),
    /// As `Component`, for a handler that decodes content codings itself.
    RawComponent(Arc<str>),
}

/// A route without its path and method.
pub(super) struct Row {
    guard: Guard,
    doc: RouteDoc,
    handler: Box<dyn FnOnce(MethodFilter) -> MethodRouter>,
}

impl Row {
    /// Creates the row of `handler`, which is called with `state`.
    pub(super) fn new<T: 'static, S: Clone + Send + Sync + 'static>(
        guard: Guard,
        doc: RouteDoc,
        handler: impl Handler<T, S>,
        state: S,
    ) -> Self {
        Row { guard, doc, handler: Box::new(|method| on(method, handler).with_state(state)) }
    }
}

/// The routes of one listener.
pub(super) struct Table<'c> {
    /// Context of the guards; `None` on the operator's listener.
    guards: Option<&'c Arc<RequestContext>>,
    router: Router,
    detached: Router,
    operations: Operations,
}

impl<'c> Table<'c> {
    /// Creates an empty table of the public listener.
    pub(super) fn public(context: &'c Arc<RequestContext>) -> Self {
        Table { guards: Some(context), ..Table::admin() }
    }

    /// Creates an empty table of the operator's listener.
    pub(super) fn admin() -> Self {
        Table {
            guards: None,
            router: Router::new(),
            detached: Router::new(),
            operations: Operations::default(),
        }
    }

    /// Adds `row` at `paths` for `method`, and documents it.
    pub(super) fn add(&mut self, paths: &[&str], method: Method, row: Row) {
        let Row { guard, mut doc, handler } = row;
        let mut handler = handler(match method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
        });
        if let Some(context) = self.guards {
            (handler, doc) = (guard.layer(handler, context), guard.document(doc));
        }
        for path in paths {
            self.operations.add(path, method, doc.clone());
            let router = if matches!(guard, Guard::Detached) { &mut self.detached } else { &mut self.router };
            *router = std::mem::take(router).route(path, handler.clone());
        }
    }

    /// Mounts a component's `handler` at `paths` for any method. The component defines its bodies,
    /// so they are not documented.
    pub(super) fn mount<T: 'static, S: Clone + Send + Sync + 'static>(
        &mut self,
        paths: &[String],
        guard: &Guard,
        handler: impl Handler<T, S>,
        state: S,
    ) {
        let mut handler = any(handler).with_state(state);
        if let Some(context) = self.guards {
            handler = guard.layer(handler, context);
        }
        for path in paths {
            self.router = std::mem::take(&mut self.router).route(path, handler.clone());
        }
    }

    /// Completes `document`, and returns the router for the common layers and the router without
    /// them.
    pub(super) fn into_routers(self, document: &Document) -> (Router, Router) {
        let needs_keys = self.guards.is_some_and(|context| context.needs_keys());
        let operations = self.operations;
        document.get_or_init(|| operations.document(needs_keys));
        (self.router, self.detached)
    }
}

impl Guard {
    /// Puts the checks in front of `handler`.
    fn layer(&self, handler: MethodRouter, context: &Arc<RequestContext>) -> MethodRouter {
        let gate = || Some(context.gate.clone());
        let (component, gate, takes_codings) = match self {
            Guard::Open | Guard::Detached => return handler,
            Guard::ApiKey => return handler.layer(from_fn_with_state(context.clone(), context::identify)),
            Guard::Body => (None, None, false),
            Guard::Admission => (None, gate(), false),
            Guard::Component(name) => (Some(name.clone()), gate(), false),
            Guard::RawComponent(name) => (Some(name.clone()), gate(), true),
        };
        let admission = AdmissionLayer { context: context.clone(), component, gate, takes_codings };
        handler.layer(from_fn_with_state(admission, context::admit))
    }

    /// Documents the errors of the checks.
    fn document(&self, doc: RouteDoc) -> RouteDoc {
        match self {
            Guard::Open | Guard::Detached => doc,
            Guard::ApiKey => doc.api_key(),
            Guard::Body | Guard::Admission | Guard::Component(_) | Guard::RawComponent(_) => {
                doc.api_key().errors(&[400, 408, 413, 500, 504])
            }
        }
    }
}
