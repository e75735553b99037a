//! Answers of a fixed format, by random models.

use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::support::{FILES, model, soon, tokens};
use crate::language::{AnswerFormat, Finish, LanguageModel, Output, Params, Prompt, Request, Session};
use crate::model::RunError;

async fn answer(
    model: &LanguageModel,
    format: AnswerFormat,
    seed: u64,
) -> Result<(String, Finish), RunError> {
    let params =
        Params { max_tokens: 100, temperature: 1.0, seed, format: Some(format), ..Params::default() };
    let request = Request { prompt: Prompt::Tokens(tokens(20, 1)), choices: None, params };
    let answer = model.run(&mut Session::default(), request, None, soon()).await?;
    let Output::Text { text, finish, .. } = answer.output else { panic!("scores") };
    Ok((text, finish))
}

#[tokio::test]
async fn answers_follow_their_schema() {
    let schema = json!({
        "type": "object",
        "properties": {
            "label": { "enum": ["safe", "unsafe"] },
            "score": { "type": "integer", "minimum": 0, "maximum": 9 },
            "reasons": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 }
        },
        "required": ["label", "score", "reasons"],
        "additionalProperties": false
    });
    for file in FILES {
        let model = model(file);
        for seed in 0..8 {
            let (text, finish) =
                answer(&model, AnswerFormat::JsonSchema(schema.clone()), seed).await.unwrap();
            assert_eq!(finish, Finish::End, "{file}: {text}");
            let value: Value = serde_json::from_str(&text).unwrap();
            let members = value.as_object().unwrap();
            assert_eq!(members.len(), 3, "{text}");
            assert!(["safe", "unsafe"].contains(&members["label"].as_str().unwrap()), "{text}");
            assert!((0..10).contains(&members["score"].as_i64().unwrap()), "{text}");
            let reasons = members["reasons"].as_array().unwrap();
            assert!(reasons.len() <= 3 && reasons.iter().all(Value::is_boolean), "{text}");
        }
    }
}

#[tokio::test]
async fn answers_are_objects_or_choices() {
    let model = model(FILES[0]);
    for seed in 0..8 {
        let (text, finish) = answer(&model, AnswerFormat::JsonObject, seed).await.unwrap();
        // A number may be too large for a value.
        let is_object = text.starts_with('{') && serde_json::from_str::<IgnoredAny>(&text).is_ok();
        assert!(text.trim_start().starts_with('{') && (is_object || finish == Finish::Length), "{text}");
        let choices = ["a (b)", "a.", "[c]"].map(str::to_owned).to_vec();
        let (text, finish) = answer(&model, AnswerFormat::Choice(choices.clone()), seed).await.unwrap();
        assert!(choices.contains(&text) && finish == Finish::End, "{text}");
    }
}

#[tokio::test]
async fn unsupported_schemas_are_named() {
    let model = model(FILES[0]);
    for (schema, expected) in [
        (json!({ "type": "nonsense" }), "nonsense"),
        (json!({ "$ref": "https://example.com/schema.json" }), "example.com"),
        (json!({ "enum": vec!["x".repeat(1_000); 100] }), "the schema has 100"),
    ] {
        let error = answer(&model, AnswerFormat::JsonSchema(schema), 1).await;
        let Err(RunError::InvalidInput { message, .. }) = error else { panic!("{expected}: {error:?}") };
        assert!(message.contains(expected), "{message}");
    }
    let long = AnswerFormat::Choice(vec!["x".repeat(1_000); 100]);
    let Err(RunError::InvalidInput { message, .. }) = answer(&model, long, 1).await else { panic!("long") };
    assert!(message.contains("`enum` has 100100 bytes, expected at most 65536"), "{message}");
    // The model is still there.
    assert!(answer(&model, AnswerFormat::JsonObject, 1).await.is_ok());
}
