//! Explanations of results, for requests that ask for them.

use infer_sandbox::types::{CategoryScore, Contribution, Gap, Kinds, Region, Tier, Verdict};
use infer_sandbox::{Annotations, Usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::extensions::Explain;

/// The verdict on one input, with its cost and the guest's remarks.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    pub(super) usage: Usage,
    pub(super) annotations: Annotations,
}

/// A category for which some input could not be judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Degraded {
    pub category: String,
    #[schema(value_type = Vec<String>)]
    pub input_types: &'static [&'static str],
    pub reason: String,
}

/// Explanation of a result.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Explanation {
    /// The judged categories, the highest score first.
    judged: Vec<JudgedCategory>,
    /// The categories that were not judged for this input.
    degraded: Vec<Degraded>,
    /// Sentences of the component, such as the reason of a language model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Texts that the component read in the images of the input, and judged like other texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    image_texts: Vec<ImageText>,
    /// Words of the texts that raise a score, the highest contribution first; present if the
    /// request asked for `spans`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spans: Option<Vec<WordSpan>>,
}

/// Words of a text, and the score without them.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct WordSpan {
    /// Category of the score.
    pub category: String,
    /// Index of the text among the parts of the input.
    pub part: u32,
    /// First character, in Unicode scalar values.
    pub start: u32,
    /// Character behind the last one.
    pub end: u32,
    /// The words, cut at 256 bytes, with control characters escaped.
    pub text: String,
    /// Log-odds by which the score is higher with the words than without them.
    pub contribution: f32,
    /// Score of the text without the words.
    pub score_without: f32,
}

impl From<&Contribution> for WordSpan {
    fn from(contribution: &Contribution) -> Self {
        let Contribution { part, start, end, score_without, log_odds, .. } = *contribution;
        let (category, text) = (contribution.category.clone(), contribution.text.clone());
        WordSpan { category, part, start, end, text, contribution: log_odds, score_without }
    }
}

/// A text in an image, and the rectangle that shows it, in pixels of the image as seen.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ImageText {
    /// Index of the image among the parts of the input.
    part: u32,
    text: String,
    /// Mean probability of its characters.
    score: f32,
    /// Distance from the left edge.
    x: u32,
    /// Distance from the top edge.
    y: u32,
    width: u32,
    height: u32,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
struct JudgedCategory {
    category: String,
    score: f32,
    flagged: bool,
    tier: &'static str,
    #[schema(value_type = Vec<String>)]
    input_types: &'static [&'static str],
}

impl Explanation {
    pub(super) fn new(Judged { verdict, annotations, .. }: &Judged, explain: Explain) -> Self {
        let judged = |score: &CategoryScore| JudgedCategory {
            category: score.category.clone(),
            score: score.score,
            flagged: score.flagged,
            tier: tier(score.tier),
            input_types: kinds(score.applied),
        };
        let mut judged: Vec<_> = verdict.scores.iter().map(judged).collect();
        judged.sort_by(|one, other| other.score.total_cmp(&one.score));
        let degraded = verdict.gaps.iter().cloned().map(Degraded::from).collect();
        let image_text = |region: &Region| {
            let Region { part, score, x, y, width, height, .. } = *region;
            ImageText { part, text: region.text.clone(), score, x, y, width, height }
        };
        let image_texts = annotations.regions.iter().map(image_text).collect();
        let spans = || annotations.contributions.iter().map(WordSpan::from).collect();
        Explanation {
            judged,
            degraded,
            notes: annotations.notes.clone(),
            image_texts,
            spans: (explain == Explain::Spans).then(spans),
        }
    }
}

impl From<Gap> for Degraded {
    fn from(Gap { category, unjudged, reason }: Gap) -> Self {
        Degraded { category, input_types: kinds(unjudged), reason }
    }
}

pub(super) fn tier(tier: Tier) -> &'static str {
    match tier {
        Tier::Classifier => "classifier",
        Tier::Language => "language",
    }
}

pub(super) fn kinds(kinds: Kinds) -> &'static [&'static str] {
    match (kinds.contains(Kinds::TEXT), kinds.contains(Kinds::IMAGE)) {
        (true, true) => &["text", "image"],
        (true, false) => &["text"],
        (false, true) => &["image"],
        (false, false) => &[],
    }
}
