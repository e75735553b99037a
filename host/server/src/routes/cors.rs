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

/// Response headers that a page may read, beside the safelisted ones.
const EXPOSED: &str =
    "inference-header-content-length, retry-after, x-infer-action, x-infer-score, x-request-id";

/// Request headers that a page may send, if a preflight names none, or its list is too long to
/// repeat.
const SENT: &str = "authorization, content-type, idempotency-key, inference-header-content-length, traceparent, x-request-id";

/// Maximum length of a list of headers that is repeated to a preflight, in bytes.
const MAX_LIST: usize = 1024;

/// Time for which a browser may cache a preflight response, in seconds.
const MAX_AGE: &str = "600";

/// Endpoints for the operator, which pages may not read.
const OPERATORS: [&str; 3] = ["/healthz", "/metrics", "/readyz"];

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
        if OPERATORS.contains(&request.uri().path()) {
            None
        } else if self.any {
            Some(HeaderValue::from_static(ANY_ORIGIN))
        } else {
            self.listed.contains(origin).then(|| origin.clone())
        }
    }
}

/// Answers a preflight, which a browser sends without a key and before the request itself.
pub(super) async fn preflight(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_let_in = *request.method() == Method::OPTIONS && origins.allowed(&request).is_some();
    let Some(method) = wanted.filter(|_| is_let_in) else { return next.run(request).await };
    let mut headers = HeaderMap::new();
    let listed = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    let listed = listed.filter(|listed| listed.len() <= MAX_LIST).cloned();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        listed.unwrap_or_else(|| HeaderValue::from_static(SENT)),
    );
    // Components may accept any method; a route that does not support it rejects it.
    let method = if method.len() <= 32 { method.clone() } else { HeaderValue::from_static("GET, POST") };
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    for name in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
        headers.append(header::VARY, name.into());
    }
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Adds the CORS headers to a response, errors included.
pub(super) async fn tell(State(origins): State<Origins>, request: Request, next: Next) -> Response {
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
