//! Response to a moderation request: OpenAI's schema with additional members.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use infer_control::registry::LoadedComponent;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use infer_sandbox::types::{CategoryScore, Sentence, Span, Tier, Verdict};
use serde::Serialize;
use utoipa::ToSchema;

use super::action::{Action, CATEGORIES, Mode};
use super::explanation::{Degraded, Explanation, Judged, kinds, tier};
use super::extensions::Extensions;
use super::store::StoredResponse;
use crate::error::ApiError;
use crate::routes::timings::{Judges, Tokens};
use crate::routes::{Timings, document, timings};

pub(super) const ACTION: HeaderName = HeaderName::from_static("x-infer-action");
pub(super) const SCORE: HeaderName = HeaderName::from_static("x-infer-score");

/// Content type of a response without a body. It is set so that responses can be distinguished by
/// their type.
pub(super) const NO_BODY: &str = "text/plain";

/// Size of the buffer for a response with one input, in bytes.
const BODY_BYTES: usize = 4 << 10;

/// Name of a category, which is not copied if it is one of OpenAI's.
type Name = Cow<'static, str>;

/// OpenAI's response, with additional members in `infer`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Moderation)]
pub struct ModerateResponse {
    id: String,
    model: String,
    /// One result for each input.
    pub results: Vec<Judgement>,
    /// Additional members of this server.
    pub infer: Facts,
    /// The action for the whole request.
    #[serde(skip)]
    pub action: Action,
    /// True if every input was judged, by all models that should judge it.
    #[serde(skip)]
    pub(super) is_complete: bool,
    /// Scores of the sentences of the first input, if they were asked for.
    #[serde(skip)]
    pub(crate) sentences: Vec<Sentence>,
}

/// OpenAI's result for one input.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Judgement {
    pub flagged: bool,
    #[schema(value_type = BTreeMap<String, bool>)]
    categories: BTreeMap<Name, bool>,
    #[schema(value_type = BTreeMap<String, f32>)]
    pub category_scores: BTreeMap<Name, f32>,
    #[schema(value_type = BTreeMap<String, Vec<String>>)]
    category_applied_input_types: BTreeMap<Name, &'static [&'static str]>,
    /// Additional: `language` if a language model judged some category, otherwise `classifier`;
    /// absent if nothing was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    tier: Option<&'static str>,
    /// Additional: the tier that decided each judged category.
    #[schema(value_type = BTreeMap<String, String>)]
    pub category_tiers: BTreeMap<Name, &'static str>,
}

/// Members that OpenAI's schema does not have.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = ModerationFacts)]
pub struct Facts {
    #[serde(flatten)]
    pub judges: Judges,
    /// Categories that no model could judge completely: a score of 0 there says nothing about the
    /// content.
    pub degraded: Vec<Degraded>,
    /// For each result, the categories beyond OpenAI's that the models' cards name, such as
    /// `insult`; empty if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<BTreeMap<String, FurtherCategory>>,
    /// Labelled spans of the texts, if a model that labels spans is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<Vec<LabelledSpan>>,
    /// Indices of inputs that were not judged within the deadline.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) late: Vec<usize>,
    /// One for each result, if the request asked for explanations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub explanations: Vec<Explanation>,
    /// Token usage of language models, over all inputs; absent if none ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<Tokens>,
    pub timings: Timings,
}

/// Score of a category beyond OpenAI's.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct FurtherCategory {
    pub score: f32,
    /// True if the score reaches its threshold; false if it has none.
    pub flagged: bool,
    pub tier: &'static str,
}

/// A labelled span of a text.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct LabelledSpan {
    /// Index of the input.
    pub input: usize,
    /// Index of the part of the input.
    pub part: u32,
    /// Label of the model, such as `EMAIL`.
    pub label: String,
    /// Probability of the label.
    pub score: f32,
    /// First character, in Unicode scalar values.
    pub start: u32,
    /// Character behind the last one.
    pub end: u32,
}

impl ModerateResponse {
    pub(super) fn new(
        loaded: &LoadedComponent,
        request: &infer_sandbox::Request,
        verdicts: Vec<Judged>,
        started: Instant,
    ) -> Self {
        let further = further_categories(loaded);
        let labels_spans = loaded.component.models().values().any(|model| model.labels_spans());
        let results = verdicts.iter().map(|judged| Judgement::new(&judged.verdict, &further)).collect();
        let categories = further_scores(&verdicts, &further);
        let spans = labels_spans.then(|| labelled_spans(&verdicts));
        let tokens = timings::tokens(verdicts.iter().map(|judged| &judged.usage));
        let timings = Timings::new(verdicts.iter().map(|judged| &judged.usage), started.elapsed());
        let mut degraded: Vec<Degraded> = Vec::new();
        for gap in verdicts.into_iter().flat_map(|judged| judged.verdict.gaps) {
            let gap = Degraded::from(gap);
            if !degraded.contains(&gap) {
                degraded.push(gap);
            }
        }
        ModerateResponse {
            id: format!("modr-{}", request.id),
            model: loaded.component.name().to_owned(),
            results,
            infer: Facts {
                judges: Judges::new(loaded),
                degraded,
                categories,
                spans,
                late: Vec::new(),
                explanations: Vec::new(),
                tokens,
                timings,
            },
            action: Action::Allow,
            is_complete: true,
            sentences: Vec::new(),
        }
    }

    /// The highest score of any category of any input.
    fn score(&self) -> f32 {
        self.results.iter().flat_map(|result| result.category_scores.values().copied()).fold(0.0, f32::max)
    }

    /// Score of the first input in `category`, if a model judged it.
    pub(crate) fn score_of(&self, category: &str) -> Option<f32> {
        if let Some(further) = self.infer.categories.first().and_then(|scores| scores.get(category)) {
            return Some(further.score);
        }
        let result = self.results.first()?;
        result.category_tiers.contains_key(category).then(|| result.category_scores.get(category).copied())?
    }

    /// Checks that each category with a threshold in the request exists.
    pub(super) fn check_thresholds(&self, extensions: &Extensions) -> Result<(), ApiError> {
        let is_further = |name: &String| self.infer.categories.iter().any(|scores| scores.contains_key(name));
        let known = |name: &String| {
            self.results.iter().any(|result| result.categories.contains_key(name.as_str()))
                || is_further(name)
        };
        let Some(unknown) = extensions.thresholds.keys().find(|name| !known(name)) else { return Ok(()) };
        let path = format!("infer.thresholds.{}", excerpt(unknown, QUOTE_BYTES));
        let names: Vec<_> = self
            .results
            .iter()
            .flat_map(|result| result.categories.keys())
            .take(64)
            .map(|name| &**name)
            .collect();
        let further = self.infer.categories.iter().flat_map(BTreeMap::keys).take(64).map(String::as_str);
        let names = names.into_iter().chain(further);
        let names: BTreeSet<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        Err(ApiError::invalid(path.as_str(), format!("`{path}` is not a category; expected one of {names}")))
    }

    pub(super) fn render(&self, mode: Mode) -> StoredResponse {
        let status = match (mode, self.action) {
            (Mode::Gate, Action::Block) => StatusCode::FORBIDDEN,
            _ => StatusCode::OK,
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACTION, HeaderValue::from_static(self.action.as_str()));
        if let Ok(score) = HeaderValue::from_str(&format!("{:.4}", self.score())) {
            headers.insert(SCORE, score);
        }
        let (kind, body) = match mode {
            Mode::Gate => (NO_BODY, Bytes::new()),
            Mode::Full => {
                let mut body = Vec::with_capacity(BODY_BYTES);
                // Strings, numbers and maps with string keys: serialization cannot fail.
                let _ = serde_json::to_writer(&mut body, self);
                (document::JSON, body.into())
            }
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        StoredResponse { status, headers, body }
    }
}

/// Categories beyond OpenAI's that the cards of the component's models name.
fn further_categories(loaded: &LoadedComponent) -> BTreeSet<&str> {
    let names = loaded.component.models().values().flat_map(|model| model.card().categories.keys());
    names.map(String::as_str).filter(|name| !CATEGORIES.contains(name)).collect()
}

/// Scores of the categories in `further` for each verdict.
fn further_scores(verdicts: &[Judged], further: &BTreeSet<&str>) -> Vec<BTreeMap<String, FurtherCategory>> {
    if further.is_empty() {
        return Vec::new();
    }
    let of = |judged: &Judged| {
        let scores = judged.verdict.scores.iter().filter(|score| further.contains(score.category.as_str()));
        let entry = |score: &CategoryScore| {
            let CategoryScore { score: value, flagged, .. } = *score;
            let entry = FurtherCategory { score: value, flagged, tier: tier(score.tier) };
            (score.category.clone(), entry)
        };
        scores.map(entry).collect()
    };
    verdicts.iter().map(of).collect()
}

fn labelled_spans(verdicts: &[Judged]) -> Vec<LabelledSpan> {
    let of = |(input, judged): (usize, &Judged)| {
        let span = move |span: &Span| {
            let Span { part, score, start, end, .. } = *span;
            LabelledSpan { input, part, label: span.label.clone(), score, start, end }
        };
        judged.annotations.spans.iter().map(span).collect::<Vec<_>>()
    };
    verdicts.iter().enumerate().flat_map(of).collect()
}

impl IntoResponse for StoredResponse {
    fn into_response(self) -> Response {
        (self.status, self.headers, self.body).into_response()
    }
}

impl Judgement {
    /// The result of `verdict`, without the categories in `further`.
    fn new(verdict: &Verdict, further: &BTreeSet<&str>) -> Self {
        let all = || CATEGORIES.map(Cow::Borrowed).into_iter();
        let mut judgement = Judgement {
            flagged: verdict.flagged,
            categories: all().map(|category| (category, false)).collect(),
            category_scores: all().map(|category| (category, 0.0)).collect(),
            category_applied_input_types: all().map(|category| (category, &[][..])).collect(),
            tier: verdict
                .scores
                .iter()
                .map(|score| tier(score.tier))
                .reduce(|one, other| if one == other { one } else { tier(Tier::Language) }),
            category_tiers: BTreeMap::new(),
        };
        for score in verdict.scores.iter().filter(|score| !further.contains(score.category.as_str())) {
            let own = CATEGORIES.into_iter().find(|category| *category == score.category);
            let category = || own.map_or_else(|| Cow::Owned(score.category.clone()), Cow::Borrowed);
            judgement.categories.insert(category(), score.flagged);
            judgement.category_scores.insert(category(), score.score);
            judgement.category_applied_input_types.insert(category(), kinds(score.applied));
            judgement.category_tiers.insert(category(), tier(score.tier));
        }
        judgement
    }
}
