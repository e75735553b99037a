//! Causes for which a request to an upstream fails. Their texts are for clients: they name no
//! address and no path of this machine. The log has the details.

use std::io;
use std::time::Duration;

use axum::http::StatusCode;
use infer_engine::text::{QUOTE_BYTES, excerpt_of};
use rustls::CertificateError;
use tracing::warn;

use crate::error::ApiError;

/// Cause of a failure. The texts continue "upstream `NAME`".
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    #[error("has a host name that cannot be resolved")]
    Resolve(String),
    #[error(
        "resolves to {0}, to which no connection is made; the operator can permit loopback and private addresses with \
         `private_addresses`"
    )]
    Address(&'static str),
    #[error("refuses connections")]
    Refused,
    #[error("cannot be reached")]
    Unreachable(String),
    #[error("did not accept a connection within {} ms (`connect_ms`)", .0.as_millis())]
    ConnectTimeout(Duration),
    #[error("{words}")]
    Tls { words: &'static str, detail: String },
    #[error("closed the connection before it answered")]
    Lost(String),
    #[error("did not answer within {} ms (`first_byte_ms`)", .0.as_millis())]
    FirstByte(Duration),
    #[error("sent nothing for {} ms in the middle of its response (`idle_ms`)", .0.as_millis())]
    Stalled(Duration),
    #[error("closed the connection in the middle of its response")]
    Cut(String),
    #[error("ended its stream without `finish_reason` and `[DONE]`")]
    Unfinished,
    #[error("did not answer in HTTP/1.1")]
    NotHttp(String),
    #[error(
        "answered with a redirect ({0}), which is not followed; the operator must configure the final URL"
    )]
    Redirect(StatusCode),
    #[error("rejected the API key of this server ({0}); the operator must configure a valid one")]
    Key(StatusCode),
    #[error("answered {status}")]
    Status { status: StatusCode, retry_after: Option<Duration> },
    #[error("answered with the content type {found}, expected `{expected}`")]
    ContentType { found: String, expected: &'static str },
    #[error("answered with the content coding {0}, which was not asked for")]
    Coding(String),
    #[error("sent a response of more than {0} bytes (`max_response_bytes`)")]
    ResponseTooLarge(usize),
    #[error("sent an event of more than {0} bytes (`max_event_bytes`)")]
    EventTooLarge(usize),
    #[error("sent text that is not UTF-8")]
    NotUtf8,
    #[error("sent invalid JSON")]
    NotJson(String),
    #[error("reported an error in its stream: {0}")]
    Reported(String),
    #[error("has failed several times in a row; it is tried again in {} s", seconds(*.0))]
    Open(Duration),
    #[error(
        "has as many requests in flight as this server permits (`connections`); try again after a second"
    )]
    Busy,
    #[error("had not answered completely at the request's deadline")]
    Deadline,
    #[error("was not read to the end of its answer, because the memory of requests is exhausted")]
    Memory,
}

/// Whole seconds of a wait, at least one.
fn seconds(wait: Duration) -> u64 {
    wait.as_millis().div_ceil(1_000).max(1) as u64
}

impl Cause {
    /// The cause for an error while connecting.
    pub(super) fn connecting(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Cause::Refused,
            _ => Cause::Unreachable(error.to_string()),
        }
    }

    /// The cause for an error of a TLS handshake.
    pub(super) fn handshake(error: &io::Error) -> Self {
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        let words = match tls {
            Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "has an expired TLS certificate"
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "has a TLS certificate that is not valid yet"
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "has a TLS certificate for another host"
                }
                CertificateError::UnknownIssuer => {
                    "has a TLS certificate of an unknown issuer; the operator can set `ca_file`"
                }
                _ => "has an invalid TLS certificate",
            },
            _ => "did not complete the TLS handshake",
        };
        Cause::Tls { words, detail: error.to_string() }
    }

    /// The cause for an error of the connection before the head of a response.
    pub(super) fn head(error: &hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_too_large() || error.is_parse_status() {
            Cause::NotHttp(error.to_string())
        } else {
            Cause::Lost(detail(error))
        }
    }

    /// The cause for an error in the body of a response.
    pub(super) fn body(error: &hyper::Error) -> Self {
        Cause::Cut(detail(error))
    }

    /// True if the upstream has failed, so that the circuit breaker counts it.
    pub(super) fn is_failure(&self) -> bool {
        !matches!(
            self,
            Cause::Key(_)
                | Cause::ResponseTooLarge(_)
                | Cause::EventTooLarge(_)
                | Cause::Open(_)
                | Cause::Busy
                | Cause::Deadline
                | Cause::Memory
                | Cause::Status { status: StatusCode::TOO_MANY_REQUESTS, .. }
        )
    }

    /// True if the request may be sent again: no byte of a response has arrived, or a status that
    /// asks for it.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(
            self,
            Cause::Resolve(_)
                | Cause::Refused
                | Cause::Unreachable(_)
                | Cause::ConnectTimeout(_)
                | Cause::Lost(_)
        ) || matches!(self, Cause::Status { status, .. } if matches!(status.as_u16(), 429 | 502 | 503 | 504))
    }

    /// Outcome of the request, for the metrics.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Cause::Open(_) => "open",
            Cause::Busy | Cause::Memory => "busy",
            Cause::ConnectTimeout(_) | Cause::FirstByte(_) | Cause::Stalled(_) | Cause::Deadline => "timeout",
            _ => "failed",
        }
    }

    /// Details for the log, which the text does not have.
    fn detail(&self) -> &str {
        match self {
            Cause::Resolve(detail)
            | Cause::Unreachable(detail)
            | Cause::Tls { detail, .. }
            | Cause::Lost(detail)
            | Cause::Cut(detail)
            | Cause::NotHttp(detail)
            | Cause::NotJson(detail) => detail,
            _ => "",
        }
    }

    /// The error for the client, which names the upstream `name`. It is logged with its details.
    pub(crate) fn error(&self, name: &str) -> ApiError {
        let detail = excerpt_of(self.detail(), QUOTE_BYTES);
        warn!(upstream = name, detail, "upstream `{name}` {self}");
        let message = format!("upstream `{name}` {self}");
        let (status, code, retry_after) = match self {
            Cause::Memory => return ApiError::busy(),
            Cause::Open(wait) => (StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", Some(*wait)),
            Cause::Busy => (StatusCode::TOO_MANY_REQUESTS, "upstream_busy", Some(Duration::from_secs(1))),
            Cause::Status { status, retry_after } => {
                let status = match status.as_u16() {
                    429 | 503 | 504 => *status,
                    _ => StatusCode::BAD_GATEWAY,
                };
                (status, "upstream_failed", *retry_after)
            }
            Cause::ConnectTimeout(_) | Cause::FirstByte(_) | Cause::Stalled(_) | Cause::Deadline => {
                (StatusCode::GATEWAY_TIMEOUT, "upstream_timeout", None)
            }
            Cause::Resolve(_)
            | Cause::Address(_)
            | Cause::Refused
            | Cause::Unreachable(_)
            | Cause::Tls { .. }
            | Cause::Lost(_) => (StatusCode::BAD_GATEWAY, "upstream_unreachable", None),
            _ => (StatusCode::BAD_GATEWAY, "upstream_failed", None),
        };
        ApiError::upstream(status, code, message).after(retry_after.map(seconds))
    }
}

/// The text of an error with that of its cause.
fn detail(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
