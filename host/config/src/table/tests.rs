use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds as _};

use infer_engine::{Capacity, Format};
use toml::{Table, Value};

use super::*;
use crate::key::RangeText;
use crate::{CONFIG, Config, Origin};

/// Returns the mistakes of a configuration with `value` at the key, beside the keys that `section`
/// requires and those on which its ranges depend.
fn mistakes(section: &str, key: &str, value: &str) -> String {
    let (header, others): (_, &[(&str, &str)]) = match section {
        "server" => ("[server]", &[("max_body_bytes", "1"), ("rate_per_ip", "1")]),
        "keys.NAME" => ("[keys.a]", &[("hash", ""), ("rate", "1")]),
        "models.NAME" => ("[models.a]", &[("source", "\"builtin:toxic-bilstm\"")]),
        "models.NAME.next" => {
            ("[models.a]\nsource = \"builtin:toxic-bilstm\"\n[models.a.next]", &[("source", "\"x\"")])
        }
        "chat.guard" => ("[chat.guard]", &[("hold_back_tokens", "1"), ("stride_tokens", "1")]),
        "components.NAME.limits" => {
            ("[components.a]\nsource = \"builtin:moderate\"\n[components.a.limits]", &[])
        }
        "components.NAME.tests" => {
            ("[components.a]\nsource = \"builtin:moderate\"\n[[components.a.tests]]", &[("input", "\"x\"")])
        }
        "upstreams.NAME" => {
            ("[upstreams.a]", &[("url", "\"https://llm.example/v1\""), ("models", "{ a = \"b\" }")])
        }
        other => panic!("`{other}` has a number, but no example"),
    };
    let hash = format!("\"sha256:{}\"", "0".repeat(64));
    let mut keys: BTreeMap<_, _> = others.iter().copied().collect();
    if let Some(value) = keys.get_mut("hash") {
        *value = &hash;
    }
    keys.insert(key, value);
    let lines: Vec<_> = keys.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let text = format!("{header}\n{}", lines.join("\n"));
    match Config::parse(&text, &Origin::Builtin) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

/// Returns the largest and smallest valid value, and the values beyond them, as TOML.
fn bounds(kind: &Kind) -> Option<([String; 2], Vec<String>)> {
    match kind {
        Kind::Count(range) | Kind::Bytes(range) | Kind::Milliseconds(range) => {
            let (min, max) = (*range.start(), *range.end());
            let beyond = min.checked_sub(1).into_iter().chain([max + 1]);
            Some(([min.to_string(), max.to_string()], beyond.map(|number| number.to_string()).collect()))
        }
        Kind::Real(min, max) => {
            let side = |bound: &Bound<f64>, step: f64| match *bound {
                Included(number) => (number, number + step),
                Excluded(number) if number.is_finite() => (number - step / 1e3, number),
                Excluded(number) => (f64::MAX.copysign(number), number),
                Bound::Unbounded => panic!("a real number has two bounds"),
            };
            let ((min, below), (max, above)) = (side(min, -1.0), side(max, 1.0));
            let toml =
                |number: f64| if number.is_infinite() { "inf".to_owned() } else { format!("{number:?}") };
            Some(([toml(min), toml(max)], vec![toml(below), toml(above), "nan".to_owned()]))
        }
        _ => None,
    }
}

#[test]
fn numbers_out_of_range_are_rejected() {
    let mut numbers = 0;
    for (section, keys) in SECTIONS {
        for key in keys {
            let Some((valid, beyond)) = bounds(&key.kind) else { continue };
            numbers += 1;
            let expected = |value: &str| {
                let value = value.trim_end_matches(".0").replace("nan", "NaN");
                format!("`{}` is {value}, expected {}", key.name, RangeText(&key.kind))
            };
            for value in valid {
                let found = mistakes(section, key.name, &value);
                assert!(!found.contains(&format!("`{}` is", key.name)), "{section}: {value}: {found}");
            }
            for value in beyond {
                let found = mistakes(section, key.name, &value);
                let expected = expected(&value);
                assert!(found.contains(&expected), "{section}: no `{expected}` in `{found}`");
            }
        }
    }
    assert!(numbers > 40, "{numbers} keys have a range");
}

#[test]
fn defaults_are_within_their_ranges() {
    for (section, keys) in SECTIONS {
        for key in keys {
            let is_valid = match (&key.kind, &key.default) {
                (_, DefaultValue::Number(number)) => key.range().is_some_and(|range| range.contains(number)),
                (Kind::Real(min, max), DefaultValue::Real(number)) => (*min, *max).contains(number),
                (_, DefaultValue::Real(_)) => false,
                (kind, DefaultValue::Flag(_)) => matches!(kind, Kind::Boolean),
                (kind, DefaultValue::Text(_)) => matches!(kind, Kind::Address | Kind::Text),
                (_, DefaultValue::Required | DefaultValue::Unset | DefaultValue::Derived(_)) => true,
            };
            assert!(is_valid, "{section}.{}: the default is out of range", key.name);
        }
    }
}

/// The engine has the defaults of models, by their format; the table has them in words.
#[test]
fn model_defaults_are_those_of_the_engine() {
    let (onnx, language) = (Capacity::of(Format::Onnx), Capacity::of(Format::Gguf));
    let words = |name: &str| match Model::KEYS.iter().find(|key| key.name == name).map(|key| &key.default) {
        Some(DefaultValue::Derived(words)) => (*words).to_owned(),
        _ => panic!("`{name}` has no derived default"),
    };
    assert_eq!(words("sessions"), format!("number of cores, {} for language models", language.sessions));
    assert_eq!(words("threads"), format!("{}, number of cores for language models", onnx.threads));
    assert_eq!(words("max_batch"), format!("{}, {} for language models", onnx.max_batch, language.max_batch));
    assert_eq!(words("queue_capacity"), onnx.queue_capacity.to_string());
    assert_eq!(words("context_tokens"), language.context_tokens.to_string());
    assert_eq!(words("kv_bytes"), language.kv_bytes.to_string());
}

/// A change names a fixed key by its path, which must not have a configured name in it.
#[test]
fn fixed_keys_are_in_sections_without_names() {
    for (section, keys) in SECTIONS {
        let has_fixed = keys.iter().any(|key| key.reload == Reload::Fixed);
        assert!(!has_fixed || !section.contains("NAME"), "{section}");
    }
}

#[test]
fn built_in_configuration_has_only_table_keys() {
    fn check(section: &str, table: &Table) {
        let keys = SECTIONS.iter().find(|(path, _)| *path == section).map(|(_, keys)| keys);
        for (name, value) in table {
            let path = format!("{section}.{name}");
            let key = keys.and_then(|keys| keys.iter().find(|key| key.name == name.as_str()));
            match key.unwrap_or_else(|| panic!("the table has no key `{path}`")) {
                Key { kind: Kind::Table, .. } => check(&path, value.as_table().unwrap()),
                Key { kind: Kind::Tables, .. } => {
                    value.as_array().unwrap().iter().for_each(|item| check(&path, item.as_table().unwrap()));
                }
                _ => {}
            }
        }
    }
    for (name, value) in &CONFIG.parse::<Table>().unwrap() {
        let sections = value.as_table().unwrap();
        match name.as_str() {
            "server" => check("server", sections),
            _ => sections.values().filter_map(Value::as_table).for_each(|section| {
                check(&format!("{name}.NAME"), section);
            }),
        }
    }
}
