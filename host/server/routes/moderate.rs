//! `POST /moderate`: text and images in, OpenAI's moderation schema out.

mod input;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::{Extension, Json};
use infer_engine::TokenUsage;
use infer_sandbox::types::{Kinds, Part, Tier, Verdict};
use infer_sandbox::{CallError, Usage};
use serde::Serialize;
use tokio::task::JoinSet;

use super::timings::{self, Judges};
use super::{Call, Endpoint, Place, Timings};
use crate::app::Policy;
use crate::error::ApiError;

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

/// Inputs of one request that are judged at the same time: enough to fill batches, and too few to shut others out.
const SIDE_BY_SIDE: usize = 8;

pub(super) async fn handle(
    State(endpoint): State<Endpoint>,
    Extension(call): Call,
    Extension(place): Place,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ModerateResponse>, ApiError> {
    let inputs = input::parse(&body?, endpoint.server.max_inputs)?;
    // Every input counts, also those that wait for others of their own request.
    place.grow(inputs.len()).map_err(|_| ApiError::busy())?;
    let several = inputs.len() > 1;
    let response = respond(&endpoint.policy, &call, inputs).await;
    response.map(Json).map_err(|(index, error)| {
        ApiError::from(error).at(if several { format!("input[{index}]") } else { "input".to_owned() })
    })
}

/// Judge each input on an instance of its own.
///
/// # Errors
///
/// The first failure, with the index of its input; the other inputs are abandoned.
pub(crate) async fn respond(
    policy: &Arc<Policy>,
    request: &infer_sandbox::Request,
    inputs: Vec<Vec<Part>>,
) -> Result<ModerateResponse, (usize, CallError)> {
    let began = Instant::now();
    let mut verdicts: Vec<Option<(Verdict, Usage)>> = inputs.iter().map(|_| None).collect();
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
        let verdict = outcome.result.map_err(|error| (index, error))?;
        verdicts[index] = Some((verdict, outcome.usage));
    }
    let verdicts: Vec<_> = verdicts.into_iter().flatten().collect();
    Ok(ModerateResponse::new(policy, request, &verdicts, began))
}

/// OpenAI's answer, with our facts in `infer`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModerateResponse {
    id: String,
    model: String,
    pub(crate) results: Vec<Judgement>,
    pub(crate) infer: Facts,
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
                tokens: timings::tokens(verdicts.iter().map(|(_, usage)| usage)),
                timings: Timings::new(verdicts.iter().map(|(_, usage)| usage), began.elapsed()),
            },
        }
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

impl From<&infer_sandbox::types::Gap> for Degraded {
    fn from(gap: &infer_sandbox::types::Gap) -> Self {
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
