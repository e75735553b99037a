//! Cross-origin resource sharing (CORS) for pages of other sites.
//!
//! Off unless `[server] cors_origins` names origins. Keys travel in a header that the page sets, so
//! browser credentials are never needed.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use infer_config::ANY_ORIGIN;
use infer_config::paths::{Listeners, Route};

use crate::limits::{MAX_PREFLIGHT_HEADERS_BYTES, MAX_PREFLIGHT_METHOD_BYTES};

/// Response headers that a page may read, beside the safelisted ones.
const EXPOSED: &str =
    "inference-header-content-length, retry-after, x-infer-action, x-infer-score, x-request-id";

/// Request headers that a page may send, if a preflight names none, or its list is too long to
/// repeat.
const PERMITTED: &str = "authorization, content-type, idempotency-key, inference-header-content-length, traceparent, x-request-id";

/// Time for which a browser may cache a preflight response, in seconds.
const CACHE_SECONDS: &str = "600";

/// The permitted origins.
#[derive(Clone)]
pub(super) struct Origins {
    any: bool,
    listed: Arc<[HeaderValue]>,
}

impl Origins {
    /// `None` if no origin is configured.
    pub(super) fn new(configured: &[String]) -> Option<Self> {
        let listed = configured.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        let any = configured.iter().any(|origin| origin == ANY_ORIGIN);
        (!configured.is_empty()).then(|| Origins { any, listed: listed.collect() })
    }

    /// The `Access-Control-Allow-Origin` for a request; `None` if its page may not read the
    /// response.
    fn allowed(&self, request: &Request) -> Option<HeaderValue> {
        let origin = request.headers().get(header::ORIGIN)?;
        if is_operators(request.uri().path()) {
            None
        } else if self.any {
            Some(HeaderValue::from_static(ANY_ORIGIN))
        } else {
            self.listed.contains(origin).then(|| origin.clone())
        }
    }
}

/// True for a path that is for the operator, which pages may not read.
fn is_operators(path: &str) -> bool {
    let mut operators = Route::ALL.iter().filter(|route| route.listeners() == Listeners::AdminOrPublic);
    operators.any(|route| route.has_path(path))
}

/// Answers a preflight, which a browser sends without a key and before the request itself.
pub(super) async fn preflight(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let requested = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_permitted = *request.method() == Method::OPTIONS && origins.allowed(&request).is_some();
    let Some(method) = requested.filter(|_| is_permitted) else { return next.run(request).await };
    let mut headers = HeaderMap::new();
    let listed = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let listed = listed.filter(|listed| listed.len() <= MAX_PREFLIGHT_HEADERS_BYTES).cloned();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        listed.unwrap_or_else(|| HeaderValue::from_static(PERMITTED)),
    );
    // Components may accept any method; a route that does not support it rejects it.
    let method = if method.len() <= MAX_PREFLIGHT_METHOD_BYTES {
        method.clone()
    } else {
        HeaderValue::from_static("GET, POST")
    };
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(CACHE_SECONDS));
    for name in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
        headers.append(header::VARY, name.into());
    }
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Adds the CORS headers to a response, errors included.
pub(super) async fn response_headers(
    State(origins): State<Origins>,
    request: Request,
    next: Next,
) -> Response {
    let allowed = origins.allowed(&request);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !origins.any {
        headers.append(header::VARY, header::ORIGIN.into());
    }
    // A component may have set it itself.
    if let Some(allowed) = allowed
        && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}
