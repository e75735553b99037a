//! Cross-origin requests: which pages of other sites a browser lets ask this server, and read its
//! answers.
//!
//! Off unless `[server] cors_origins` names origins. Keys travel in a header of the page's own, so
//! credentials of the browser are never asked for.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use infer_config::ANY_ORIGIN;

/// What a page may read of an answer beside the headers that any page may.
const EXPOSED: &str =
    "inference-header-content-length, retry-after, x-infer-action, x-infer-score, x-request-id";

/// Headers that a page may send, where a preflight names none, or more than are repeated.
const SENT: &str = "authorization, content-type, idempotency-key, inference-header-content-length, traceparent, x-request-id";

/// The longest list of headers that is repeated to a preflight, in bytes.
const MAX_LIST: usize = 1024;

/// How long a browser may keep what a preflight said, in seconds.
const MAX_AGE: &str = "600";

/// What the operator is told is no page's to read.
const OPERATORS: [&str; 3] = ["/healthz", "/metrics", "/readyz"];

/// The origins that are let in.
#[derive(Clone)]
pub(super) struct Origins {
    any: bool,
    listed: Arc<[HeaderValue]>,
}

impl Origins {
    /// None where no origin is configured.
    pub(super) fn new(configured: &[String]) -> Option<Self> {
        let listed = configured.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        let any = configured.iter().any(|origin| origin == ANY_ORIGIN);
        (!configured.is_empty()).then(|| Origins { any, listed: listed.collect() })
    }

    /// What `Access-Control-Allow-Origin` says to a request; none where its page may not read the
    /// answer.
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

/// Answer a preflight, which comes without a key and before the request that it is about.
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
    // Components may take any method; one that a route does not take is refused there.
    let method = if method.len() <= 32 { method.clone() } else { HeaderValue::from_static("GET, POST") };
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    for name in [header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_REQUEST_HEADERS] {
        headers.append(header::VARY, name.into());
    }
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// Say in an answer, whatever it is, who may read it.
pub(super) async fn tell(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let allowed = origins.allowed(&request);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !origins.any {
        headers.append(header::VARY, header::ORIGIN.into());
    }
    // A component may have said it itself.
    if let Some(allowed) = allowed
        && !headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN)
    {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}
