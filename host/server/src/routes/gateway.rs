//! Requests for language models of upstreams, which are forwarded.
//!
//! # Layout
//!
//! - `request`: the body of a request, with the upstream's name of the model
//! - `piece`: an answer, or a part of one, with the texts in it
//! - `input`, `guarded`: the texts of requests and answers under a guard
//! - `sending`: sends a request; errors of it, and of the upstream
//! - `stream`: answers as server-sent events
//! - `account`: usage, cost and outcome of a request

mod account;
mod guarded;
mod input;
mod piece;
mod request;
mod sending;
mod stream;

use std::sync::Arc;

use account::Account;
use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
pub(super) use guarded::Guarded;
use infer_sandbox::Reservation;
use input::Input;
use piece::Piece;
use request::Members;
use sending::{request_id, send};

use super::context::{Caller, RequestContext};
use super::guard::{Admission, Guard};
use crate::error::ApiError;
use crate::upstream::{Answer, Cause, Outgoing, Upstream};

/// A request for a model of an upstream.
pub(super) struct Forward {
    /// The model's name in the request.
    pub(super) model: String,
    upstream: Arc<Upstream>,
    body: Bytes,
    stream: bool,
}

/// Returns the request to forward, if `model` in `body` is that of an upstream. Otherwise, or if
/// the body is not such an object, the caller handles the request.
///
/// # Errors
///
/// 400 or 413 if the body cannot be forwarded.
pub(super) fn find(context: &RequestContext, body: &[u8]) -> Result<Option<Forward>, ApiError> {
    if context.upstreams.is_empty() {
        return Ok(None);
    }
    let body = super::json::utf8(body)?;
    let Some(members) = Members::read(body) else { return Ok(None) };
    let Some((upstream, name)) = context.upstreams.find(&members.model) else { return Ok(None) };
    if std::str::from_utf8(body).is_err() {
        return Err(ApiError::invalid("", "the body is not UTF-8; expected JSON in UTF-8"));
    }
    let max = upstream.config.max_body_bytes;
    if body.len() > max {
        let upstream = &upstream.name;
        let message =
            format!("the body is larger than {max} bytes, the `max_body_bytes` of upstream `{upstream}`");
        return Err(ApiError::too_large(message));
    }
    let forwarded = members.renamed(body, name);
    let Members { model, stream, .. } = members;
    Ok(Some(Forward { model, upstream: upstream.clone(), body: forwarded, stream }))
}

impl Forward {
    /// Name of the upstream.
    pub(super) fn upstream(&self) -> &str {
        &self.upstream.name
    }

    /// True if the answer is streamed.
    pub(super) fn is_streamed(&self) -> bool {
        self.stream
    }

    /// Sends the request to `path` of the upstream, and returns its answer. `call` has the
    /// deadline.
    ///
    /// # Errors
    ///
    /// Errors of the upstream: 4xx with their own message, others with the upstream and the cause;
    /// those of its guard.
    pub(super) async fn answer(
        self,
        context: &RequestContext,
        caller: &Caller,
        path: &'static str,
        guarded: Option<Guarded>,
        call: &infer_sandbox::Request,
    ) -> Result<Response, ApiError> {
        let Forward { model, upstream, body, stream } = self;
        let account = Account::new(upstream.clone(), caller, model);
        let mut memory = context.registry.sandbox.memory().reservation();
        // Beside the body that has arrived, which belongs to the request until its end.
        memory.grow(body.len()).map_err(|_| Cause::Memory.error(&upstream.name))?;
        let accept = if stream { "text/event-stream" } else { "application/json" };
        let outgoing = Outgoing { path, accept, body };
        if stream {
            let unsent = context.registry.sandbox.memory().reservation();
            return stream::begin(account, outgoing, call.deadline, guarded, memory, unsent).await;
        }
        whole(account, &outgoing, call.deadline, guarded, memory).await
    }

    /// Judges the input, and redacts it if the guard says so.
    ///
    /// # Errors
    ///
    /// As [`Guard::admit`], and 400 for input that the guard cannot judge.
    pub(super) async fn admit(
        &mut self,
        guard: &Guard,
        owner: &str,
        call: &infer_sandbox::Request,
    ) -> Result<Admission, ApiError> {
        let mut input = Input::new(&self.body)?;
        if self.stream && guard.judges_answers() && input.answers() != 1 {
            let message = format!(
                "`n` is {}, expected 1: the guard of this upstream judges one streamed answer",
                input.answers()
            );
            return Err(ApiError::invalid("n", message));
        }
        let admission = guard.admit(|| input.turns(), owner, call).await?;
        self.body = input.redacted().unwrap_or_else(|| self.body.clone());
        Ok(admission)
    }
}

/// Forwards an answer that is not streamed.
async fn whole(
    mut account: Account,
    outgoing: &Outgoing,
    deadline: std::time::Instant,
    guarded: Option<Guarded>,
    mut memory: Reservation,
) -> Result<Response, ApiError> {
    let mut answer = send(&mut account, outgoing, deadline).await?;
    let piece = match read(&mut answer, &mut memory).await {
        Ok(piece) => piece,
        Err(cause) => {
            answer.fail(&cause);
            return Err(account.failed(&cause));
        }
    };
    let (status, id) = (answer.status, request_id(&answer));
    answer.succeed().await;
    account.count(&piece);
    account.end("ok");
    let json = match guarded {
        Some(Guarded { guard, owner, remarks, call }) => {
            guarded::whole(&guard, piece, remarks, &owner, &call).await?
        }
        None => piece.into_json(),
    };
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    let mut response = (status, headers, json).into_response();
    response.headers_mut().extend(id);
    Ok(response)
}

/// Reads a whole answer.
async fn read(answer: &mut Answer, memory: &mut Reservation) -> Result<Piece, Cause> {
    let mut body = Vec::new();
    while let Some(data) = answer.next().await? {
        memory.grow(data.len()).map_err(|_| Cause::Memory)?;
        body.extend_from_slice(&data);
    }
    let piece = Piece::read(body)?;
    match piece.error() {
        Some(message) => Err(Cause::Reported(message)),
        None => Ok(piece),
    }
}
