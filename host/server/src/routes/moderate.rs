//! `POST /moderate` and `POST /v1/moderations`: text and images in, OpenAI's moderation schema out.

mod action;
mod choice;
mod explanation;
mod extensions;
mod input;
mod response;
mod schema;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

pub use action::CATEGORIES;
use action::{Action, Mode};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{OriginalUri, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
pub(super) use choice::{Choice, Moderators};
pub use explanation::WordSpan;
use explanation::{Explanation, Judged};
pub use extensions::Explain;
use extensions::{Extensions, OnTimeout};
use infer_config::ServerConfig;
use infer_control::registry::LoadedComponent;
use infer_engine::RunError;
use infer_sandbox::CallError;
use infer_sandbox::types::{Fault, Gap, Kinds, Part, Verdict};
use input::ModerationRequest;
pub use response::{LabelledSpan, ModerateResponse};
pub(super) use schema::openapi;
use serde::Deserialize;
pub(super) use store::ResponseStore;
use store::{JudgedResponse, StoreKey, Tenant};
use tokio::task::JoinSet;

use super::call::{Call, Permit};
use super::context::{Caller, RequestContext};
use crate::admission::Admission;
use crate::error::ApiError;
use crate::limits::{MAX_CONCURRENT_INPUTS, MAX_IDEMPOTENCY_KEY_BYTES};
use crate::rates::client_address;
use crate::serve::Peer;

/// State of the moderation routes.
#[derive(Clone)]
pub(super) struct ModerationState {
    pub(super) choice: Choice,
    server: Arc<ServerConfig>,
    responses: Arc<ResponseStore>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    mode: Option<Mode>,
}

pub(super) async fn handle(
    State(state): State<ModerationState>,
    (Extension(call), Extension(permit), Extension(caller)): (Call, Permit, Extension<Caller>),
    peer: Option<Extension<Peer>>,
    OriginalUri(uri): OriginalUri,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Query(Parameters { mode }) = parameters?;
    let body = body?;
    let work = state.check(&call, &permit, &caller, &body)?;
    let mode = mode.unwrap_or_default();
    let Some(key) = headers.get(store::IDEMPOTENCY_KEY) else {
        return Ok(work.judge(mode).await?.response.into_response());
    };
    if !(1..=MAX_IDEMPOTENCY_KEY_BYTES).contains(&key.len()) {
        let message =
            format!("`Idempotency-Key` has {} bytes, expected 1 to {MAX_IDEMPOTENCY_KEY_BYTES}", key.len());
        return Err(ApiError::invalid("Idempotency-Key", message));
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let key = StoreKey {
        tenant: tenant(&caller, peer.map(|Extension(peer)| peer)),
        key: store::hash(&[key.as_bytes()]),
        request: store::hash(&[target.as_bytes(), &body]),
        version: work.loaded.clone(),
    };
    Ok(state.responses.get_or_judge(&key, work.judge(mode)).await?.into_response())
}

/// The tenant that stored responses belong to.
fn tenant(caller: &Caller, peer: Option<Peer>) -> Tenant {
    match (&caller.0, peer.and_then(Peer::ip)) {
        (Some(key), _) => Tenant::Key(key.hash),
        (None, Some(ip)) => Tenant::Address(client_address(ip)),
        (None, None) => Tenant::Socket,
    }
}

/// An admitted moderation request.
struct Work<'s> {
    loaded: &'s Arc<LoadedComponent>,
    inputs: Vec<Vec<Part>>,
    extensions: Extensions,
    call: infer_sandbox::Request,
}

impl ModerationState {
    pub(super) fn new(context: &RequestContext, choice: Choice) -> Self {
        let server = Arc::new(context.server.clone());
        ModerationState { choice, server, responses: context.responses.clone() }
    }

    /// Makes all checks that a request must pass before it is judged or gets a stored response.
    fn check(
        &self,
        call: &infer_sandbox::Request,
        permit: &Admission,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Work<'_>, ApiError> {
        let ModerationRequest { model, inputs, extensions } = input::parse(body, self.server.max_inputs)?;
        let loaded = self.choice.component(model.as_deref())?;
        caller.check(loaded.component.name())?;
        // Every input counts, including those queued behind inputs of the same request.
        permit.grow(inputs.len()).map_err(|_| ApiError::busy())?;
        let call = with_deadline(call, &self.server, &extensions)?;
        Ok(Work { loaded, inputs, extensions, call })
    }
}

impl Work<'_> {
    async fn judge(self, mode: Mode) -> Result<JudgedResponse, ApiError> {
        let Work { loaded, inputs, extensions, call } = self;
        let is_array = inputs.len() > 1;
        let response = judge(loaded, &call, inputs, &extensions).await.map_err(|(index, error)| {
            ApiError::from(error).at(if is_array { format!("input[{index}]") } else { "input".to_owned() })
        })?;
        response.check_thresholds(&extensions)?;
        Ok(JudgedResponse { response: response.render(mode), is_complete: response.is_complete })
    }
}

/// The same call, with the deadline of its request.
fn with_deadline(
    call: &infer_sandbox::Request,
    server: &ServerConfig,
    extensions: &Extensions,
) -> Result<infer_sandbox::Request, ApiError> {
    let Some(requested) = extensions.deadline else { return Ok(call.clone()) };
    let Some(earlier) = server.deadline.checked_sub(requested) else {
        let message = format!(
            "`infer.deadline_ms` is {}, expected at most {}, the server's `deadline_ms`",
            requested.as_millis(),
            server.deadline.as_millis()
        );
        return Err(ApiError::invalid("infer.deadline_ms", message));
    };
    Ok(call.until(call.deadline - earlier))
}

/// Judges each input on its own instance, by the component's thresholds, and explains it.
///
/// # Errors
///
/// The first error, with the index of its input; the other inputs are cancelled.
pub async fn respond(
    loaded: &Arc<LoadedComponent>,
    request: &infer_sandbox::Request,
    inputs: Vec<Vec<Part>>,
    explain: Explain,
) -> Result<ModerateResponse, (usize, CallError)> {
    judge(loaded, request, inputs, &Extensions { explain, ..Extensions::default() }).await
}

async fn judge(
    loaded: &Arc<LoadedComponent>,
    request: &infer_sandbox::Request,
    inputs: Vec<Vec<Part>>,
    extensions: &Extensions,
) -> Result<ModerateResponse, (usize, CallError)> {
    let started = Instant::now();
    let request = &request.with_settings(extensions.settings());
    let mut verdicts: Vec<Option<Judged>> = inputs.iter().map(|_| None).collect();
    let mut late = Vec::new();
    let mut queued = inputs.into_iter().enumerate();
    // Dropping the set, on an error or a disconnect, cancels the inputs in flight.
    let mut running = JoinSet::new();
    loop {
        // An input that is alone needs no task of its own.
        let (index, outcome) = if verdicts.len() == 1 {
            let Some((index, parts)) = queued.next() else { break };
            (index, loaded.moderate(request, &parts).await)
        } else {
            while running.len() < MAX_CONCURRENT_INPUTS {
                let Some((index, parts)) = queued.next() else { break };
                let (loaded, request) = (loaded.clone(), request.clone());
                running.spawn(async move { (index, loaded.moderate(&request, &parts).await) });
            }
            let Some(joined) = running.join_next().await else { break };
            joined.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))
        };
        let verdict = match outcome.result {
            Ok(mut verdict) => {
                apply_thresholds(&extensions.thresholds, &mut verdict);
                verdict
            }
            Err(error) if is_late(&error) && extensions.on_timeout != OnTimeout::Error => {
                late.push(index);
                unjudged()
            }
            Err(error) => return Err((index, error)),
        };
        verdicts[index] = Some(Judged { verdict, usage: outcome.usage, annotations: outcome.annotations });
    }
    late.sort_unstable();
    let mut verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
    let action = action(&verdicts, &late, extensions.on_timeout);
    let is_complete = late.is_empty() && verdicts.iter().all(|judged| !judged.usage.is_partial);
    let explanation = |judged| Explanation::new(judged, extensions.explain);
    let shown = extensions.explain.is_shown().then(|| verdicts.iter().map(explanation).collect());
    let sentences = match verdicts.first_mut() {
        Some(judged) if extensions.explain == Explain::Sentences => {
            std::mem::take(&mut judged.annotations.sentences)
        }
        _ => Vec::new(),
    };
    let mut response = ModerateResponse::new(loaded, request, verdicts, started);
    (response.action, response.is_complete, response.sentences) = (action, is_complete, sentences);
    (response.infer.late, response.infer.explanations) = (late, shown.unwrap_or_default());
    Ok(response)
}

/// True if the deadline of the request has passed, as opposed to a budget of the component.
fn is_late(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Deadline { .. }
            | CallError::Fault { fault: Fault::Model(_), model: Some(RunError::Deadline { .. }), .. }
    )
}

/// The verdict on an input that was not judged in time.
fn unjudged() -> Verdict {
    let gap = |&category: &&str| Gap {
        category: category.to_owned(),
        unjudged: Kinds::all(),
        reason: "not judged within the request's deadline".to_owned(),
    };
    Verdict { flagged: false, scores: Vec::new(), gaps: CATEGORIES.iter().map(gap).collect() }
}

/// Flags by the thresholds of the request, if it has any.
fn apply_thresholds(thresholds: &BTreeMap<String, f32>, verdict: &mut Verdict) {
    if thresholds.is_empty() {
        return;
    }
    for score in &mut verdict.scores {
        if let Some(&threshold) = thresholds.get(&score.category) {
            score.flagged = score.score >= threshold;
        }
    }
    verdict.flagged = verdict.scores.iter().any(|score| score.flagged);
}

/// True if parts of one kind have both a score and a gap in a category: they were judged
/// incompletely.
fn is_partly_judged(verdict: &Verdict) -> bool {
    let both = |one: Kinds, other: Kinds| {
        [Kinds::TEXT, Kinds::IMAGE].into_iter().any(|kind| one.contains(kind) && other.contains(kind))
    };
    verdict.gaps.iter().any(|gap| {
        let mut scores = verdict.scores.iter().filter(|score| score.category == gap.category);
        scores.any(|score| both(score.applied, gap.unjudged))
    })
}

fn action(verdicts: &[Judged], late: &[usize], on_timeout: OnTimeout) -> Action {
    let is_incomplete = |(index, Judged { verdict, .. }): (usize, &Judged)| {
        let unjudged =
            verdict.scores.is_empty() && !(late.contains(&index) && on_timeout == OnTimeout::Allow);
        unjudged || is_partly_judged(verdict)
    };
    if verdicts.iter().any(|judged| judged.verdict.flagged) {
        Action::Block
    } else if verdicts.iter().enumerate().any(is_incomplete) {
        Action::Review
    } else {
        Action::Allow
    }
}
