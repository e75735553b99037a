//! The layer around every request: its id, deadline, span and access log.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use infer_config::paths::Route;
use infer_sandbox::RequestUsage;
use tokio::time::timeout_at;
use tracing::field::Empty;
use tracing::{Instrument as _, info, info_span};

use super::authority;
use super::call::milliseconds;
use super::context::RequestContext;
use super::dialect::Dialect;
use crate::error::ApiError;
use crate::limits::{GRACE, MAX_REQUEST_ID_BYTES};
use crate::serve::Lease;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request its id and its deadline, checks its authority, runs it inside a span that
/// carries the id, and logs its outcome.
pub(super) async fn trace(
    State(context): State<Arc<RequestContext>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let dialect = Dialect::of(&path);
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let server = &context.server;
    let is_chat = Route::ChatCompletions.has_path(&path) || Route::Completions.has_path(&path);
    let time = if is_chat { server.chat_deadline } else { server.deadline };
    let call = infer_sandbox::Request::new(request_id(&request), started + time);
    let span = info_span!("request", id = &*call.id, %method, path, key = Empty, trace = trace_id(&request));
    if let Some(lease) = request.extensions().get::<Lease>() {
        lease.until(call.deadline + GRACE);
    }
    request.extensions_mut().insert(call.clone());
    DefaultBodyLimit::max(server.max_body_bytes).apply(&mut request);
    // A layer of its own would cost each request its share of allocations.
    let handled = authority::check(request, next).instrument(span.clone());
    // A handler responds by the deadline itself; this is for one that does not.
    let response = timeout_at((call.deadline + GRACE).into(), handled).await;
    let response = response.unwrap_or_else(|_| ApiError::deadline().into_response());
    let mut response = dialect.write(response);
    let (status, elapsed) = (response.status().as_u16(), started.elapsed());
    let elapsed_ms = milliseconds(elapsed);
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
    context.registry.metrics.answered(&route, status, elapsed);
    if let Ok(value) = HeaderValue::from_str(&call.id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The client's request id if it is valid, otherwise a new one.
fn request_id(request: &Request) -> Arc<str> {
    let is_valid = |id: &&str| {
        (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let sent = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_valid);
    sent.map_or_else(|| uuid::Uuid::new_v4().simple().to_string().into(), Arc::from)
}

/// The trace id of the client's `traceparent` header (W3C Trace Context), logged for correlation.
fn trace_id(request: &Request) -> Option<&str> {
    let header = request.headers().get("traceparent")?.to_str().ok()?;
    let mut fields = header.split('-');
    let (version, trace, parent, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_nonzero = |text: &str, length| is_hex(text, length) && text.bytes().any(|byte| byte != b'0');
    let is_valid = is_hex(version, 2)
        && version != "ff"
        && is_nonzero(trace, 32)
        && is_nonzero(parent, 16)
        && is_hex(flags, 2);
    // Later versions may have more fields.
    (is_valid && (version != "00" || fields.next().is_none())).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_traceparent_is_ignored() {
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
        for (header, is_valid) in cases {
            let request = Request::builder().header("traceparent", &header).body(Default::default()).unwrap();
            assert_eq!(trace_id(&request), is_valid.then_some(TRACE), "{header}");
        }
    }
}
