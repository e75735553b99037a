//! `POST /v1/chat/completions` and `POST /v1/completions`: OpenAI's API for language models, whole
//! or streamed.
//!
//! # Layout
//!
//! - `request`: parses a body into an engine request, `turns` the messages; `accepted`: members
//!   accepted only at their neutral values
//! - `response`: an engine answer as OpenAI's objects
//! - `stream`: the answer as server-sent events; `schema`: the OpenAPI schemas

mod accepted;
mod alternatives;
mod form;
mod request;
mod response;
mod schema;
mod stream;
mod turns;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderName, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Json};
use form::{Form, language};
use infer_engine::{Model, Session};
use request::Asked;
use response::Head;
use utoipa::openapi::path::HttpMethod;

use super::call::Call;
use super::context::{self, AdmissionLayer, Caller, RequestContext};
use super::document::Table;
use crate::error::ApiError;

/// Header that makes nginx and similar proxies forward a stream unbuffered.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

#[derive(Clone)]
struct Endpoint {
    context: Arc<RequestContext>,
    form: Form,
}

pub(super) fn table(context: &Arc<RequestContext>) -> Table {
    // A language model has its own bounded queue.
    let door = AdmissionLayer { context: context.clone(), component: None, gate: None, takes_codings: false };
    let route = |form| {
        let endpoint = Endpoint { context: context.clone(), form };
        let admit = from_fn_with_state(door.clone(), context::admit);
        post(handle).route_layer(admit).with_state(endpoint)
    };
    let forms = infer_config::paths::COMPLETIONS.into_iter().zip([Form::Chat, Form::Completion]);
    forms.fold(Table::default(), |table, (path, form)| {
        table.route(path, HttpMethod::Post, route(form), schema::openapi(form))
    })
}

async fn handle(
    State(Endpoint { context, form }): State<Endpoint>,
    Extension(caller): Extension<Caller>,
    Extension(call): Call,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Asked { model, request, stream, include_usage } = request::read(form, &body?)?;
    let model = find(&context, &caller, &model)?.clone();
    let head = Head::new(form, &call.id, &model, request.params.logprobs.is_some());
    let model = model.ensure_loaded(call.deadline).await?;
    // The prefix cache is shared between the chats of one API key, and never across keys.
    let component = caller.0.as_ref().map_or_else(|| "/v1".into(), |key| format!("/v1 {}", key.name).into());
    let session = Session::new(&component);
    if stream {
        let unsent = context.app.sandbox.memory().reservation();
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
    let mut session = session;
    let answer = language(&model)?.run(&mut session, request, None, call.deadline).await?;
    Ok(Json(head.whole(answer)?).into_response())
}

/// Looks up the language model called `name`.
fn find<'e>(context: &'e RequestContext, caller: &Caller, name: &str) -> Result<&'e Arc<Model>, ApiError> {
    let reached = |name: &str| caller.0.as_ref().is_none_or(|key| key.may_ask(name));
    let served = |model: &Model| model.is_language() && reached(model.name());
    context.app.models.get(name).filter(|model| served(model)).ok_or_else(|| {
        let known: Vec<_> = context.app.models.values().filter(|model| served(model)).collect();
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
