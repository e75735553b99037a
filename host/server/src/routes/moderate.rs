//! `POST /moderate` and `POST /v1/moderations`: text and images in, OpenAI's moderation schema out.

mod action;
mod answers;
mod choice;
mod extensions;
mod input;
mod response;
mod schema;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

pub use action::CATEGORIES;
use action::{Action, Mode};
pub(super) use answers::Answers;
use answers::{Asked, Judged, Tenant};
use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{OriginalUri, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
pub(super) use choice::{Choice, Moderators};
use extensions::{Extensions, OnTimeout};
use infer_config::ServerConfig;
use infer_control::registry::LoadedComponent;
use infer_engine::RunError;
use infer_sandbox::types::{Fault, Gap, Kinds, Part, Verdict};
use infer_sandbox::{CallError, Usage};
use input::Ask;
pub use response::ModerateResponse;
pub(super) use schema::openapi;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::call::{Call, Place};
use super::context::Caller;
use crate::admission::Admission;
use crate::error::ApiError;
use crate::rates::counted;
use crate::serve::Peer;

/// Inputs of one request that are judged concurrently: enough to fill batches, and too few to
/// starve other requests.
const SIDE_BY_SIDE: usize = 8;

/// State of the moderation routes.
#[derive(Clone)]
pub(super) struct ModerationState {
    pub(super) choice: Choice,
    pub(super) server: Arc<ServerConfig>,
    pub(super) answers: Arc<Answers>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    mode: Option<Mode>,
}

pub(super) async fn handle(
    State(desk): State<ModerationState>,
    (Extension(call), Extension(place), Extension(caller)): (Call, Place, Extension<Caller>),
    peer: Option<Extension<Peer>>,
    OriginalUri(uri): OriginalUri,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Query(Parameters { mode }) = parameters?;
    let body = body?;
    let work = desk.check(&call, &place, &caller, &body)?;
    let mode = mode.unwrap_or_default();
    let Some(key) = headers.get(answers::IDEMPOTENCY_KEY) else {
        return Ok(work.judge(mode).await?.answer.into_response());
    };
    if !(1..=255).contains(&key.len()) {
        let message = format!("`Idempotency-Key` is of {} bytes, expected 1 to 255", key.len());
        return Err(ApiError::invalid("Idempotency-Key", message));
    }
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let asked = Asked {
        tenant: tenant(&caller, peer.map(|Extension(peer)| peer)),
        key: answers::hash(&[key.as_bytes()]),
        request: answers::hash(&[target.as_bytes(), &body]),
        version: work.policy.clone(),
    };
    Ok(desk.answers.keep(&asked, work.judge(mode)).await?.into_response())
}

/// The tenant that stored answers belong to.
fn tenant(caller: &Caller, peer: Option<Peer>) -> Tenant {
    match (&caller.0, peer.and_then(Peer::ip)) {
        (Some(key), _) => Tenant::Key(key.hash),
        (None, Some(ip)) => Tenant::Address(counted(ip)),
        (None, None) => Tenant::Socket,
    }
}

/// An admitted moderation request.
struct Work<'d> {
    policy: &'d Arc<LoadedComponent>,
    inputs: Vec<Vec<Part>>,
    extensions: Extensions,
    call: infer_sandbox::Request,
}

impl ModerationState {
    /// Makes all checks that a request must pass before it is judged or gets a stored answer.
    fn check(
        &self,
        call: &infer_sandbox::Request,
        place: &Admission,
        caller: &Caller,
        body: &[u8],
    ) -> Result<Work<'_>, ApiError> {
        let Ask { model, inputs, extensions } = input::parse(body, self.server.max_inputs)?;
        let policy = self.choice.component(model.as_deref())?;
        caller.check(policy.component.name())?;
        // Every input counts, including those queued behind inputs of the same request.
        place.grow(inputs.len()).map_err(|_| ApiError::busy())?;
        let call = with_deadline(call, &self.server, &extensions)?;
        Ok(Work { policy, inputs, extensions, call })
    }
}

impl Work<'_> {
    async fn judge(self, mode: Mode) -> Result<Judged, ApiError> {
        let Work { policy, inputs, extensions, call } = self;
        let several = inputs.len() > 1;
        let response = judge(policy, &call, inputs, &extensions).await.map_err(|(index, error)| {
            ApiError::from(error).at(if several { format!("input[{index}]") } else { "input".to_owned() })
        })?;
        response.knows(&extensions)?;
        Ok(Judged { answer: response.answer(mode), is_complete: response.is_complete })
    }
}

/// The same call, with the deadline of its request.
fn with_deadline(
    call: &infer_sandbox::Request,
    server: &ServerConfig,
    extensions: &Extensions,
) -> Result<infer_sandbox::Request, ApiError> {
    let Some(wanted) = extensions.deadline else { return Ok(call.clone()) };
    let Some(less) = server.deadline.checked_sub(wanted) else {
        let message = format!(
            "`infer.deadline_ms` is {}, expected at most {}, the server's `deadline_ms`",
            wanted.as_millis(),
            server.deadline.as_millis()
        );
        return Err(ApiError::invalid("infer.deadline_ms", message));
    };
    Ok(call.until(call.deadline - less))
}

/// Judges each input on its own instance, by the component's thresholds.
///
/// # Errors
///
/// The first error, with the index of its input; the other inputs are cancelled.
pub async fn respond(
    policy: &Arc<LoadedComponent>,
    request: &infer_sandbox::Request,
    inputs: Vec<Vec<Part>>,
) -> Result<ModerateResponse, (usize, CallError)> {
    judge(policy, request, inputs, &Extensions::default()).await
}

async fn judge(
    policy: &Arc<LoadedComponent>,
    request: &infer_sandbox::Request,
    inputs: Vec<Vec<Part>>,
    extensions: &Extensions,
) -> Result<ModerateResponse, (usize, CallError)> {
    let began = Instant::now();
    let mut verdicts: Vec<Option<(Verdict, Usage)>> = inputs.iter().map(|_| None).collect();
    let mut late = Vec::new();
    let mut waiting = inputs.into_iter().enumerate();
    // Dropping the set, on an error or a disconnect, cancels the inputs in flight.
    let mut running = JoinSet::new();
    loop {
        while running.len() < SIDE_BY_SIDE {
            let Some((index, parts)) = waiting.next() else { break };
            let (policy, request) = (policy.clone(), request.clone());
            running.spawn(async move { (index, policy.moderate(&request, &parts).await) });
        }
        let Some(joined) = running.join_next().await else { break };
        let (index, outcome) =
            joined.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()));
        let verdict = match outcome.result {
            Ok(mut verdict) => {
                apply(&extensions.thresholds, &mut verdict);
                verdict
            }
            Err(error) if is_late(&error) && extensions.on_timeout != OnTimeout::Error => {
                late.push(index);
                unjudged()
            }
            Err(error) => return Err((index, error)),
        };
        verdicts[index] = Some((verdict, outcome.usage));
    }
    late.sort_unstable();
    let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
    let mut response = ModerateResponse::new(policy, request, &verdicts, began);
    response.action = action(&verdicts, &late, extensions.on_timeout);
    response.is_complete = late.is_empty() && verdicts.iter().all(|(_, usage)| !usage.is_partial);
    response.infer.late = late;
    if extensions.explain {
        response.infer.explanations = verdicts.iter().map(|(verdict, _)| verdict.into()).collect();
    }
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
fn apply(thresholds: &BTreeMap<String, f32>, verdict: &mut Verdict) {
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
fn judged_in_part(verdict: &Verdict) -> bool {
    let both = |one: Kinds, other: Kinds| {
        [Kinds::TEXT, Kinds::IMAGE].into_iter().any(|kind| one.contains(kind) && other.contains(kind))
    };
    verdict.gaps.iter().any(|gap| {
        let mut scores = verdict.scores.iter().filter(|score| score.category == gap.category);
        scores.any(|score| both(score.applied, gap.unjudged))
    })
}

fn action(verdicts: &[(Verdict, Usage)], late: &[usize], on_timeout: OnTimeout) -> Action {
    let unseen = |(index, (verdict, _)): (usize, &(Verdict, Usage))| {
        let unjudged =
            verdict.scores.is_empty() && !(late.contains(&index) && on_timeout == OnTimeout::Allow);
        unjudged || judged_in_part(verdict)
    };
    if verdicts.iter().any(|(verdict, _)| verdict.flagged) {
        Action::Block
    } else if verdicts.iter().enumerate().any(unseen) {
        Action::Review
    } else {
        Action::Allow
    }
}
