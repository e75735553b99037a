//! The route of a component that handles HTTP requests itself; its response is streamed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::BytesRejection;
use axum::extract::{OriginalUri, State};
use axum::http::request::Parts;
use axum::http::uri::{Authority, Scheme};
use axum::http::{HeaderMap, Request, Uri, header};
use axum::response::Response;
use http_body::Frame;
use infer_control::registry::LoadedComponent;
use infer_sandbox::{Body, CallError, Cause, RequestUsage, UNSENT_BYTES};
use tokio::sync::oneshot;
use tracing::{Instrument as _, Span, info};

use super::call::{Call, milliseconds};
use super::context::Caller;
use crate::error::ApiError;
use crate::serve::Lease;

/// State of a component's route.
#[derive(Clone)]
pub(super) struct Mount {
    loaded: Arc<LoadedComponent>,
    /// Scheme of the public listener.
    scheme: Scheme,
}

impl Mount {
    pub(super) fn new(loaded: Arc<LoadedComponent>, has_tls: bool) -> Self {
        Mount { loaded, scheme: if has_tls { Scheme::HTTPS } else { Scheme::HTTP } }
    }
}

pub(super) async fn handle(
    State(mount): State<Mount>,
    Extension(call): Call,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    lease: Option<Extension<Lease>>,
    Parts { method, mut headers, .. }: Parts,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let lease = lease.map(|Extension(lease)| lease);
    if let Some(lease) = &lease {
        // Charge the buffer for the guest's output, which may outlive the guest.
        lease.grow(UNSENT_BYTES).map_err(|_| ApiError::busy())?;
    }
    let mut incoming = Request::new(body?);
    *incoming.method_mut() = method;
    *incoming.uri_mut() = absolute(uri, &headers, mount.scheme)?;
    // The component must not see a key of this server.
    if caller.0.is_some() {
        headers.remove(header::AUTHORIZATION);
    }
    *incoming.headers_mut() = headers;

    let (head, response) = oneshot::channel();
    let (delivered, gone) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let loaded = mount.loaded;
    let guest = async move {
        let outcome = loaded.handle(&call, incoming, head, gone).await;
        // Frees the permit, even if the client has not read the whole response.
        if let Some(lease) = lease {
            lease.release();
        }
        // Once a response has started, only the log uses the outcome.
        let Err(result) = end.send(outcome.result) else { return };
        let RequestUsage { guest, compute, memory_bytes_peak, tensor_bytes_peak, .. } = call.usage();
        let (guest_ms, compute_ms) = (milliseconds(guest), milliseconds(compute));
        let component = loaded.component.name();
        match result {
            Ok(()) => {
                info!(component, guest_ms, compute_ms, memory_bytes_peak, tensor_bytes_peak, "guest ended");
            }
            Err(CallError::Stopped { cause: Cause::Gone, .. }) => {
                info!(component, guest_ms, compute_ms, "guest stopped: the client disconnected");
            }
            Err(error) => drop(ApiError::from(error)),
        }
    };
    tokio::spawn(guest.instrument(Span::current()));
    match response.await {
        Ok(response) => {
            let length = response.headers().get(header::CONTENT_LENGTH);
            let remaining = length.and_then(|length| length.to_str().ok()?.parse().ok());
            Ok(response
                .map(|body| axum::body::Body::new(Answer { body, remaining, delivered: Some(delivered) })))
        }
        Err(_) => match ended.await {
            Ok(Err(error)) => Err(error.into()),
            Ok(Ok(())) | Err(_) => Err(ApiError::internal("internal")),
        },
    }
}

/// The URI with its scheme and authority; most clients send the authority in a header.
fn absolute(uri: Uri, headers: &HeaderMap, scheme: Scheme) -> Result<Uri, ApiError> {
    let mut parts = uri.into_parts();
    parts.scheme = Some(scheme);
    if parts.authority.is_none() {
        // HTTP/1.0 may omit the host.
        let host = headers.get(header::HOST).map_or(b"localhost".as_slice(), |host| host.as_bytes());
        let authority = Authority::try_from(host);
        parts.authority = Some(authority.map_err(|_| {
            ApiError::invalid("", "invalid `Host` header; expected a host such as `example.com:8080`")
        })?);
    }
    Uri::from_parts(parts).map_err(|error| ApiError::invalid("", format!("the request's URI: {error}")))
}

/// A body that its guest may still be writing. Once the body is delivered, the guest is finished;
/// if the body is dropped earlier, the guest is stopped.
struct Answer {
    body: Body,
    /// Remaining bytes of a body of known length.
    remaining: Option<u64>,
    delivered: Option<oneshot::Sender<()>>,
}

impl Answer {
    fn deliver(&mut self) {
        if let Some(delivered) = self.delivered.take() {
            // The guest may have ended first.
            let _ = delivered.send(());
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(None) => self.deliver(),
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.remaining = self.remaining.map(|bytes| bytes.saturating_sub(length));
                if self.remaining == Some(0) {
                    self.deliver();
                }
            }
            _ => {}
        }
        frame.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_takes_authority_from_host_header() {
        let cases = [
            ("/a?b=c", Some("example.com:8080"), Some("https://example.com:8080/a?b=c")),
            ("/a", None, Some("https://localhost/a")),
            ("http://other.test/a", Some("example.com"), Some("https://other.test/a")),
            ("/a", Some("not a host"), None),
        ];
        for (uri, host, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.extend(host.map(|host| (header::HOST, host.parse().unwrap())));
            let found =
                absolute(uri.parse().unwrap(), &headers, Scheme::HTTPS).ok().map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{uri} {host:?}");
        }
    }
}
