//! `POST /v1/embeddings`: OpenAI's API for text embeddings.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
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
use crate::limits::{MAX_EMBEDDING_INPUTS, MAX_TEXTS_AT_ONCE};

/// The texts to embed.
#[derive(Deserialize, ToSchema)]
#[schema(as = EmbeddingRequest)]
#[serde(deny_unknown_fields)]
struct Embed {
    /// Name in infer.toml.
    model: String,
    input: Input,
    /// `float` or `base64`: the f32 values, little-endian.
    encoding_format: Option<String>,
    /// Number of values: the first ones, scaled to length 1.
    #[schema(minimum = 1)]
    dimensions: Option<usize>,
    /// Additional: `query` or `document`, for a model that distinguishes them.
    input_type: Option<String>,
    /// Additional: true to embed the beginning of a text that is too long.
    truncate: Option<bool>,
    /// Accepted and ignored.
    #[serde(rename = "user")]
    _user: Option<String>,
}

/// A text, several texts, or the token ids of one or several texts.
#[derive(Deserialize, ToSchema)]
#[schema(as = EmbeddingInput)]
#[serde(untagged, expecting = "expected a string, an array of strings, or arrays of token ids")]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

/// The embeddings, in the order of the texts.
#[derive(Serialize, ToSchema)]
#[schema(as = Embeddings)]
pub(super) struct Response {
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Values,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = EmbeddingValues)]
enum Values {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Serialize, ToSchema)]
#[schema(as = EmbeddingUsage)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

pub(super) fn openapi() -> RouteDoc {
    RouteDoc::new::<Envelope<'_>>("OpenAI's embeddings")
        .json_body::<Embed>()
        .json_response::<Response>(StatusCode::OK, "the embeddings, in the order of the texts")
        .errors(&[403, 404])
}

pub(super) async fn handle(
    State(context): State<Arc<RequestContext>>,
    Extension(call): Call,
    Extension(permit): Permit,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Response>, ApiError> {
    let request: Embed = json::parse(&body?, "an embedding request")?;
    let model = find(&context, &caller, Some(&request.model), |card| card.task == Task::TextEmbedding)?;
    let is_base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!(
                "`encoding_format` is `{}`, expected `float` or `base64`",
                excerpt(other, QUOTE_BYTES)
            );
            return Err(ApiError::invalid("encoding_format", message));
        }
    };
    let role = match request.input_type.as_deref() {
        None => None,
        Some("query") => Some("query"),
        Some("document" | "passage") => Some("document"),
        Some(other) => {
            let message =
                format!("`input_type` is `{}`, expected `query` or `document`", excerpt(other, QUOTE_BYTES));
            return Err(ApiError::invalid("input_type", message));
        }
    };
    let texts = texts(request.input)?;
    permit.grow(texts.len().div_ceil(MAX_TEXTS_AT_ONCE)).map_err(|_| ApiError::busy())?;
    let params = json!({ "role": role, "dimensions": request.dimensions, "truncate": request.truncate.unwrap_or(false) });
    let mut reservation = context.registry.sandbox.memory().reservation();
    let (mut data, mut tokens) = (Vec::with_capacity(texts.len()), 0);
    for some in texts.chunks(MAX_TEXTS_AT_ONCE) {
        let first = data.len();
        let answer = TextCall { model, texts: some, params: &params, first }.run(call.deadline).await?;
        let (values, size) = answer.rows("embeddings")?;
        // The values, and their text: a number has up to 16 characters, in a buffer that doubles.
        reservation.grow(values.len() * 36).map_err(|_| ApiError::busy())?;
        tokens += answer.tokens()?;
        for row in values.chunks_exact(size) {
            let embedding = if is_base64 {
                let bytes: Vec<u8> = row.iter().flat_map(|value| value.to_le_bytes()).collect();
                Values::Base64(STANDARD.encode(bytes))
            } else {
                Values::Float(row.to_vec())
            };
            data.push(Embedding { object: "embedding", index: data.len(), embedding });
        }
    }
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(Json(Response { object: "list", data, model: model.name().to_owned(), usage }))
}

/// The texts as the engine takes them.
fn texts(input: Input) -> Result<Vec<serde_json::Value>, ApiError> {
    let texts: Vec<serde_json::Value> = match input {
        Input::Text(text) => vec![text.into()],
        Input::Tokens(ids) if ids.is_empty() => Vec::new(),
        Input::Tokens(ids) => vec![ids.into()],
        Input::Texts(texts) => texts.into_iter().map(Into::into).collect(),
        Input::TokenLists(lists) => lists.into_iter().map(Into::into).collect(),
    };
    MAX_EMBEDDING_INPUTS
        .check("`input`", texts.len())
        .map_err(|message| ApiError::invalid("input", message))?;
    let is_empty = |text: &serde_json::Value| {
        text.as_str().is_some_and(str::is_empty) || text.as_array().is_some_and(Vec::is_empty)
    };
    match texts.iter().position(is_empty) {
        Some(index) => Err(ApiError::invalid(
            format!("input[{index}]"),
            format!("`input[{index}]` is empty, expected a text"),
        )),
        None if texts.is_empty() => Err(ApiError::invalid("input", "`input` is empty, expected a text")),
        None => Ok(texts),
    }
}
