//! `POST /v1alpha1/comments:analyze`: request and response of the Perspective API, judged by the
//! default moderator.
//!
//! Perspective's attributes and a moderator's categories differ: [`ATTRIBUTES`] maps them.

mod sentences;

use std::collections::BTreeMap;
use std::fmt::Display;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use infer_engine::text::{MESSAGE_BYTES, QUOTE_BYTES, excerpt, excerpt_of, names};
use infer_sandbox::types::Part;
use sentences::{combined, sentences};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::{Call, Permit};
use super::context::Caller;
use super::document::RouteDoc;
use super::json::utf8;
use super::moderate::{self, Explain, ModerationState};
use crate::error::ApiError;
use crate::limits::{MAX_ANALYSIS_BODY, MAX_COMMENT};

/// Prefix of all paths of the API.
pub(super) const PREFIX: &str = "/v1alpha1";

/// Each attribute, with its own category, and the categories of which a moderator without that one
/// uses the highest score: an upper bound of the attribute.
const ATTRIBUTES: [(&str, &str, &[&str]); 6] = [
    ("TOXICITY", "toxicity", &["harassment", "harassment/threatening", "hate"]),
    ("SEVERE_TOXICITY", "severe-toxicity", &["harassment"]),
    ("INSULT", "insult", &["harassment"]),
    ("PROFANITY", "profanity", &["harassment"]),
    ("IDENTITY_ATTACK", "identity-attack", &["hate"]),
    ("THREAT", "threat", &["harassment/threatening"]),
];

/// Language of the models.
const LANGUAGE: &str = "en";

/// The comment, and the requested attributes.
#[derive(Deserialize, ToSchema)]
#[schema(as = AnalyzeRequest)]
#[serde(rename_all = "camelCase")]
struct Analyze {
    #[schema(required, nullable = false)]
    comment: Option<Comment>,
    /// By name: `TOXICITY`, `SEVERE_TOXICITY`, `IDENTITY_ATTACK`, `INSULT`, `PROFANITY`, `THREAT`.
    #[serde(alias = "requested_attributes")]
    #[schema(required, value_type = BTreeMap<String, RequestedAttribute>)]
    requested_attributes: Option<BTreeMap<String, Option<RequestedAttribute>>>,
    /// Absent, or including `en`.
    languages: Option<Vec<String>>,
    #[serde(alias = "client_token")]
    client_token: Option<String>,
    /// True for a score of each sentence.
    #[serde(alias = "span_annotations")]
    span_annotations: Option<bool>,
}

#[derive(Deserialize, ToSchema)]
struct Comment {
    /// At most 20,480 bytes.
    #[schema(required, nullable = false, min_length = 1)]
    text: Option<String>,
    /// `PLAIN_TEXT`.
    r#type: Option<String>,
}

#[derive(Default, Deserialize, ToSchema)]
#[schema(as = WantedAttribute)]
#[serde(rename_all = "camelCase")]
struct RequestedAttribute {
    /// `PROBABILITY`.
    #[serde(alias = "score_type")]
    score_type: Option<String>,
    /// Lower scores are omitted.
    #[serde(alias = "score_threshold")]
    #[schema(minimum = 0.0, maximum = 1.0)]
    score_threshold: Option<f32>,
}

/// The scores of a comment.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Analysis {
    attribute_scores: BTreeMap<String, AttributeScore>,
    languages: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AttributeScore {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    span_scores: Vec<SpanScore>,
    summary_score: Score,
}

#[derive(Serialize, ToSchema)]
struct SpanScore {
    /// In Unicode characters.
    begin: usize,
    end: usize,
    score: Score,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
struct Score {
    value: f32,
    r#type: &'static str,
}

/// An error before it is formatted.
pub(super) struct Failure {
    code: StatusCode,
    status: &'static str,
    message: String,
    details: Vec<Detail>,
    /// Value of `Retry-After`, in seconds.
    retry_after: Option<u64>,
}

/// Google's envelope of an error.
#[derive(Serialize, ToSchema)]
#[schema(as = GoogleFailure)]
pub(super) struct Envelope {
    error: Status,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GoogleStatus)]
struct Status {
    /// Status of the response.
    code: u16,
    message: String,
    /// Machine-readable status.
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PerspectiveDetail)]
#[serde(rename_all = "camelCase")]
struct Detail {
    #[serde(rename = "@type")]
    kind: &'static str,
    /// The API's own error type.
    error_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    language_not_supported_by_attribute_error: Option<NotSupported>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LanguageNotSupported)]
#[serde(rename_all = "camelCase")]
struct NotSupported {
    detected_languages: Vec<String>,
    attribute: String,
}

impl Failure {
    fn invalid(message: impl Display) -> Self {
        Failure {
            code: StatusCode::BAD_REQUEST,
            status: "INVALID_ARGUMENT",
            message: excerpt_of(message, MESSAGE_BYTES),
            details: Vec::new(),
            retry_after: None,
        }
    }

    /// Adds the API's own error type.
    fn with_type(mut self, error_type: &'static str, language: Option<NotSupported>) -> Self {
        self.details.push(Detail {
            kind: "type.googleapis.com/google.commentanalyzer.v1alpha1.Error",
            error_type,
            language_not_supported_by_attribute_error: language,
        });
        self
    }
}

impl From<&ApiError> for Failure {
    fn from(error: &ApiError) -> Self {
        let status = match error.status() {
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => "INVALID_ARGUMENT",
            StatusCode::UNAUTHORIZED => "UNAUTHENTICATED",
            StatusCode::FORBIDDEN => "PERMISSION_DENIED",
            StatusCode::NOT_FOUND => "NOT_FOUND",
            StatusCode::TOO_MANY_REQUESTS => "RESOURCE_EXHAUSTED",
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "DEADLINE_EXCEEDED",
            StatusCode::SERVICE_UNAVAILABLE => "UNAVAILABLE",
            status if status.is_client_error() => "INVALID_ARGUMENT",
            _ => "INTERNAL",
        };
        Failure {
            code: error.status(),
            status,
            message: error.to_string(),
            details: Vec::new(),
            retry_after: error.retry_after(),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Failure::from(&error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Failure { code, status, message, details, retry_after } = self;
        let error = Status { code: code.as_u16(), message, status, details };
        let retry_after = retry_after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        (code, retry_after, Json(Envelope { error })).into_response()
    }
}

/// Formats `error` in Google's envelope.
pub(super) fn failure(error: &ApiError) -> Response {
    Failure::from(error).into_response()
}

pub(super) fn openapi() -> RouteDoc {
    RouteDoc::new::<Envelope>("Perspective's analysis of a comment")
        .json_body::<Analyze>()
        .json_response::<Analysis>(StatusCode::OK, "the scores that reach their thresholds")
        .or_query_key()
        .errors(&[403, 404, 501])
}

pub(super) async fn handle(
    State(state): State<ModerationState>,
    Extension(call): Call,
    Extension(permit): Permit,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Failure> {
    let body = body.map_err(ApiError::from)?;
    let AnalysisRequest { text, attributes, client_token, by_sentence } = parse(&body)?;
    let loaded = state.choice.component(None)?;
    caller.check(loaded.component.name())?;
    permit.grow(1).map_err(|_| ApiError::busy())?;
    let explain = if by_sentence { Explain::Sentences } else { Explain::No };
    let response = moderate::respond(loaded, &call, vec![vec![Part::Text(text.clone())]], explain).await;
    let response = response.map_err(|(_, error)| ApiError::from(error))?;
    let end = text.chars().count();
    let mut attribute_scores = BTreeMap::new();
    for (name, options) in attributes {
        let attribute = ATTRIBUTES.iter().find(|(known, ..)| *known == name);
        let (own, wider) = attribute.map_or(("", &[][..]), |&(_, own, wider)| (own, wider));
        let found = combined(own, wider, |category| response.score_of(category));
        let Some((value, categories)) = found else {
            return Err(Failure {
                code: StatusCode::NOT_IMPLEMENTED,
                status: "UNIMPLEMENTED",
                message: format!(
                    "no model of component `{}` judges the categories of `{name}`",
                    loaded.component.name()
                ),
                details: Vec::new(),
                retry_after: None,
            });
        };
        if options.score_threshold.is_some_and(|threshold| value < threshold) {
            continue;
        }
        let score = Score { value, r#type: "PROBABILITY" };
        let by_sentence = sentences(&response.sentences, &categories).into_iter();
        let mut span_scores: Vec<_> = by_sentence
            .map(|(begin, end, value)| SpanScore { begin, end, score: Score { value, ..score } })
            .collect();
        if span_scores.is_empty() {
            // One span, as Perspective returns without annotations.
            span_scores.push(SpanScore { begin: 0, end, score });
        }
        attribute_scores.insert(name, AttributeScore { span_scores, summary_score: score });
    }
    let languages = vec![LANGUAGE.to_owned()];
    Ok(Json(Analysis { attribute_scores, languages, client_token }).into_response())
}

/// A parsed request.
struct AnalysisRequest {
    text: String,
    attributes: BTreeMap<String, RequestedAttribute>,
    client_token: Option<String>,
    /// True for a score of each sentence.
    by_sentence: bool,
}

fn parse(body: &[u8]) -> Result<AnalysisRequest, Failure> {
    let too_long = |message: String| Failure::invalid(message).with_type("COMMENT_TOO_LONG", None);
    MAX_ANALYSIS_BODY.check("the body", body.len()).map_err(too_long)?;
    let request: Analyze = serde_json::from_slice(utf8(body)?)
        .map_err(|error| Failure::invalid(format_args!("the body is not an analysis request: {error}")))?;
    let text = match request.comment {
        Some(Comment { text, r#type }) => {
            if let Some(kind) = r#type.filter(|kind| kind != "PLAIN_TEXT" && kind != "TEXT_TYPE_UNSPECIFIED")
            {
                let kind = excerpt(&kind, QUOTE_BYTES);
                return Err(Failure::invalid(format!("`comment.type` is `{kind}`, expected `PLAIN_TEXT`")));
            }
            text.unwrap_or_default()
        }
        None => String::new(),
    };
    if text.trim().is_empty() {
        return Err(
            Failure::invalid("`comment.text` is empty; expected a text").with_type("COMMENT_EMPTY", None)
        );
    }
    MAX_COMMENT.check("`comment.text`", text.len()).map_err(too_long)?;
    let attributes: BTreeMap<_, _> = request
        .requested_attributes
        .unwrap_or_default()
        .into_iter()
        .map(|(name, options)| (name, options.unwrap_or_default()))
        .collect();
    if attributes.is_empty() {
        let message = "`requestedAttributes` is empty; expected an object such as {\"TOXICITY\": {}}";
        return Err(Failure::invalid(message));
    }
    for (name, options) in &attributes {
        let shown = excerpt(name, QUOTE_BYTES);
        if !ATTRIBUTES.iter().any(|(known, ..)| known == name) {
            let known = names(ATTRIBUTES.iter().map(|(name, ..)| name));
            let message = format!("unknown attribute `{shown}`; expected one of {known}");
            return Err(Failure::invalid(message));
        }
        let kind = options.score_type.as_deref().unwrap_or("PROBABILITY");
        if kind != "PROBABILITY" && kind != "SCORE_TYPE_UNSPECIFIED" {
            let kind = excerpt(kind, QUOTE_BYTES);
            let message = format!("`scoreType` of `{shown}` is `{kind}`, expected `PROBABILITY`");
            return Err(Failure::invalid(message));
        }
        if let Some(threshold) = options.score_threshold.filter(|threshold| !(0.0..=1.0).contains(threshold))
        {
            let message = format!("`scoreThreshold` of `{shown}` is {threshold}, expected 0 to 1");
            return Err(Failure::invalid(message));
        }
    }
    let is_supported = |language: &String| {
        language.split('-').next().is_some_and(|code| code.eq_ignore_ascii_case(LANGUAGE))
    };
    let languages = request.languages.unwrap_or_default();
    if !languages.is_empty() && !languages.iter().any(is_supported) {
        let name = attributes.keys().next().cloned().unwrap_or_default();
        let sent: Vec<_> =
            languages.iter().take(8).map(|code| excerpt(code, QUOTE_BYTES).into_owned()).collect();
        let message = format!(
            "attribute `{name}` does not support the languages `{}`; expected `{LANGUAGE}`",
            sent.join("`, `")
        );
        let details = NotSupported { detected_languages: sent, attribute: name };
        return Err(Failure::invalid(message).with_type("LANGUAGE_NOT_SUPPORTED_BY_ATTRIBUTE", Some(details)));
    }
    let by_sentence = request.span_annotations.unwrap_or_default();
    Ok(AnalysisRequest { text, attributes, client_token: request.client_token, by_sentence })
}
