//! `POST /v1/chat/completions` and `POST /v1/completions`: OpenAI's API for language models, whole
//! or streamed.
//!
//! # Layout
//!
//! - `body`: the members of a body; `unsupported`: members accepted only at their neutral values
//! - `request`: parses a body into an engine request; `turns`: the messages
//! - `response`: an engine answer as OpenAI's objects
//! - `stream`: the answer as server-sent events; `schema`: the OpenAPI schemas

mod alternatives;
mod body;
mod form;
mod format;
mod request;
mod response;
mod schema;
mod stream;
mod turns;
mod unsupported;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
pub(super) use form::Form;
use form::language;
use infer_engine::{Model, Session};
use request::ParsedRequest;
use response::Head;
pub(super) use schema::openapi;

use super::call::Call;
use super::context::{Caller, RequestContext};
use crate::error::ApiError;

/// Header that makes nginx and similar proxies forward a stream unbuffered.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// State of one of the two routes.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub(super) context: Arc<RequestContext>,
    pub(super) form: Form,
}

pub(super) async fn handle(
    State(Endpoint { context, form }): State<Endpoint>,
    Extension(caller): Extension<Caller>,
    Extension(call): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let ParsedRequest { model, request, stream, include_usage } = request::read(form, &body?)?;
    let model = find(&context, &caller, &model)?.clone();
    let head = Head::new(form, &call.id, &model, request.params.logprobs.is_some());
    let model = model.ensure_loaded(call.deadline).await?;
    // The prefix cache is shared between the chats of one API key, and never across keys.
    let owner = caller.0.as_ref().map_or_else(|| "/v1".into(), |key| format!("/v1 {}", key.name).into());
    let mut session = Session::new(&owner);
    if stream {
        let unsent = context.registry.sandbox.memory().reservation();
        let events =
            stream::begin(model, session, request, head, include_usage, call.deadline, unsent).await?;
        let headers = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-cache"),
            // A buffering proxy would delay events.
            (ACCEL_BUFFERING, "no"),
        ];
        return Ok((headers, events).into_response());
    }
    let answer = language(&model)?.run(&mut session, request, None, call.deadline).await?;
    Ok(Json(head.completion(answer)?).into_response())
}

/// Looks up the language model called `name`.
fn find<'e>(context: &'e RequestContext, caller: &Caller, name: &str) -> Result<&'e Arc<Model>, ApiError> {
    let may_use =
        |model: &Model| model.is_language() && caller.0.as_ref().is_none_or(|key| key.may_ask(model.name()));
    let models = &context.registry.models;
    models.get(name).filter(|model| may_use(model)).ok_or_else(|| {
        let known: Vec<_> = models.values().filter(|model| may_use(model)).collect();
        let known: Vec<_> = known.iter().map(|model| model.name()).collect();
        ApiError::no_model(name, &known, &no_language_model(caller.0.is_some()))
    })
}

/// Message for a caller without a usable language model, with the remedy.
fn no_language_model(has_key: bool) -> String {
    let scope = if has_key { " that this API key may use" } else { "" };
    format!(
        "no language model is configured{scope}; a section [models.NAME] of the server's infer.toml with the \
         `source` of a GGUF file adds one, such as `builtin:qwen2.5-1.5b` after `infer pull qwen2.5-1.5b`"
    )
}
