//! Sends a request to an upstream. An error of the request, 4xx, becomes that of this server.

use std::time::Instant;

use axum::http::{HeaderName, HeaderValue};
use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde_json::Value;

use super::account::Account;
use crate::error::ApiError;
use crate::upstream::{Answer, Outgoing};

/// Header of a response with the upstream's own id of the request.
const UPSTREAM_REQUEST_ID: HeaderName = HeaderName::from_static("x-upstream-request-id");

/// Code of an upstream's error without one of its own.
const REJECTED: &str = "upstream_rejected";

/// Sends a request, and returns its answer if it is one; an error of the request becomes that of
/// this server.
pub(super) async fn send(
    account: &mut Account,
    outgoing: &Outgoing,
    deadline: Instant,
) -> Result<Answer, ApiError> {
    let upstream = account.upstream.clone();
    match upstream.send(outgoing, deadline).await {
        Ok(mut answer) if answer.status.is_client_error() => {
            account.end("rejected");
            let error = rejection(&upstream.name, &mut answer).await;
            answer.succeed().await;
            Err(error)
        }
        Ok(answer) => match answer.expect_type(outgoing.accept) {
            Ok(()) => Ok(answer),
            Err(cause) => {
                answer.fail(&cause);
                Err(account.failed(&cause))
            }
        },
        Err(cause) => Err(account.failed(&cause)),
    }
}

/// The upstream's id of the request, as a header.
pub(super) fn request_id(answer: &Answer) -> Option<(HeaderName, HeaderValue)> {
    Some((UPSTREAM_REQUEST_ID, answer.headers.get("x-request-id")?.clone()))
}

/// An upstream's 4xx as an error of this server.
async fn rejection(name: &str, answer: &mut Answer) -> ApiError {
    let text = answer.error_text().await;
    let body = serde_json::from_slice::<Value>(&text).unwrap_or_default();
    let error = body.get("error").unwrap_or(&body);
    let member = |name: &str| error.get(name).and_then(Value::as_str);
    let message = error.as_str().or(member("message")).or(member("detail"));
    let message = message.map_or_else(|| format!("answered {}", answer.status), str::to_owned);
    let code = member("code").or(member("type")).filter(|code| !code.is_empty());
    let code = code.map_or_else(|| REJECTED.to_owned(), |code| excerpt(code, QUOTE_BYTES).into_owned());
    let error = ApiError::upstream(answer.status, code, format!("upstream `{name}`: {message}"));
    error.at(member("param").unwrap_or_default())
}
