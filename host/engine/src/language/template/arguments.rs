//! Variables that a request gives to the chat template.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::language::jinja::{Cause, Value};
use crate::limits::MAX_TEMPLATE_ARGUMENTS;
use crate::text::{QUOTE_BYTES, excerpt};

/// Variables that the chat itself sets.
const RESERVED: [&str; 4] = ["messages", "add_generation_prompt", "bos_token", "eos_token"];

/// Variables that a request gives to the chat template, such as `enable_thinking` or `tools`.
///
/// Texts in them are text: they never become control tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateArguments(Vec<(String, Json)>);

/// A JSON value whose objects keep their order, in which templates write them.
#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl TemplateArguments {
    /// Parses a JSON object of at most 64 KiB; null is an empty one.
    ///
    /// # Errors
    ///
    /// If it is too long or no object, if a name occurs twice in an object, or if it sets a
    /// variable of the chat, such as `messages`.
    pub fn parse(json: &str) -> Result<Self, String> {
        MAX_TEMPLATE_ARGUMENTS.check("the object", json.len())?;
        let parsed = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let arguments = match parsed {
            Json::Null => Vec::new(),
            Json::Map(arguments) => arguments,
            _ => return Err("expected an object of the template's variables".to_owned()),
        };
        if let Some((name, _)) = arguments.iter().find(|(name, _)| RESERVED.contains(&name.as_str())) {
            return Err(format!("sets `{name}`, which the chat itself sets; leave it out"));
        }
        Ok(TemplateArguments(arguments))
    }

    /// The arguments, with `name` set to `value` unless they set it.
    pub(crate) fn with_default(&self, name: &str, value: bool) -> Self {
        let mut arguments = self.clone();
        if !arguments.0.iter().any(|(known, _)| known == name) {
            arguments.0.push((name.to_owned(), Json::Boolean(value)));
        }
        arguments
    }

    /// Every text in the arguments.
    pub(crate) fn texts(&self) -> Vec<&str> {
        let mut texts = Vec::new();
        self.0.iter().for_each(|(_, value)| value.collect(&mut texts));
        texts
    }

    /// The variables, with each text replaced by `spelt`.
    ///
    /// # Errors
    ///
    /// If a value is nested too deeply.
    pub(crate) fn variables(&self, spelt: &dyn Fn(&str) -> String) -> Result<Vec<(&str, Value)>, Cause> {
        self.0.iter().map(|(name, value)| Ok((name.as_str(), value.value(spelt)?))).collect()
    }
}

impl<'de> Deserialize<'de> for TemplateArguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        TemplateArguments::parse(json.get())
            .map_err(|message| D::Error::custom(format!("`chat_template_kwargs`: {message}")))
    }
}

impl Json {
    fn collect<'j>(&'j self, texts: &mut Vec<&'j str>) {
        match self {
            Json::Text(text) => texts.push(text),
            Json::List(items) => items.iter().for_each(|item| item.collect(texts)),
            Json::Map(entries) => entries.iter().for_each(|(key, item)| {
                texts.push(key);
                item.collect(texts);
            }),
            Json::Null | Json::Boolean(_) | Json::Integer(_) | Json::Float(_) => {}
        }
    }

    fn value(&self, spelt: &dyn Fn(&str) -> String) -> Result<Value, Cause> {
        Ok(match self {
            Json::Null => Value::None,
            Json::Boolean(value) => Value::Boolean(*value),
            Json::Integer(number) => Value::Integer(*number),
            Json::Float(number) => Value::Float(*number),
            Json::Text(text) => Value::from(spelt(text)),
            Json::List(items) => {
                Value::list(items.iter().map(|item| item.value(spelt)).collect::<Result<_, _>>()?)?
            }
            Json::Map(entries) => {
                let entry = |(key, item): &(String, Json)| Ok((Value::from(spelt(key)), item.value(spelt)?));
                Value::distinct(entries.iter().map(entry).collect::<Result<_, Cause>>()?)?
            }
        })
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E: Error>(self) -> Result<Json, E> {
                Ok(Json::Null)
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<Json, E> {
                Ok(Json::Boolean(value))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Json, E> {
                Ok(Json::Integer(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Json, E> {
                Ok(i64::try_from(number).map_or(Json::Float(number as f64), Json::Integer))
            }

            fn visit_f64<E: Error>(self, number: f64) -> Result<Json, E> {
                Ok(Json::Float(number))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Json, E> {
                Ok(Json::Text(text.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Json, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = sequence.next_element()? {
                    items.push(item);
                }
                Ok(Json::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let (mut entries, mut names) = (Vec::new(), HashSet::new());
                while let Some((name, value)) = map.next_entry::<String, Json>()? {
                    if !names.insert(name.clone()) {
                        let name = excerpt(&name, QUOTE_BYTES);
                        return Err(A::Error::custom(format!("`{name}` occurs twice; expected once")));
                    }
                    entries.push((name, value));
                }
                Ok(Json::Map(entries))
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_keep_their_order() {
        let arguments =
            TemplateArguments::parse(r#"{"z": [1, 2.5, null], "a": {"y": true, "b": "x"}}"#).unwrap();
        assert_eq!(arguments.texts(), ["y", "b", "x"]);
        let upper = |text: &str| text.to_uppercase();
        let variables = arguments.variables(&upper).unwrap();
        let shown = format!("{variables:?}");
        assert!(
            shown.find("\"z\"") < shown.find("\"a\"") && shown.find("\"Y\"") < shown.find("\"B\""),
            "{shown}"
        );
        assert!(shown.contains("Float(2.5)") && shown.contains("\"X\""), "{shown}");
        assert_eq!(TemplateArguments::parse("null").unwrap(), TemplateArguments::default());
    }

    #[test]
    fn defaults_do_not_replace_arguments() {
        let given = TemplateArguments::parse(r#"{"enable_thinking": true}"#).unwrap();
        assert_eq!(given.with_default("enable_thinking", false), given);
        let set = TemplateArguments::default().with_default("enable_thinking", false);
        assert_eq!(set, TemplateArguments::parse(r#"{"enable_thinking": false}"#).unwrap());
    }

    #[test]
    fn invalid_arguments_are_rejected() {
        let long = format!("{{\"a\": \"{}\"}}", "a".repeat(65_536));
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200), "]".repeat(200));
        let cases = [
            ("[1]", "expected an object"),
            (r#"{"messages": []}"#, "sets `messages`, which the chat itself sets"),
            (r#"{"a": {"b": 1, "b": 2}}"#, "`b` occurs twice; expected once"),
            (&long, "the object has 65545 bytes, expected at most 65536"),
            (&deep, "recursion limit exceeded"),
        ];
        for (json, expected) in cases {
            let error = TemplateArguments::parse(json).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        // Deeper than values may be, but not than JSON may be.
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(60), "]".repeat(60));
        let arguments = TemplateArguments::parse(&deep).unwrap();
        assert!(arguments.variables(&str::to_owned).is_err());
    }
}
