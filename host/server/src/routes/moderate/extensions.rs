//! The object `infer` of a moderation request: options that OpenAI's schema does not have.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde::de::MapAccess;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::limits::MAX_THRESHOLDS;
use crate::routes::json::{Any, Read, Seed, Shallow};

/// Options of a moderation request.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Extensions {
    /// Time limit for judging, from the arrival of the request; the server's own deadline if
    /// absent.
    pub(crate) deadline: Option<Duration>,
    /// Behavior when the time limit is reason.
    pub(crate) on_timeout: OnTimeout,
    /// Lowest score at which a category is flagged, 0 to 1, instead of the component's threshold.
    pub(crate) thresholds: BTreeMap<String, f32>,
    pub(crate) explain: Explain,
}

/// Explanation of each result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Explain {
    /// No explanation.
    #[default]
    No,
    /// The judged categories, and the guest's notes.
    Yes,
    /// In addition the guest is asked for the reason of a language model.
    Rationale,
    /// In addition the guest is asked for the words behind the scores.
    Spans,
    /// The guest is asked for the score of each sentence, which is not part of the explanation.
    Sentences,
}

impl Explain {
    /// True if the response has explanations.
    pub(super) fn is_shown(self) -> bool {
        matches!(self, Explain::Yes | Explain::Rationale | Explain::Spans)
    }
}

impl Extensions {
    /// Settings by which the guest learns what to explain, in the order of their keys.
    pub(super) fn settings(&self) -> Vec<(String, String)> {
        let word = match self.explain {
            Explain::No | Explain::Yes => return Vec::new(),
            Explain::Rationale => "rationale",
            Explain::Spans => "spans",
            Explain::Sentences => "sentences",
        };
        let mut settings = vec![("request.explain".to_owned(), word.to_owned())];
        if self.explain == Explain::Spans {
            let thresholds = self.thresholds.iter();
            settings.extend(thresholds.map(|(category, threshold)| {
                (["request.threshold.", category].concat(), threshold.to_string())
            }));
        }
        settings
    }
}

/// Behavior for an input that was not judged in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnTimeout {
    /// Responds with 504.
    #[default]
    Error,
    /// Not flagged, with the action `review`.
    Review,
    /// Not flagged, with the action `allow`.
    Allow,
}

/// Reads the object `infer`.
pub(super) struct Reader;

impl<'de> Read<'de> for Reader {
    type Value = Result<Extensions, ApiError>;

    fn shallow(self, value: Shallow<'de>) -> Self::Value {
        match value {
            Shallow::Null => Ok(Extensions::default()),
            other => Err(expected("infer", "an object", &other)),
        }
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut extensions = Extensions::default();
        let mut first_error = None;
        while let Some(key) = object.next_key::<Cow<'_, str>>()? {
            // A null member counts as absent.
            let member = match &*key {
                "deadline_ms" => object.next_value_seed(Seed(Any))?.try_into_deadline(&mut extensions),
                "on_timeout" => on_timeout(&object.next_value_seed(Seed(Any))?, &mut extensions),
                "explain" => match object.next_value_seed(Seed(Any))? {
                    Shallow::Boolean(explain) => {
                        extensions.explain = if explain { Explain::Yes } else { Explain::No };
                        Ok(())
                    }
                    Shallow::Text(text) if text == "rationale" => {
                        extensions.explain = Explain::Rationale;
                        Ok(())
                    }
                    Shallow::Text(text) if text == "spans" => {
                        extensions.explain = Explain::Spans;
                        Ok(())
                    }
                    Shallow::Null => Ok(()),
                    other => {
                        Err(expected("infer.explain", "`true`, `false`, `rationale` or `spans`", &other))
                    }
                },
                "thresholds" => object
                    .next_value_seed(Seed(Thresholds))?
                    .map(|thresholds| extensions.thresholds = thresholds),
                _ => {
                    if object.next_value::<&RawValue>()?.get() == "null" {
                        continue;
                    }
                    let path = format!("infer.{}", excerpt(&key, QUOTE_BYTES));
                    let message = format!(
                        "unknown member `{path}`; expected `deadline_ms`, `on_timeout`, `thresholds` or `explain`"
                    );
                    Err(ApiError::invalid(path, message))
                }
            };
            if let Err(error) = member {
                first_error.get_or_insert(error);
            }
        }
        Ok(first_error.map_or(Ok(extensions), Err))
    }
}

impl Shallow<'_> {
    fn try_into_deadline(self, extensions: &mut Extensions) -> Result<(), ApiError> {
        match self {
            Shallow::Null => Ok(()),
            Shallow::Number(ms) if ms >= 1.0 && ms.fract() == 0.0 && ms <= f64::from(u32::MAX) => {
                extensions.deadline = Some(Duration::from_millis(ms as u64));
                Ok(())
            }
            Shallow::Number(ms) => {
                let message = format!("`infer.deadline_ms` is {ms}, expected whole milliseconds, at least 1");
                Err(ApiError::invalid("infer.deadline_ms", message))
            }
            other => Err(expected("infer.deadline_ms", "a number of milliseconds", &other)),
        }
    }
}

fn on_timeout(value: &Shallow<'_>, extensions: &mut Extensions) -> Result<(), ApiError> {
    extensions.on_timeout = match value {
        Shallow::Null => return Ok(()),
        Shallow::Text(word) if word == "error" => OnTimeout::Error,
        Shallow::Text(word) if word == "review" => OnTimeout::Review,
        Shallow::Text(word) if word == "allow" => OnTimeout::Allow,
        other => return Err(expected("infer.on_timeout", "`error`, `review` or `allow`", other)),
    };
    Ok(())
}

/// Reads the object of thresholds.
struct Thresholds;

impl<'de> Read<'de> for Thresholds {
    type Value = Result<BTreeMap<String, f32>, ApiError>;

    fn shallow(self, value: Shallow<'de>) -> Self::Value {
        if value == Shallow::Null {
            return Ok(BTreeMap::new());
        }
        Err(expected("infer.thresholds", "an object such as {\"hate\": 0.5}", &value))
    }

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut thresholds = BTreeMap::new();
        let mut first_error = None;
        while let Some(category) = object.next_key::<Cow<'_, str>>()? {
            let value = object.next_value_seed(Seed(Any))?;
            if let Err(reason) = MAX_THRESHOLDS.check_next(thresholds.len()) {
                let message = format!("`infer.thresholds` has {reason}");
                first_error.get_or_insert(ApiError::invalid("infer.thresholds", message));
                continue;
            }
            let path = || format!("infer.thresholds.{}", excerpt(&category, QUOTE_BYTES));
            match value {
                Shallow::Number(value) if (0.0..=1.0).contains(&value) => {
                    thresholds.insert(category.into_owned(), value as f32);
                }
                Shallow::Number(value) => {
                    let message = format!("`{}` is {value}, expected 0 to 1", path());
                    first_error.get_or_insert(ApiError::invalid(path(), message));
                }
                Shallow::Null => {}
                other => {
                    first_error.get_or_insert(expected(&path(), "a number from 0 to 1", &other));
                }
            }
        }
        Ok(first_error.map_or(Ok(thresholds), Err))
    }
}

pub(super) fn expected(path: &str, expected: &str, found: &Shallow<'_>) -> ApiError {
    ApiError::invalid(path, format!("`{path}` is {found}, expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routes::json;

    #[test]
    fn options_are_parsed_and_invalid_ones_named() {
        let text =
            r#"{"deadline_ms": 20, "on_timeout": "review", "thresholds": {"hate": 0.5}, "explain": true}"#;
        let read = json::read(text.as_bytes(), Reader).unwrap().unwrap();
        assert_eq!(read.deadline, Some(Duration::from_millis(20)));
        assert_eq!((read.on_timeout, read.explain), (OnTimeout::Review, Explain::Yes));
        assert_eq!(read.thresholds, BTreeMap::from([("hate".to_owned(), 0.5)]));
        let read = json::read(br#"{"explain": "rationale"}"#, Reader).unwrap().unwrap();
        assert_eq!(read.explain, Explain::Rationale);
        let read = json::read(br#"{"thresholds": {"hate": 0.25}, "explain": "spans"}"#, Reader);
        let read = read.unwrap().unwrap();
        let pairs = [("request.explain", "spans"), ("request.threshold.hate", "0.25")];
        assert_eq!(read.settings(), pairs.map(|(key, value)| (key.to_owned(), value.to_owned())));
        assert!(Extensions { explain: Explain::Yes, ..read }.settings().is_empty());
        let nulls = r#"{"deadline_ms": null, "on_timeout": null, "thresholds": null, "explain": null}"#;
        for text in ["null", nulls, r#"{"thresholds": {"hate": null}}"#] {
            assert_eq!(
                json::read(text.as_bytes(), Reader).unwrap().unwrap(),
                Extensions::default(),
                "{text}"
            );
        }
        for (text, words) in [
            (r#"{"deadline_ms": 0}"#, "`infer.deadline_ms` is 0"),
            (r#"{"deadline_ms": 1.5}"#, "whole milliseconds"),
            (r#"{"deadline_ms": "1"}"#, "the string `1`"),
            (r#"{"on_timeout": "block"}"#, "`error`, `review` or `allow`"),
            (r#"{"thresholds": {"hate": 1.1}}"#, "`infer.thresholds.hate` is 1.1"),
            (r#"{"thresholds": {"hate": []}}"#, "is an array"),
            (r#"{"thresholds": 3}"#, "`infer.thresholds` is a number"),
            (r#"{"explain": 1}"#, "`infer.explain` is a number"),
            (r#"{"explain": "why"}"#, "expected `true`, `false`, `rationale` or `spans`"),
            (r#"{"explains": 1}"#, "unknown member `infer.explains`"),
            ("7", "`infer` is a number"),
        ] {
            let error = format!("{:?}", json::read(text.as_bytes(), Reader).unwrap().unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
