//! `response_format`: the format of an answer.

use infer_engine::AnswerFormat;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::form::{at, parse};
use crate::error::ApiError;

/// Format of an answer.
#[derive(Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum ResponseFormat {
    /// Any text.
    Text,
    /// A JSON object.
    JsonObject,
    /// JSON that a schema accepts.
    JsonSchema { json_schema: Schema },
    /// Additional: one of these texts.
    Enum { r#enum: Vec<String> },
}

/// A JSON Schema with a name.
#[derive(Deserialize, ToSchema)]
pub(super) struct Schema {
    /// Absent for any JSON object.
    schema: Option<Value>,
    /// Accepted and ignored.
    #[serde(default, rename = "name")]
    #[schema(value_type = Option<String>)]
    _name: IgnoredAny,
    /// Accepted and ignored: the answer always follows the schema.
    #[serde(default, rename = "strict")]
    #[schema(value_type = Option<bool>)]
    _strict: IgnoredAny,
}

/// Reads `response_format`; `None` for any text.
///
/// # Errors
///
/// 400 for an unknown type, or members that are missing or malformed.
pub(super) fn read(value: Option<&RawValue>) -> Result<Option<AnswerFormat>, ApiError> {
    let Some(value) = value.filter(|value| !matches!(value.get(), "null" | "{}")) else { return Ok(None) };
    let format = parse(value).map_err(|message| at("response_format", &message))?;
    Ok(Some(match format {
        ResponseFormat::Text => return Ok(None),
        ResponseFormat::JsonObject => AnswerFormat::JsonObject,
        ResponseFormat::JsonSchema { json_schema: Schema { schema, .. } } => {
            schema.map_or(AnswerFormat::JsonObject, AnswerFormat::JsonSchema)
        }
        ResponseFormat::Enum { r#enum: texts } => {
            if texts.is_empty() || texts.iter().any(String::is_empty) {
                return Err(at("response_format", "has no text in `enum`, or an empty one"));
            }
            AnswerFormat::Choice(texts)
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn format(value: &Value) -> Result<Option<AnswerFormat>, String> {
        let value = RawValue::from_string(value.to_string()).unwrap();
        read(Some(&value)).map_err(|error| error.to_string())
    }

    #[test]
    fn formats_are_read() {
        for text in [json!(null), json!({}), json!({ "type": "text", "more": 1 })] {
            assert_eq!(format(&text).unwrap(), None, "{text}");
        }
        assert_eq!(format(&json!({ "type": "json_object" })).unwrap(), Some(AnswerFormat::JsonObject));
        let schema = json!({ "type": "integer" });
        let named = json!({ "name": "n", "strict": true, "schema": schema });
        let found = format(&json!({ "type": "json_schema", "json_schema": named })).unwrap();
        assert_eq!(found, Some(AnswerFormat::JsonSchema(schema)));
        let found = format(&json!({ "type": "enum", "enum": ["a", "b"] })).unwrap();
        assert_eq!(found, Some(AnswerFormat::Choice(vec!["a".to_owned(), "b".to_owned()])));
    }

    #[test]
    fn malformed_formats_are_named() {
        for (value, expected) in [
            (json!("json"), "`response_format` is invalid"),
            (json!({ "type": "xml" }), "unknown variant `xml`, expected one of `text`, `json_object`"),
            (json!({ "type": "json_schema" }), "missing field `json_schema`"),
            (json!({ "type": "enum", "enum": [] }), "has no text in `enum`"),
        ] {
            let message = format(&value).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
