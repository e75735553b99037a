//! `POST /rerank`: the order of texts by their relevance for a query, in the form of Hugging Face's
//! text-embeddings-inference.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use infer_engine::Task;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::call::{Call, Permit};
use super::context::{Caller, RequestContext};
use super::document::RouteDoc;
use super::json;
use super::text_models::{TextCall, find};
use crate::error::{ApiError, Envelope};
use crate::limits::{MAX_RERANK_QUERY_BYTES, MAX_RERANKED_TEXTS, MAX_TEXTS_AT_ONCE};

/// A query, and the texts to order.
#[derive(Deserialize, ToSchema)]
#[schema(as = RerankRequest)]
#[serde(deny_unknown_fields)]
struct Rerank {
    query: String,
    texts: Vec<String>,
    /// Additional: name in infer.toml; needed if several models fit.
    model: Option<String>,
    /// True for the model's values without the card's activation.
    raw_scores: Option<bool>,
    /// True to return the texts as well.
    return_text: Option<bool>,
    /// True to read the beginning of a pair that is too long.
    truncate: Option<bool>,
    /// `right`: the end of a pair that is too long is left out.
    truncation_direction: Option<String>,
}

/// A text with its score.
#[derive(Serialize, ToSchema)]
#[schema(as = Rank)]
pub(super) struct Rank {
    /// Index of the text in the request.
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

pub(super) fn openapi() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("Texts by relevance for a query")
        .json_body::<Rerank>()
        .json_response::<Vec<Rank>>(StatusCode::OK, "the texts, the most relevant first")
        .errors(&[403, 404])
}

pub(super) async fn handle(
    State(context): State<Arc<RequestContext>>,
    Extension(call): Call,
    Extension(permit): Permit,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Vec<Rank>>, ApiError> {
    let request: Rerank = json::parse(&body?, "a rerank request")?;
    let Rerank { query, texts, model, raw_scores, return_text, truncate, truncation_direction } = request;
    if texts.is_empty() {
        return Err(ApiError::invalid("texts", "`texts` is empty, expected at least one text"));
    }
    if let Some(other) = truncation_direction.filter(|direction| !direction.eq_ignore_ascii_case("right")) {
        let other = excerpt(&other, QUOTE_BYTES);
        let message = format!("`truncation_direction` is \"{other}\", expected \"right\"");
        return Err(ApiError::invalid("truncation_direction", message));
    }
    MAX_RERANK_QUERY_BYTES.check("`query`", query.len()).map_err(ApiError::too_large)?;
    MAX_RERANKED_TEXTS
        .check("`texts`", texts.len())
        .map_err(|message| ApiError::invalid("texts", message))?;
    let model = find(&context, &caller, model.as_deref(), |card| {
        card.task == Task::TextClassification && card.text.is_some() && card.labels.len() == 1
    })?;
    permit.grow(texts.len().div_ceil(MAX_TEXTS_AT_ONCE)).map_err(|_| ApiError::busy())?;
    let params = json!({ "truncate": truncate.unwrap_or(false), "raw": raw_scores.unwrap_or(false) });
    let return_text = return_text.unwrap_or(false);
    let mut ranks = Vec::with_capacity(texts.len());
    for some in texts.chunks(MAX_TEXTS_AT_ONCE) {
        let first = ranks.len();
        let pairs: Vec<_> = some.iter().map(|text| [&query, text]).collect();
        let answer = TextCall { model, texts: &pairs, params: &params, first }.run(call.deadline).await?;
        let (scores, _) = answer.rows("scores")?;
        let rank = |(index, score): (usize, f32)| {
            let index = first + index;
            Rank { index, score, text: return_text.then(|| texts[index].clone()) }
        };
        ranks.extend(scores.into_iter().enumerate().map(rank));
    }
    ranks.sort_by(|one, other| other.score.total_cmp(&one.score));
    Ok(Json(ranks))
}
