//! `POST /v1/embeddings`: OpenAI's API for text embeddings.

mod input;

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
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::call::{Call, Permit};
use super::context::{Caller, RequestContext};
use super::document::RouteDoc;
use super::json;
use super::text_models::{TextCall, find};
use crate::error::{ApiError, Envelope};
use crate::limits::MAX_TEXTS_AT_ONCE;

/// The texts to embed.
#[derive(Deserialize, ToSchema)]
#[schema(as = EmbeddingRequest)]
#[serde(deny_unknown_fields)]
struct Embed<'a> {
    /// Name in infer.toml.
    model: String,
    #[serde(borrow)]
    #[schema(value_type = Input)]
    input: &'a RawValue,
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
#[serde(untagged)]
#[expect(dead_code, reason = "describes the values that `input::texts` reads")]
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
        .json_body::<Embed<'_>>()
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
    let body = body?;
    let request: Embed<'_> = json::parse(&body, "an embedding request")?;
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
    let texts = input::texts(request.input)?;
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
