//! Parses a moderation request: a text, an array of texts, or an array of parts.

use std::borrow::Cow;

use infer_config::data_url;
use infer_engine::limits::Limit;
use infer_engine::text::{QUOTE_BYTES, excerpt};
use infer_sandbox::types::Part;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde_json::value::RawValue;

use super::extensions::{self, Extensions, expected};
use crate::error::ApiError;
use crate::routes::json;
use crate::routes::json::{Any, Read, Seed, Shallow};

/// A parsed moderation request.
#[derive(Debug)]
pub(super) struct ModerationRequest {
    /// Name of the judging component, as the client sent it.
    pub(super) model: Option<String>,
    /// The inputs. An input is the parts of one piece of content.
    pub(super) inputs: Vec<Vec<Part>>,
    /// Options of the object `infer`.
    pub(super) extensions: Extensions,
}

/// Parses a moderation request.
///
/// # Errors
///
/// 400 with the path of the invalid member, 413 for more than `max_inputs` texts or parts.
pub(super) fn parse(body: &[u8], max_inputs: usize) -> Result<ModerationRequest, ApiError> {
    let limit = Limit::new(max_inputs, "items");
    let Members { model, input, extensions } = json::read(body, Body { limit })??;
    let inputs = match input {
        Input::Missing => {
            Err(ApiError::invalid("input", "`input` is missing; expected a string or an array"))
        }
        Input::Value(Shallow::Text(text)) => Ok(vec![vec![Part::Text(text.into_owned())]]),
        Input::Value(other) => {
            Err(expected("input", "a string, an array of strings or an array of parts", &other))
        }
        Input::Items(items) => items.inputs(),
    }?;
    Ok(ModerationRequest { model, inputs, extensions })
}

/// The members of the body.
struct Members<'de> {
    model: Option<String>,
    input: Input<'de>,
    extensions: Extensions,
}

/// Reads the whole body.
struct Body {
    limit: Limit,
}

enum Input<'de> {
    Missing,
    Value(Shallow<'de>),
    Items(Items),
}

impl<'de> Read<'de> for Body {
    type Value = Result<Members<'de>, ApiError>;

    fn shallow(self, value: Shallow<'de>) -> Self::Value {
        let expected = "an object such as {\"input\": \"some text\"}";
        Err(ApiError::invalid("", format!("the body is {value}, expected {expected}")))
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { model: None, input: Input::Missing, extensions: Extensions::default() };
        let mut first_error = None;
        while let Some(key) = object.next_key::<Cow<'_, str>>()? {
            match &*key {
                "input" => members.input = object.next_value_seed(Seed(Items::new(self.limit)))?,
                "model" => {
                    let model = object.next_value_seed(Seed(Any))?;
                    match model {
                        Shallow::Text(name) => members.model = Some(name.into_owned()),
                        Shallow::Null => {}
                        other => {
                            first_error.get_or_insert(expected("model", "a string", &other));
                        }
                    }
                }
                "infer" => match object.next_value_seed(Seed(extensions::Reader))? {
                    Ok(extensions) => members.extensions = extensions,
                    Err(error) => {
                        first_error.get_or_insert(error);
                    }
                },
                _ => {
                    // Typed clients send null for options that they do not use.
                    if object.next_value::<&RawValue>()?.get() == "null" {
                        continue;
                    }
                    let key = excerpt(&key, QUOTE_BYTES);
                    let message = format!("unknown member `{key}`; expected `input`, `model` or `infer`");
                    first_error.get_or_insert(ApiError::invalid(&key, message));
                }
            }
        }
        Ok(first_error.map_or(Ok(members), Err))
    }
}

/// The valid items of `input`, within the limit.
struct Items {
    limit: Limit,
    count: usize,
    parts: Vec<Part>,
    /// True if the items are texts; the first item decides.
    are_texts: bool,
    /// The first error; items after it are skipped.
    first_error: Option<ApiError>,
}

impl Items {
    fn new(limit: Limit) -> Self {
        Items { limit, count: 0, parts: Vec::new(), are_texts: false, first_error: None }
    }

    fn inputs(self) -> Result<Vec<Vec<Part>>, ApiError> {
        let Items { limit, count, parts, are_texts, first_error } = self;
        if count == 0 {
            return Err(ApiError::invalid("input", "`input` is empty; expected at least one text or part"));
        }
        limit.check("`input`", count).map_err(|message| ApiError::too_large(message).at("input"))?;
        if let Some(first_error) = first_error {
            return Err(first_error);
        }
        // Texts are judged separately, parts as one piece of content.
        if are_texts { Ok(parts.into_iter().map(|text| vec![text]).collect()) } else { Ok(vec![parts]) }
    }

    fn take(&mut self, path: &str, item: Item<'_>) -> Result<Part, ApiError> {
        if self.count == 0 {
            self.are_texts = matches!(item, Item::Value(Shallow::Text(_)));
        }
        match item {
            Item::Value(Shallow::Text(text)) if self.are_texts => Ok(Part::Text(text.into_owned())),
            Item::Value(other) if self.are_texts => {
                Err(expected(path, "a string, like the first item", &other))
            }
            Item::Part(_) if self.are_texts => {
                Err(expected(path, "a string, like the first item", &Shallow::Object))
            }
            Item::Part(part) => part.read(path),
            Item::Value(other) => Err(expected(path, "a part: an object with `type`", &other)),
        }
    }
}

impl<'de> Read<'de> for Items {
    type Value = Input<'de>;

    fn shallow(self, value: Shallow<'de>) -> Input<'de> {
        Input::Value(value)
    }

    fn array<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<Input<'de>, A::Error> {
        loop {
            if self.first_error.is_some() || self.count >= self.limit.max() {
                if array.next_element::<IgnoredAny>()?.is_none() {
                    return Ok(Input::Items(self));
                }
            } else {
                let Some(item) = array.next_element_seed(Seed(AnyItem))? else {
                    return Ok(Input::Items(self));
                };
                match self.take(&format!("input[{}]", self.count), item) {
                    Ok(part) => self.parts.push(part),
                    Err(error) => self.first_error = Some(error),
                }
            }
            self.count += 1;
        }
    }
}

enum Item<'de> {
    Value(Shallow<'de>),
    Part(PartMembers<'de>),
}

/// The known members of a part; others are skipped.
#[derive(Default)]
struct PartMembers<'de> {
    kind: Option<Shallow<'de>>,
    text: Option<Shallow<'de>>,
    /// Kept as raw JSON: an image is decoded from it without an intermediate copy.
    url: Option<&'de RawValue>,
}

struct AnyItem;

impl<'de> Read<'de> for AnyItem {
    type Value = Item<'de>;

    fn shallow(self, value: Shallow<'de>) -> Item<'de> {
        Item::Value(value)
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Item<'de>, A::Error> {
        let mut members = PartMembers::default();
        while let Some(key) = object.next_key::<Cow<'_, str>>()? {
            match &*key {
                "type" => members.kind = Some(object.next_value_seed(Seed(Any))?),
                "text" => members.text = Some(object.next_value_seed(Seed(Any))?),
                "image_url" => members.url = object.next_value_seed(Seed(ImageUrl))?,
                _ => {
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Item::Part(members))
    }
}

/// Reads the member `url` of an `image_url`.
struct ImageUrl;

impl<'de> Read<'de> for ImageUrl {
    type Value = Option<&'de RawValue>;

    fn shallow(self, _: Shallow<'de>) -> Self::Value {
        None
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut url = None;
        while let Some(key) = object.next_key::<Cow<'_, str>>()? {
            if key == "url" {
                url = Some(object.next_value()?);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(url)
    }
}

impl PartMembers<'_> {
    fn read(self, path: &str) -> Result<Part, ApiError> {
        let kind = self.kind.unwrap_or(Shallow::Null);
        match &kind {
            Shallow::Text(kind) if kind == "text" => match self.text.unwrap_or(Shallow::Null) {
                Shallow::Text(text) => Ok(Part::Text(text.into_owned())),
                other => Err(expected(&format!("{path}.text"), "a string", &other)),
            },
            Shallow::Text(kind) if kind == "image_url" => {
                let path = format!("{path}.image_url.url");
                let kind = self.url.map_or(Shallow::Null, Shallow::kind);
                match (self.url, &kind) {
                    (Some(url), Shallow::Text(_)) => data_url::decode_json(url)
                        .map(Part::Image)
                        .map_err(|error| ApiError::invalid(path, error.to_string())),
                    _ => Err(expected(&path, "a string with a data: URL", &kind)),
                }
            }
            _ => Err(expected(&format!("{path}.type"), "`text` or `image_url`", &kind)),
        }
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
            assert_eq!(shapes(&parse(body.as_bytes(), 8).unwrap().inputs), expected, "{body}");
        }
    }

    #[test]
    fn invalid_member_is_named() {
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
                "invalid base64",
            ),
            (r#"{"input": [{"type": "image_url", "image_url": "x"}]}"#, "input[0].image_url.url", "missing"),
            (r#"{"input": "a", "inputs": "b"}"#, "inputs", "unknown member"),
            (r#"{"input": "a", "model": 3}"#, "model", "is a number"),
            (r#"{"input": "a"} x"#, "", "not JSON"),
            (r#"{"input": [[[1]], "a"]}"#, "input[0]", "is an array"),
            (r#"{"input": ["a", {"type": "text", "text": "b"}]}"#, "input[1]", "is an object"),
            ("\"\u{fffd}", "", "not JSON"),
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
    fn deep_nesting_uses_no_stack() {
        let deep = "[".repeat(100_000);
        for body in
            [deep.clone(), format!("{{\"input\": {deep}"), format!("{{\"input\": [{{\"type\": {deep}")]
        {
            assert!(format!("{:?}", parse(body.as_bytes(), 8).unwrap_err()).contains("not JSON"));
        }
    }

    #[test]
    fn surplus_items_are_counted_not_stored() {
        let many = format!("{{\"input\": [{}\"\"]}}", "\"\",".repeat(99_999));
        let message = format!("{:?}", parse(many.as_bytes(), 8).unwrap_err());
        assert!(message.contains("has 100000 items, expected at most 8"), "{message}");
        let key = format!("{{\"{}\": 1}}", "k".repeat(100_000));
        assert!(format!("{:?}", parse(key.as_bytes(), 8).unwrap_err()).len() < 1_000);
    }

    #[test]
    fn too_many_items_are_413() {
        let error = parse(br#"{"input": ["a", "b", "c"]}"#, 2).unwrap_err();
        assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
