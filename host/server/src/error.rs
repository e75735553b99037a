//! Errors of requests as responses: 4xx explain the problem, 5xx hide it and log it.

use std::borrow::Cow;
use std::fmt::{self, Display};

use axum::Json;
use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::rejection::{BytesRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use infer_engine::RunError;
use infer_engine::text::{MESSAGE_BYTES, QUOTE_BYTES, excerpt, excerpt_of};
use infer_sandbox::types::Fault;
use infer_sandbox::{CallError, Cause};
use serde::Serialize;
use tracing::{error, warn};
use utoipa::ToSchema;

use crate::rates::Wait;

/// Code of a 415 for a compressed body, which lists the accepted codings in `accept-encoding`.
const UNSUPPORTED_ENCODING: &str = "unsupported_encoding";

/// An error as the client sees it. Its texts are excerpts, so a response cannot be inflated by
/// quoting the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    status: StatusCode,
    /// Machine-readable code.
    code: Cow<'static, str>,
    /// Human-readable message.
    message: String,
    /// Path of the invalid part of the request.
    param: Option<String>,
    /// Value of `Retry-After`, in seconds.
    retry_after: Option<u64>,
}

impl ApiError {
    /// 400: the request is invalid at `param`, a path such as `input[2].text`.
    pub fn invalid(param: impl Display, message: impl Display) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_input", message).at(param)
    }

    /// 401: an API key is required, and the request has none.
    pub fn no_key() -> Self {
        let message = "API key missing; send the header `Authorization: Bearer KEY`";
        ApiError::new(StatusCode::UNAUTHORIZED, "missing_api_key", message)
    }

    /// 401: the API key is unknown.
    pub fn wrong_key() -> Self {
        let message = "invalid API key; expected one that the operator of this server has issued";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    /// 403: the API key does not permit this.
    pub fn forbidden(message: impl Display) -> Self {
        ApiError::new(StatusCode::FORBIDDEN, "not_allowed", message)
    }

    /// 404: no route at `path`.
    pub fn not_found(path: &str) -> Self {
        let path = excerpt(path, QUOTE_BYTES);
        let message = format!("no route `{path}`; GET /v1/models lists models, components and their routes");
        ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 404: no model has this name, or the key may not use it.
    /// `known` are the names that the caller may use. If it is empty, the message is `empty`, which
    /// names the remedy.
    pub fn no_model(name: &str, known: &[&str], empty: &str) -> Self {
        let name = excerpt(name, QUOTE_BYTES);
        let message = match known {
            [] => format!("unknown model `{name}`; {empty}"),
            known => format!("unknown model `{name}`; expected one of `{}`", known.join("`, `")),
        };
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
    }

    /// 404: the model has no such version.
    pub fn no_version(message: impl Display) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, "version_not_found", message)
    }

    /// 404: no component is named `model`, or the request names none and there are several; `names`
    /// lists them.
    pub fn no_moderator(model: Option<&str>, names: &str) -> Self {
        let message = match model {
            Some(model) => {
                let model = excerpt(model, QUOTE_BYTES);
                format!("unknown moderator `{model}`; expected one of {names}")
            }
            None => format!("`model` is missing, and there is no default moderator; expected one of {names}"),
        };
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).at("model")
    }

    /// 422: an `Idempotency-Key` was reused with another request.
    pub fn key_reused() -> Self {
        let message =
            "`Idempotency-Key` was used before with another request; send a new key with a new request";
        let code = "idempotency_key_reused";
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).at("Idempotency-Key")
    }

    /// 405: the route does not support this method.
    pub fn method_not_allowed(method: &str, path: &str) -> Self {
        let (method, path) = (excerpt(method, QUOTE_BYTES), excerpt(path, QUOTE_BYTES));
        let message = format!("`{path}` does not support the method {method}");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
    }

    /// 408: the body did not arrive in time.
    pub fn slow_request() -> Self {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow_request",
            "the request did not arrive within its deadline",
        )
    }

    /// 413: a limit of the server is exceeded.
    pub fn too_large(message: impl Display) -> Self {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    /// 415: unsupported content type.
    pub fn unsupported_media(message: impl Display) -> Self {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media", message)
    }

    /// 415: compressed body.
    pub fn unsupported_encoding(message: impl Display) -> Self {
        ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, UNSUPPORTED_ENCODING, message)
    }

    /// 501: an unsupported transfer coding.
    pub fn unsupported_transfer(message: impl Display) -> Self {
        ApiError::new(StatusCode::NOT_IMPLEMENTED, "unsupported_transfer", message)
    }

    /// 503: the server is not ready, or is stopping.
    pub fn unavailable(message: impl Display) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 503: the moderator `name` of a chat's guard reported no score for a text.
    pub fn unjudged(name: &str) -> Self {
        ApiError::unavailable(format!("the moderator `{name}` of this chat's guard could not judge a text"))
    }

    /// 400: a chat's guard blocked the input for `categories`.
    pub fn content_policy(categories: &[String]) -> Self {
        let message = format!("the input was blocked: {}", categories.join(", "));
        ApiError::new(StatusCode::BAD_REQUEST, "content_policy_violation", message)
    }

    /// 409: the reload was rejected for the reason in `message`; the previous state is still
    /// served.
    pub fn not_reloaded(message: impl Display) -> Self {
        ApiError::new(StatusCode::CONFLICT, "not_reloaded", message)
    }

    /// Machine-readable code.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// Status of the response.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Value of `Retry-After` in seconds, if known.
    pub fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    fn new(status: StatusCode, code: impl Into<Cow<'static, str>>, message: impl Display) -> Self {
        let message = excerpt_of(message, MESSAGE_BYTES);
        ApiError { status, code: code.into(), message, param: None, retry_after: None }
    }

    /// An error of an upstream: 429 or 5xx, of which the message names the upstream and the cause;
    /// or 4xx, with the upstream's own code and message.
    pub(crate) fn upstream(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        message: impl Display,
    ) -> Self {
        ApiError::new(status, code, message)
    }

    /// The same error, with this `Retry-After` in seconds.
    #[must_use]
    pub(crate) fn after(self, retry_after: Option<u64>) -> Self {
        ApiError { retry_after, ..self }
    }

    /// 429: the server is at capacity.
    pub fn busy() -> Self {
        let message = "the server is at capacity; try again after a second";
        ApiError::rejected("busy", message, 1)
    }

    /// 429: the token bucket of `subject` is empty.
    pub fn rate_limited(subject: &str, wait: Wait) -> Self {
        let seconds = wait.seconds();
        let message = format!("rate limit of {subject} exceeded; try again after {seconds} s");
        ApiError::rejected("rate_limited", message, seconds)
    }

    /// 429: the concurrency limit of the key is reached.
    pub fn too_many_at_once() -> Self {
        let message =
            "concurrency limit of this API key reached; try again when one of its requests has ended";
        ApiError::rejected("too_many_at_once", message, 1)
    }

    fn rejected(code: &'static str, message: impl Display, retry_after: u64) -> Self {
        let retry_after = Some(retry_after);
        ApiError { retry_after, ..ApiError::new(StatusCode::TOO_MANY_REQUESTS, code, message) }
    }

    /// 413: the body is longer than `max` bytes.
    pub fn body_too_large(max: usize) -> Self {
        ApiError::too_large(format!("the body is larger than {max} bytes, the server's `max_body_bytes`"))
    }

    /// 504: the deadline passed before a response was ready.
    pub fn deadline() -> Self {
        ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            "the request was not answered within its deadline",
        )
    }

    /// 500: an error inside the server.
    pub fn internal(code: &'static str) -> Self {
        let message = "internal error; the server's log has the reason, under this request's id";
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, code, message)
    }

    /// The same error, with `param` as the path of the part of the request that it is about.
    #[must_use]
    pub fn at(mut self, param: impl Display) -> Self {
        if self.status.is_client_error() && self.param.is_none() {
            self.param = Some(excerpt_of(param, QUOTE_BYTES)).filter(|param| !param.is_empty());
        }
        self
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let response = match &error {
            CallError::Busy { .. } => ApiError::busy(),
            CallError::Deadline { .. } => ApiError::deadline(),
            CallError::Stopped { component, cause } => {
                warn!(component, cause = cause.label(), "guest stopped: {cause}");
                return match cause {
                    Cause::GuestTime(_) => ApiError {
                        message: "the component exceeded its time limit".into(),
                        code: "guest_time".into(),
                        ..ApiError::deadline()
                    },
                    Cause::ServerMemory(_) => ApiError::busy(),
                    _ => ApiError::internal("guest_stopped"),
                };
            }
            CallError::Answer { .. } => ApiError::internal("guest_failed"),
            CallError::World { .. } => ApiError::internal("internal"),
            CallError::Fault { fault, model, .. } => from_fault(fault, model.as_ref()),
        };
        if response.status.is_server_error() {
            error!(code = response.code(), "{error}");
        }
        response
    }
}

impl From<RunError> for ApiError {
    fn from(error: RunError) -> Self {
        match &error {
            RunError::InvalidInput { .. } | RunError::Unsupported { .. } => {
                ApiError::invalid("", error.to_string())
            }
            RunError::TooLarge { .. } => ApiError::too_large(error.to_string()),
            RunError::Busy { .. } => ApiError::busy(),
            RunError::Deadline { .. } => ApiError::deadline(),
            RunError::Failed { .. } | RunError::Closed { .. } => {
                error!(code = "model_failed", "{error}");
                ApiError::internal("model_failed")
            }
        }
    }
}

fn from_fault(fault: &Fault, model: Option<&RunError>) -> ApiError {
    match (fault, model) {
        (Fault::InvalidInput(message), _) => ApiError::new(StatusCode::BAD_REQUEST, "invalid_input", message),
        (Fault::UnsupportedMedia(message), _) => ApiError::unsupported_media(message),
        (Fault::TooLarge(message), _) => ApiError::too_large(message),
        (Fault::Model(_), Some(RunError::TooLarge { message, .. })) => ApiError::too_large(message),
        (Fault::Model(_), Some(RunError::Busy { .. })) => ApiError::busy(),
        (Fault::Model(_), Some(RunError::Deadline { .. })) => ApiError::deadline(),
        (Fault::Model(_), _) => ApiError::internal("model_failed"),
        (Fault::Internal(_), _) => ApiError::internal("guest_failed"),
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        from_body(rejection.status(), rejection.body_text())
    }
}

impl From<MultipartRejection> for ApiError {
    fn from(rejection: MultipartRejection) -> Self {
        ApiError::invalid("", rejection.body_text())
    }
}

impl From<MultipartError> for ApiError {
    fn from(error: MultipartError) -> Self {
        from_body(error.status(), error.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        ApiError::invalid("", rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        ApiError::invalid("", rejection.body_text())
    }
}

fn from_body(status: StatusCode, message: String) -> ApiError {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::too_large("the body is larger than the server's `max_body_bytes`");
    }
    ApiError::invalid("", message)
}

impl Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error in OpenAI's format.
#[derive(Serialize, ToSchema)]
#[schema(as = Failure)]
pub(crate) struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FailureFacts)]
struct Body<'a> {
    /// Human-readable message.
    message: &'a str,
    /// `invalid_request_error` or `server_error`.
    r#type: &'static str,
    /// Path of the invalid part of the request.
    param: Option<&'a str>,
    /// Machine-readable code.
    code: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = if self.status.is_client_error() { "invalid_request_error" } else { "server_error" };
        let body =
            Body { message: &self.message, r#type: kind, param: self.param.as_deref(), code: &self.code };
        let mut response = (self.status, Json(Envelope { error: body })).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        if self.code == UNSUPPORTED_ENCODING {
            response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        // Read by protocols that format errors differently.
        response.extensions_mut().insert(self);
        response
    }
}
