use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use infer_models::import::{Request, import};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{BUILTIN, Server, answer, load, repository};

/// A server of the small embedding model and the small cross-encoder.
async fn server(folder: &tempfile::TempDir) -> Server {
    for (name, export) in [("embedder", "minilm-embedding"), ("ranker", "cross-encoder")] {
        let request = Request {
            folder: &repository().join("tests/data/text-models").join(export),
            file: None,
            labels: None,
            name,
            source: None,
            destination: &folder.path().join(name),
        };
        import(&request, &BUILTIN.runtime).unwrap();
    }
    let section = |name: &str| format!("[models.{name}]\nsource = {:?}\n", folder.path().join(name));
    Server::start(Arc::new(load(&[section("embedder"), section("ranker")].concat()))).await
}

async fn embed(server: &Server, body: Value) -> (StatusCode, Value) {
    answer(server.post("/v1/embeddings").json(&body)).await
}

fn values(embedding: &Value) -> Vec<f32> {
    serde_json::from_value(embedding.clone()).unwrap()
}

#[tokio::test]
async fn embeddings_have_openais_form() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder).await;
    let (status, one) = embed(&server, json!({ "model": "embedder", "input": "the red book" })).await;
    assert_eq!(status, StatusCode::OK, "{one}");
    assert_eq!((&one["object"], &one["model"]), (&json!("list"), &json!("embedder")));
    assert_eq!((&one["data"][0]["object"], &one["data"][0]["index"]), (&json!("embedding"), &json!(0)));
    assert_eq!(one["usage"]["prompt_tokens"], one["usage"]["total_tokens"]);
    let first = values(&one["data"][0]["embedding"]);
    let length: f32 = first.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-4, "{length}");

    // More texts than one call of the engine takes; each has the embedding that it has alone.
    let many: Vec<_> = (0..70).map(|index| if index == 66 { "the red book" } else { "a garden" }).collect();
    let (_, several) = embed(&server, json!({ "model": "embedder", "input": many })).await;
    assert_eq!(several["data"].as_array().unwrap().len(), 70);
    assert_eq!(several["data"][66]["index"], 66);
    let again = values(&several["data"][66]["embedding"]);
    let near = |one: &[f32], other: &[f32]| one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(near(&first, &again) && !near(&first, &values(&several["data"][0]["embedding"])));

    let base64 = json!({ "model": "embedder", "input": ["the red book"], "encoding_format": "base64" });
    let (_, coded) = embed(&server, base64).await;
    let bytes = STANDARD.decode(coded["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let decoded: Vec<f32> =
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    assert!(near(&first, &decoded));

    let (_, short) =
        embed(&server, json!({ "model": "embedder", "input": "the red book", "dimensions": 4 })).await;
    let short = values(&short["data"][0]["embedding"]);
    let scale = first[..4].iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!(
        short.len() == 4 && near(&short, &first[..4].iter().map(|value| value / scale).collect::<Vec<_>>())
    );

    let (status, tokens) = embed(&server, json!({ "model": "embedder", "input": [[5, 6, 7], [8]] })).await;
    assert_eq!((status, &tokens["usage"]["prompt_tokens"]), (StatusCode::OK, &json!(4)), "{tokens}");
}

#[tokio::test]
async fn invalid_embedding_requests_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder).await;
    let long = "garden ".repeat(2_000);
    let cases = [
        (json!({ "input": "a" }), "missing field `model`"),
        (json!({ "model": "embedder", "input": 1 }), "expected a string, an array of strings"),
        (json!({ "model": "embedder", "input": [] }), "`input` is empty, expected a text"),
        (json!({ "model": "embedder", "input": ["a", ""] }), "`input[1]` is empty, expected a text"),
        (
            json!({ "model": "embedder", "input": "a", "dimensions": 5_000 }),
            "`dimensions` is 5000, expected 1 to",
        ),
        (json!({ "model": "embedder", "input": "a", "dimensions": 0 }), "`dimensions` is 0, expected 1 to"),
        (
            json!({ "model": "embedder", "input": "a", "encoding_format": "x" }),
            "expected `float` or `base64`",
        ),
        (json!({ "model": "embedder", "input": "a", "input_type": "x" }), "expected `query` or `document`"),
        (json!({ "model": "embedder", "input": "a", "other": 1 }), "unknown field `other`"),
        (json!({ "model": "embedder", "input": [[999_999]] }), "token id 999999 is not in the vocabulary"),
        (json!({ "model": "embedder", "input": vec!["a"; 2_049] }), "more than 2048 texts"),
        (json!({ "model": "embedder", "input": long }), "tokens, expected at most"),
    ];
    for (body, expected) in cases {
        let (status, reply) = embed(&server, body).await;
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(
            status == StatusCode::BAD_REQUEST && message.contains(expected),
            "{expected}: {status} {reply}"
        );
    }
    let truncated = json!({ "model": "embedder", "input": long, "truncate": true });
    assert_eq!(embed(&server, truncated).await.0, StatusCode::OK);
    for model in ["ranker", "nothing"] {
        let (status, reply) = embed(&server, json!({ "model": model, "input": "a" })).await;
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(status == StatusCode::NOT_FOUND && message.contains("`embedder`"), "{status} {reply}");
    }
}

#[tokio::test]
async fn texts_are_ordered_by_relevance() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder).await;
    let texts = ["the garden", "Ada reads a book", "a bicycle", "the red book"];
    let rerank = async |changes: Value| {
        let mut body = json!({ "query": "where is the book", "texts": texts });
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        answer(server.post("/rerank").json(&body)).await
    };
    let (status, ranks) = rerank(json!({})).await;
    assert_eq!(status, StatusCode::OK, "{ranks}");
    let ranks = ranks.as_array().unwrap();
    let scores: Vec<_> = ranks.iter().map(|rank| rank["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|one, other| one >= other), "{scores:?}");
    let mut indices: Vec<_> = ranks.iter().map(|rank| rank["index"].as_u64().unwrap()).collect();
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3]);
    let (_, raw) = rerank(json!({ "raw_scores": true, "return_text": true, "model": "ranker" })).await;
    for (rank, raw) in ranks.iter().zip(raw.as_array().unwrap()) {
        let logit = raw["score"].as_f64().unwrap();
        let probability = 1.0 / (1.0 + (-logit).exp());
        assert!((probability - rank["score"].as_f64().unwrap()).abs() < 1e-5, "{rank} {raw}");
        assert_eq!(raw["text"], texts[raw["index"].as_u64().unwrap() as usize]);
    }
    let nulls =
        json!({ "truncate": null, "raw_scores": null, "return_text": null, "truncation_direction": "Right" });
    let (status, same) = rerank(nulls).await;
    assert_eq!((status, same.as_array()), (StatusCode::OK, Some(ranks)));
    let (status, reply) = rerank(json!({ "truncation_direction": "left" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{reply}");
    let (status, reply) = rerank(json!({ "query": "q".repeat(20_000) })).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{reply}");
    let (status, reply) = rerank(json!({ "texts": [] })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{reply}");
    let (status, reply) = rerank(json!({ "model": "embedder" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{reply}");
}
