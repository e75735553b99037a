//! OpenAPI schemas of a moderation request. Bodies are parsed by `input` and `extensions` directly;
//! these types only document them, and a test compares both.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;
use utoipa::openapi::schema::Type;

use super::response::{ACTION, ModerateResponse, NO_BODY, SCORE};
use crate::error::Envelope;
use crate::routes::document::RouteDoc;

/// The content to judge, and options.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documented here, never constructed")]
struct ModerationRequest {
    input: Input,
    /// The judging component: a moderator, an alias of one, or one of OpenAI's names. A component's
    /// own route ignores it.
    model: Option<String>,
    infer: Option<Extensions>,
}

/// A text, several texts with one result each, or the parts of one piece of content.
#[derive(Deserialize, ToSchema)]
#[schema(as = ModerationInput)]
#[serde(untagged)]
#[expect(dead_code, reason = "documented here, never constructed")]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Parts(Vec<Part>),
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ModerationPart)]
#[serde(tag = "type", rename_all = "snake_case")]
#[expect(dead_code, reason = "documented here, never constructed")]
enum Part {
    Text { text: String },
    ImageUrl { image_url: ImageUrl },
}

#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "documented here, never constructed")]
struct ImageUrl {
    /// The image itself, in base64: the server fetches no URLs.
    #[schema(pattern = "^data:[^,]*;base64,")]
    url: String,
}

/// Options that OpenAI's schema does not have.
#[derive(Deserialize, ToSchema)]
#[schema(as = ModerationExtensions)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "documented here, never constructed")]
struct Extensions {
    /// Time limit for judging, in milliseconds; at most the server's own deadline.
    #[schema(minimum = 1)]
    deadline_ms: Option<u32>,
    /// Behavior for an input that is not judged within the time limit; `error` if absent.
    on_timeout: Option<OnTimeout>,
    /// Lowest score at which a category is flagged, 0 to 1.
    #[schema(value_type = Option<BTreeMap<String, f32>>)]
    thresholds: Option<BTreeMap<String, Option<f32>>>,
    explain: Option<Explain>,
}

/// `true` for the scores and the component's notes, `rationale` for the reason of a language model
/// as well, `spans` for the words behind the scores as well.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "documented here, never constructed")]
enum Explain {
    Boolean(bool),
    Word(ExplainWord),
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ExplainWord {
    Rationale,
    Spans,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum OnTimeout {
    Error,
    Review,
    Allow,
}

/// Documentation of a moderator's route; if `is_shared`, of the route of all moderators.
pub(crate) fn openapi(is_shared: bool) -> RouteDoc {
    let (ok, forbidden) = (StatusCode::OK, StatusCode::FORBIDDEN);
    let key = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(255));
    let mode = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["full", "gate"]));
    let empty = || ObjectBuilder::new().schema_type(Type::String).max_length(Some(0));
    let mut doc = RouteDoc::new::<Envelope<'_>>("Moderation of texts and images")
        .query_parameter("mode", "`gate`: status 200 or 403, without a body", mode)
        .request_header(
            "Idempotency-Key",
            "a repeated key with the same request returns the stored response",
            key,
        )
        .json_body::<ModerationRequest>()
        .json_response::<ModerateResponse>(ok, "the results")
        .response(ok, NO_BODY, "in the mode `gate`: do not block", empty())
        .errors(&[403, 415, 422])
        .response(forbidden, NO_BODY, "in the mode `gate`: block", empty());
    if is_shared {
        doc = doc.errors(&[404]);
    }
    for status in [ok, forbidden] {
        doc = doc
            .response_header(
                status,
                ACTION.as_str(),
                "`allow`, `review` or `block`; absent if no content was judged",
            )
            .response_header(status, SCORE.as_str(), "highest score of any category of any input");
    }
    doc
}

#[cfg(test)]
mod tests {
    use super::super::input;
    use super::*;

    #[test]
    fn schema_accepts_what_parser_accepts() {
        let cases = [
            r#"{"input": "a"}"#,
            r#"{"input": ["a", "b"], "model": "m"}"#,
            r#"{"input": "a", "model": null, "infer": null}"#,
            r#"{"input": [{"type": "text", "text": "a", "more": 1}]}"#,
            r#"{"input": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}]}"#,
            r#"{"input": "a", "infer": {"deadline_ms": 5, "on_timeout": "review", "thresholds": {"hate": 0.5}, "explain": true}}"#,
            r#"{"input": "a", "infer": {"explain": "spans"}}"#,
            r#"{"input": "a", "infer": {"explain": "sentences"}}"#,
            r#"{"input": "a", "infer": {}}"#,
            r#"{"input": "a", "inputs": 1}"#,
            r#"{"input": "a", "model": 1}"#,
            r#"{"input": 1}"#,
            r#"{"input": ["a", 1]}"#,
            r#"{"input": [{"type": "video"}]}"#,
            r#"{"input": [{"type": "text"}]}"#,
            r#"{"input": [{"type": "image_url", "image_url": "a"}]}"#,
            r#"{"input": "a", "infer": {"more": 1}}"#,
            r#"{"input": "a", "infer": {"deadline_ms": null}}"#,
            r#"{"input": "a", "infer": {"on_timeout": "block"}}"#,
            r#"{"input": "a", "infer": {"explain": 1}}"#,
            r#"{"model": "m"}"#,
            "[]",
        ];
        for case in cases {
            let doc = serde_json::from_str::<ModerationRequest>(case).is_ok();
            assert_eq!(input::parse(case.as_bytes(), 8).is_ok(), doc, "{case}");
        }
    }
}
