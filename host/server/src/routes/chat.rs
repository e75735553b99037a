//! `POST /v1/chat/completions` and `POST /v1/completions`: OpenAI's API for language models, whole
//! or streamed.
//!
//! # Layout
//!
//! - `body`: the members of a body; `unsupported`: members accepted only at their neutral values
//! - `request`: parses a body into an engine request; `turns`: the messages
//! - `answer`: from the model through the guard; `response`: an answer as OpenAI's objects;
//!   `logprobs`: those of its tokens
//! - `stream`: the answer as server-sent events; `schema`: the OpenAPI schemas

mod alternatives;
mod answer;
mod body;
mod form;
mod format;
mod logprobs;
mod request;
mod response;
mod schema;
mod stream;
mod turns;
mod unsupported;

use std::sync::Arc;

use answer::{Ended, Turn};
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
pub(super) use form::Form;
use infer_engine::{Model, Session, TokenUsage};
use request::ParsedRequest;
use response::{End, Head, Written};
pub(super) use schema::openapi;
use stream::Stream;

use super::call::Call;
use super::context::{Caller, RequestContext};
use super::gateway::{self, Forward, Guarded};
use super::guard::Admission;
use super::guard::turns::of_prompt;
use crate::error::ApiError;

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
    let body = body?;
    // The prefix cache and the judged turns are shared between the chats of one API key, and never
    // across keys.
    let owner: Arc<str> =
        caller.0.as_ref().map_or_else(|| "/v1".into(), |key| format!("/v1 {}", key.name).into());
    if let Some(forward) = gateway::find(&context, &body)? {
        if !caller.may_ask(&forward.model) {
            return Err(unknown(&context, &caller, &forward.model));
        }
        return pass_on(forward, &context, &caller, form, owner, &call).await;
    }
    let ParsedRequest { model, mut request, stream, include_usage } = request::read(form, &body)?;
    let model = find(&context, &caller, &model)?.clone();
    let head = Head::new(form, &call.id, &model, request.params.logprobs.is_some());
    let guard = context.guards.of(model.name()).cloned();
    let admission = match &guard {
        Some(guard) => guard.admit(|| of_prompt(&mut request.prompt), &owner, &call).await?,
        None => Admission::Read(Vec::new()),
    };
    let unsent = || context.registry.sandbox.memory().reservation();
    let remarks = match admission {
        Admission::Read(remarks) => remarks,
        Admission::Refuse(remark) => {
            let refusal = guard.as_ref().map_or("", |guard| guard.refusal());
            let answer = Stream { head, include_usage, remarks: vec![remark], unsent: unsent() };
            return Ok(refuse(answer, refusal, stream));
        }
    };
    let model = model.ensure_loaded(call.deadline).await?;
    let turn = Turn { model, session: Session::new(&owner), request, guard, owner, call };
    if stream {
        let stream = Stream { head, include_usage, remarks, unsent: unsent() };
        return stream::begin(turn, stream).await;
    }
    let (written, Ended { end, usage, timings, .. }) = turn.whole(remarks).await?;
    Ok(Json(head.completion(written, end, usage, timings)).into_response())
}

/// Passes a request on to its upstream, under the guard that it may have.
async fn pass_on(
    mut forward: Forward,
    context: &RequestContext,
    caller: &Caller,
    form: Form,
    owner: Arc<str>,
    call: &infer_sandbox::Request,
) -> Result<Response, ApiError> {
    let mut guarded = None;
    if let Some(guard) = context.guards.of_upstream(forward.upstream()) {
        match forward.admit(guard, &owner, call).await? {
            Admission::Read(remarks) => {
                guarded = Some(Guarded { guard: guard.clone(), owner, remarks, call: call.clone() });
            }
            Admission::Refuse(remark) => {
                let (head, unsent) = (
                    Head::remote(form, &call.id, &forward.model),
                    context.registry.sandbox.memory().reservation(),
                );
                let answer = Stream { head, include_usage: false, remarks: vec![remark], unsent };
                return Ok(refuse(answer, guard.refusal(), forward.is_streamed()));
            }
        }
    }
    forward.answer(context, caller, form.upstream_path(), guarded, call).await
}

/// The response to a request that a guard refused.
fn refuse(answer: Stream, refusal: &str, is_streamed: bool) -> Response {
    if is_streamed {
        return stream::refused(answer, refusal);
    }
    let Stream { head, remarks, .. } = answer;
    let written = Written { text: refusal.to_owned(), remarks, ..Written::default() };
    Json(head.completion(written, End::REFUSED, TokenUsage::default(), None)).into_response()
}

/// Looks up the language model called `name`.
fn find<'e>(context: &'e RequestContext, caller: &Caller, name: &str) -> Result<&'e Arc<Model>, ApiError> {
    let found = context.registry.models.get(name);
    found.filter(|model| may_use(caller, model)).ok_or_else(|| unknown(context, caller, name))
}

fn may_use(caller: &Caller, model: &Model) -> bool {
    model.is_language() && caller.may_ask(model.name())
}

/// The error for a model `name` that the caller may not use, or that does not exist.
fn unknown(context: &RequestContext, caller: &Caller, name: &str) -> ApiError {
    let local = context.registry.models.values().filter(|model| may_use(caller, model));
    let remote = context.upstreams.models().map(|(name, _)| name).filter(|name| caller.may_ask(name));
    let known: Vec<_> = local.map(|model| model.name()).chain(remote).collect();
    ApiError::no_model(name, &known, &no_language_model(caller.0.is_some()))
}

/// Message for a caller without a usable language model, with the remedy.
fn no_language_model(has_key: bool) -> String {
    let scope = if has_key { " that this API key may use" } else { "" };
    format!(
        "no language model is configured{scope}; a section [models.NAME] of the server's infer.toml with the \
         `source` of a GGUF file adds one, such as `builtin:qwen2.5-1.5b` after `infer pull qwen2.5-1.5b`"
    )
}
