//! Reading a moderation request: a text, an array of texts, or an array of parts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use infer_sandbox::types::Part;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The inputs of a request, each of them the parts of one piece of content.
///
/// # Errors
///
/// 400 with the path of the member that is wrong, 413 for more than `most` texts or parts.
pub(super) fn parse(body: &[u8], most: usize) -> Result<Vec<Vec<Part>>, ApiError> {
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid("", format!("the body is not JSON: {error}")))?;
    let Value::Object(mut body) = body else {
        let expected = "an object such as {\"input\": \"some text\"}";
        return Err(ApiError::invalid("", format!("the body is {}, expected {expected}", kind(&body))));
    };
    let input = body.remove("input");
    check_rest(&body)?;
    match input {
        Some(Value::String(text)) => Ok(vec![vec![Part::Text(text)]]),
        Some(Value::Array(items)) => several(items, most),
        Some(other) => Err(expected("input", "a string, an array of strings or an array of parts", &other)),
        None => Err(ApiError::invalid("input", "`input` is missing; expected a string or an array")),
    }
}

/// Members beside `input`: `model` is taken, since OpenAI's clients send it; the route has chosen the component.
fn check_rest(body: &Map<String, Value>) -> Result<(), ApiError> {
    for (key, value) in body {
        match key.as_str() {
            "model" if value.is_string() || value.is_null() => {}
            "model" => return Err(expected("model", "a string", value)),
            _ => {
                return Err(ApiError::invalid(
                    key.as_str(),
                    format!("`{key}` is not known; expected `input` and `model`"),
                ));
            }
        }
    }
    Ok(())
}

fn several(items: Vec<Value>, most: usize) -> Result<Vec<Vec<Part>>, ApiError> {
    if items.is_empty() {
        return Err(ApiError::invalid("input", "`input` is empty; expected at least one text or part"));
    }
    if items.len() > most {
        let message = format!("`input` holds {} items, expected at most {most}", items.len());
        return Err(ApiError::too_large(message).at("input"));
    }
    let texts = items.first().is_some_and(Value::is_string);
    let mut inputs = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let path = format!("input[{index}]");
        inputs.push(match item {
            Value::String(text) if texts => Part::Text(text),
            Value::Object(part) if !texts => read_part(&path, part)?,
            other if texts => return Err(expected(&path, "a string, like the first item", &other)),
            other => return Err(expected(&path, "a part: an object with `type`", &other)),
        });
    }
    // Texts are judged one by one, parts as one piece of content.
    if texts { Ok(inputs.into_iter().map(|text| vec![text]).collect()) } else { Ok(vec![inputs]) }
}

fn read_part(path: &str, mut part: Map<String, Value>) -> Result<Part, ApiError> {
    match part.get("type").and_then(Value::as_str) {
        Some("text") => match part.remove("text") {
            Some(Value::String(text)) => Ok(Part::Text(text)),
            other => Err(expected(&format!("{path}.text"), "a string", &other.unwrap_or(Value::Null))),
        },
        Some("image_url") => {
            let path = format!("{path}.image_url.url");
            match part.get("image_url").and_then(|image| image.get("url")) {
                Some(Value::String(url)) => data_url(url).map(Part::Image).map_err(|error| error.at(path)),
                other => Err(expected(&path, "a string with a data: URL", other.unwrap_or(&Value::Null))),
            }
        }
        _ => {
            let found = part.get("type").unwrap_or(&Value::Null);
            Err(expected(&format!("{path}.type"), "`text` or `image_url`", found))
        }
    }
}

/// The bytes of a `data:` URL in base64.
///
/// # Errors
///
/// 400 for any other URL: the server fetches nothing on a client's behalf.
fn data_url(url: &str) -> Result<Vec<u8>, ApiError> {
    let scheme_is =
        |scheme: &str| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if !scheme_is("data:") {
        let message = "expected a data: URL with the image in base64; the server fetches no remote images";
        return Err(ApiError::invalid("", message));
    }
    let (kind, data) = url["data:".len()..]
        .split_once(',')
        .ok_or_else(|| ApiError::invalid("", "the data: URL has no comma before its data"))?;
    if !kind.to_ascii_lowercase().ends_with(";base64") {
        return Err(ApiError::invalid(
            "",
            "the data: URL is not in base64; expected `data:image/png;base64,…`",
        ));
    }
    STANDARD
        .decode(data.trim_ascii())
        .map_err(|error| ApiError::invalid("", format!("the data: URL's base64 is damaged: {error}")))
}

fn expected(path: &str, expected: &str, found: &Value) -> ApiError {
    ApiError::invalid(path, format!("`{path}` is {}, expected {expected}", kind(found)))
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "missing or null".into(),
        Value::Bool(_) => "a boolean".into(),
        Value::Number(_) => "a number".into(),
        Value::String(text) => format!("the string `{}`", text.chars().take(32).collect::<String>()),
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::*;

    fn shapes(inputs: &[Vec<Part>]) -> Vec<Vec<String>> {
        let shape = |part: &Part| match part {
            Part::Text(text) => format!("text:{text}"),
            Part::Image(bytes) => format!("image:{}", bytes.len()),
        };
        inputs.iter().map(|parts| parts.iter().map(shape).collect()).collect()
    }

    #[test]
    fn texts_are_separate_inputs_and_parts_are_one() {
        let cases: [(&str, &[&[&str]]); 4] = [
            (r#"{"input": "a"}"#, &[&["text:a"]]),
            (r#"{"input": ["a", "b"], "model": "omni-moderation-latest"}"#, &[&["text:a"], &["text:b"]]),
            (
                r#"{"input": [{"type": "text", "text": "a"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}"#,
                &[&["text:a", "image:3"]],
            ),
            (
                r#"{"input": [{"type": "image_url", "image_url": {"url": "DATA:;BASE64,AAAA"}}]}"#,
                &[&["image:3"]],
            ),
        ];
        for (body, expected) in cases {
            assert_eq!(shapes(&parse(body.as_bytes(), 8).unwrap()), expected, "{body}");
        }
    }

    #[test]
    fn a_wrong_member_is_named() {
        let cases = [
            ("", "", "not JSON"),
            ("[1]", "", "the body is an array"),
            ("{}", "input", "missing"),
            (r#"{"input": 3}"#, "input", "is a number"),
            (r#"{"input": []}"#, "input", "is empty"),
            (r#"{"input": ["a", 3]}"#, "input[1]", "is a number"),
            (r#"{"input": [{"type": "text", "text": "a"}, "b"]}"#, "input[1]", "expected a part"),
            (r#"{"input": [{"type": "text"}]}"#, "input[0].text", "missing"),
            (r#"{"input": [{"type": "video"}]}"#, "input[0].type", "`video`"),
            (
                r#"{"input": [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]}"#,
                "input[0].image_url.url",
                "no remote images",
            ),
            (
                r#"{"input": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,?"}}]}"#,
                "input[0].image_url.url",
                "damaged",
            ),
            (r#"{"input": [{"type": "image_url", "image_url": "x"}]}"#, "input[0].image_url.url", "missing"),
            (r#"{"input": "a", "inputs": "b"}"#, "inputs", "not known"),
            (r#"{"input": "a", "model": 3}"#, "model", "is a number"),
        ];
        for (body, param, words) in cases {
            let error = parse(body.as_bytes(), 8).unwrap_err();
            assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{body}");
            let text = format!("{error:?}");
            assert!(text.contains(words), "{body}: {text}");
            let named =
                if param.is_empty() { "param: None".to_owned() } else { format!("param: Some({param:?})") };
            assert!(text.contains(&named), "{body}: {text}");
        }
    }

    #[test]
    fn more_items_than_allowed_are_too_large() {
        let error = parse(br#"{"input": ["a", "b", "c"]}"#, 2).unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
