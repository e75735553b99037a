//! `POST /moderate` and `POST /v1/moderations`: text and images in, OpenAI's moderation schema out.

mod answers;
mod choice;
mod extensions;
mod input;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{OriginalUri, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use infer_engine::{RunError, TokenUsage};
use infer_sandbox::types::{CategoryScore, Fault, Gap, Kinds, Part, Tier, Verdict};
use infer_sandbox::{CallError, Usage};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use super::json::beginning;
use super::timings::{self, Judges};
use super::{Call, Caller, Place, Timings};
use crate::admission::Admission;
use crate::app::Policy;
use crate::config::ServerConfig;
use crate::error::ApiError;

use answers::Answer;
pub(super) use answers::Answers;
pub(super) use choice::{Choice, Moderators};
use extensions::{Extensions, OnTimeout};
use input::Ask;

/// The categories of OpenAI's moderation API: every answer holds each of them.
pub const CATEGORIES: [&str; 13] = [
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
];

const ACTION: HeaderName = HeaderName::from_static("x-infer-action");
const SCORE: HeaderName = HeaderName::from_static("x-infer-score");

/// Inputs of one request that are judged at the same time: enough to fill batches, and too few to shut others out.
const SIDE_BY_SIDE: usize = 8;

/// What the handler is given.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) choice: Choice,
    pub(super) server: Arc<ServerConfig>,
    pub(super) answers: Arc<Answers>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    mode: Option<Mode>,
}

/// What is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// OpenAI's schema.
    #[default]
    Full,
    /// 200 or 403 without a body, for a proxy.
    Gate,
}

pub(super) async fn handle(
    State(desk): State<Desk>,
    Extension(call): Call,
    Extension(place): Place,
    Extension(caller): Extension<Caller>,
    OriginalUri(uri): OriginalUri,
    parameters: Result<Query<Parameters>, QueryRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let Query(Parameters { mode }) = parameters?;
    let body = body?;
    let work = desk.judge(&call, &place, &caller, mode.unwrap_or_default(), &body);
    let Some(key) = headers.get(answers::IDEMPOTENCY_KEY) else {
        return work.await.map(Answer::into_response);
    };
    if !(1..=255).contains(&key.len()) {
        let message = format!("`Idempotency-Key` is of {} bytes, expected 1 to 255", key.len());
        return Err(ApiError::invalid("Idempotency-Key", message));
    }
    let who = caller.0.as_ref().map_or("", |key| &key.name);
    let key = answers::hash(&[who.as_bytes(), key.as_bytes()]);
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let kept = desk.answers.place(key, answers::hash(&[target.as_bytes(), &body]))?;
    let answer = kept.get_or_try_init(|| work).await?.clone();
    desk.answers.drop_long(&key, &answer);
    Ok(answer.into_response())
}

impl Desk {
    async fn judge(
        &self,
        call: &infer_sandbox::Request,
        place: &Admission,
        caller: &Caller,
        mode: Mode,
        body: &[u8],
    ) -> Result<Answer, ApiError> {
        let Ask { model, inputs, extensions } = input::parse(body, self.server.max_inputs)?;
        let policy = self.choice.component(model.as_deref())?;
        caller.check(policy.component.name())?;
        // Every input counts, also those that wait for others of their own request.
        place.grow(inputs.len()).map_err(|_| ApiError::busy())?;
        let several = inputs.len() > 1;
        let call = with_deadline(call, &self.server, &extensions)?;
        let response = judge(policy, &call, inputs, &extensions).await.map_err(|(index, error)| {
            ApiError::from(error).at(if several { format!("input[{index}]") } else { "input".to_owned() })
        })?;
        response.knows(&extensions)?;
        Ok(response.answer(mode))
    }
}

/// The same call, with the deadline that its request asks for.
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
    Ok(infer_sandbox::Request { id: call.id.clone(), deadline: call.deadline - less })
}

/// Judge each input on an instance of its own, by the component's own thresholds.
///
/// # Errors
///
/// The first failure, with the index of its input; the other inputs are abandoned.
pub(crate) async fn respond(
    policy: &Arc<Policy>,
    request: &infer_sandbox::Request,
    inputs: Vec<Vec<Part>>,
) -> Result<ModerateResponse, (usize, CallError)> {
    judge(policy, request, inputs, &Extensions::default()).await
}

async fn judge(
    policy: &Arc<Policy>,
    request: &infer_sandbox::Request,
    inputs: Vec<Vec<Part>>,
    extensions: &Extensions,
) -> Result<ModerateResponse, (usize, CallError)> {
    let began = Instant::now();
    let mut verdicts: Vec<Option<(Verdict, Usage)>> = inputs.iter().map(|_| None).collect();
    let mut late = Vec::new();
    let mut waiting = inputs.into_iter().enumerate();
    // Dropping the set, on an error or when the client goes, abandons what is under way.
    let mut running = JoinSet::new();
    loop {
        while running.len() < SIDE_BY_SIDE {
            let Some((index, parts)) = waiting.next() else { break };
            let (policy, request) = (policy.clone(), request.clone());
            running.spawn(async move { (index, policy.component.moderate(&request, &parts).await) });
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
    response.infer.late = late;
    if extensions.explain {
        response.infer.explanations = verdicts.iter().map(|(verdict, _)| verdict.into()).collect();
    }
    Ok(response)
}

/// Whether the deadline has passed: the request's, and not a budget of the component's.
fn is_late(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Deadline { .. }
            | CallError::Fault { fault: Fault::Model(_), model: Some(RunError::Deadline { .. }), .. }
    )
}

/// The verdict on what nobody judged in time.
fn unjudged() -> Verdict {
    let gap = |&category: &&str| Gap {
        category: category.to_owned(),
        unjudged: Kinds::all(),
        reason: "not judged within the request's deadline".to_owned(),
    };
    Verdict { flagged: false, scores: Vec::new(), gaps: CATEGORIES.iter().map(gap).collect() }
}

/// Flag by the request's thresholds, where it has any.
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

/// What to do with the content of the request, all inputs together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing is flagged.
    Allow,
    /// Nothing is flagged, and some input was not judged at all.
    Review,
    /// Something is flagged.
    Block,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Allow => "allow",
            Action::Review => "review",
            Action::Block => "block",
        }
    }
}

fn action(verdicts: &[(Verdict, Usage)], late: &[usize], on_timeout: OnTimeout) -> Action {
    let unseen = |(index, (verdict, _)): (usize, &(Verdict, Usage))| {
        verdict.scores.is_empty() && !(late.contains(&index) && on_timeout == OnTimeout::Allow)
    };
    if verdicts.iter().any(|(verdict, _)| verdict.flagged) {
        Action::Block
    } else if verdicts.iter().enumerate().any(unseen) {
        Action::Review
    } else {
        Action::Allow
    }
}

/// OpenAI's answer, with our facts in `infer`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModerateResponse {
    id: String,
    model: String,
    pub(crate) results: Vec<Judgement>,
    pub(crate) infer: Facts,
    #[serde(skip)]
    pub(crate) action: Action,
}

/// OpenAI's result for one input.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Judgement {
    pub(crate) flagged: bool,
    categories: BTreeMap<String, bool>,
    pub(crate) category_scores: BTreeMap<String, f32>,
    category_applied_input_types: BTreeMap<String, Vec<&'static str>>,
    /// Ours: `language` where a language model had a say in some category, else `classifier`; absent where nobody judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    /// Ours: who decided on each category that was judged.
    pub(crate) category_tiers: BTreeMap<String, &'static str>,
}

/// What OpenAI's schema has no place for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Facts {
    #[serde(flatten)]
    pub(crate) judges: Judges,
    /// What no model could judge, or not as it was to: a score of 0 in these categories says nothing of the content.
    pub(crate) degraded: Vec<Degraded>,
    /// The indices of inputs that were not judged within the deadline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    late: Vec<usize>,
    /// One for each result, where the request asked for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    explanations: Vec<Explanation>,
    /// Of language models, over all inputs; absent where none ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<TokenUsage>,
    pub(crate) timings: Timings,
}

/// A category that some input could not be judged for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Degraded {
    pub(crate) category: String,
    pub(crate) input_types: Vec<&'static str>,
    pub(crate) reason: String,
}

impl ModerateResponse {
    fn new(
        policy: &Policy,
        request: &infer_sandbox::Request,
        verdicts: &[(Verdict, Usage)],
        began: Instant,
    ) -> Self {
        let mut degraded = Vec::new();
        for (verdict, _) in verdicts {
            for gap in verdict.gaps.iter().map(Degraded::from) {
                if !degraded.contains(&gap) {
                    degraded.push(gap);
                }
            }
        }
        ModerateResponse {
            id: format!("modr-{}", request.id),
            model: policy.component.name().to_owned(),
            results: verdicts.iter().map(|(verdict, _)| Judgement::from(verdict)).collect(),
            infer: Facts {
                judges: Judges::new(policy),
                degraded,
                late: Vec::new(),
                explanations: Vec::new(),
                tokens: timings::tokens(verdicts.iter().map(|(_, usage)| usage)),
                timings: Timings::new(verdicts.iter().map(|(_, usage)| usage), began.elapsed()),
            },
            action: Action::Allow,
        }
    }

    /// The highest score of any category of any input.
    fn score(&self) -> f32 {
        self.results.iter().flat_map(|result| result.category_scores.values().copied()).fold(0.0, f32::max)
    }

    /// Whether each category that the request set a threshold for is one.
    fn knows(&self, extensions: &Extensions) -> Result<(), ApiError> {
        let known = |name: &String| self.results.iter().any(|result| result.categories.contains_key(name));
        let Some(unknown) = extensions.thresholds.keys().find(|name| !known(name)) else { return Ok(()) };
        let path = format!("infer.thresholds.{}", beginning(unknown));
        let names: Vec<_> =
            self.results.iter().flat_map(|result| result.categories.keys()).take(64).collect();
        let names: BTreeSet<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        Err(ApiError::invalid(path.as_str(), format!("`{path}` is no category; expected one of {names}")))
    }

    fn answer(&self, mode: Mode) -> Answer {
        let status = match (mode, self.action) {
            (Mode::Gate, Action::Block) => StatusCode::FORBIDDEN,
            _ => StatusCode::OK,
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACTION, HeaderValue::from_static(self.action.word()));
        if let Ok(score) = HeaderValue::from_str(&format!("{:.4}", self.score())) {
            headers.insert(SCORE, score);
        }
        let body = match mode {
            Mode::Gate => Bytes::new(),
            Mode::Full => {
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                // Strings, numbers and maps by string: nothing of it can fail.
                serde_json::to_vec(self).unwrap_or_default().into()
            }
        };
        Answer { status, headers, body }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, self.headers, self.body).into_response()
    }
}

/// Why a result is as it is.
#[derive(Clone, Debug, Serialize)]
struct Explanation {
    /// The categories that were judged, the highest score first.
    judged: Vec<Judged>,
    /// Those that were not, for this input.
    degraded: Vec<Degraded>,
}

#[derive(Clone, Debug, Serialize)]
struct Judged {
    category: String,
    score: f32,
    flagged: bool,
    tier: &'static str,
    input_types: Vec<&'static str>,
}

impl From<&Verdict> for Explanation {
    fn from(verdict: &Verdict) -> Self {
        let judged = |score: &CategoryScore| Judged {
            category: score.category.clone(),
            score: score.score,
            flagged: score.flagged,
            tier: tier(score.tier),
            input_types: kinds(score.applied),
        };
        let mut judged: Vec<_> = verdict.scores.iter().map(judged).collect();
        judged.sort_by(|one, other| other.score.total_cmp(&one.score));
        Explanation { judged, degraded: verdict.gaps.iter().map(Degraded::from).collect() }
    }
}

impl From<&Verdict> for Judgement {
    fn from(verdict: &Verdict) -> Self {
        let all = || CATEGORIES.iter().map(|&category| category.to_owned());
        let mut judgement = Judgement {
            flagged: verdict.flagged,
            categories: all().map(|category| (category, false)).collect(),
            category_scores: all().map(|category| (category, 0.0)).collect(),
            category_applied_input_types: all().map(|category| (category, Vec::new())).collect(),
            tier: verdict
                .scores
                .iter()
                .map(|score| tier(score.tier))
                .reduce(|one, other| if one == other { one } else { tier(Tier::Language) }),
            category_tiers: BTreeMap::new(),
        };
        for score in &verdict.scores {
            let category = &score.category;
            judgement.categories.insert(category.clone(), score.flagged);
            judgement.category_scores.insert(category.clone(), score.score);
            judgement.category_applied_input_types.insert(category.clone(), kinds(score.applied));
            judgement.category_tiers.insert(category.clone(), tier(score.tier));
        }
        judgement
    }
}

impl From<&Gap> for Degraded {
    fn from(gap: &Gap) -> Self {
        Degraded {
            category: gap.category.clone(),
            input_types: kinds(gap.unjudged),
            reason: gap.reason.clone(),
        }
    }
}

fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Classifier => "classifier",
        Tier::Language => "language",
    }
}

fn kinds(kinds: Kinds) -> Vec<&'static str> {
    let named = [(Kinds::TEXT, "text"), (Kinds::IMAGE, "image")];
    named.into_iter().filter(|(kind, _)| kinds.contains(*kind)).map(|(_, name)| name).collect()
}
