//! Templates render as in Jinja2. `tests/data/templates/make.py` wrote the cases.

use serde_json::Value as Json;

use super::{Bounds, Program, Value};

const CASES: &str = include_str!("../../../tests/data/templates/cases.json");

const BOUNDS: Bounds = Bounds { steps: 50_000, bytes: 1 << 20, output: 1 << 20 };

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Boolean(*value),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap()), Value::Integer)
        }
        Json::String(text) => Value::from(&**text),
        Json::Array(items) => Value::list(items.iter().map(value).collect()).unwrap(),
        Json::Object(entries) => {
            Value::distinct(entries.iter().map(|(key, item)| (Value::from(&**key), value(item))).collect())
                .unwrap()
        }
    }
}

#[test]
fn templates_render_like_jinja2() {
    let cases: Vec<Json> = serde_json::from_str(CASES).unwrap();
    let mut renders = 0;
    for case in &cases {
        let source = case["template"].as_str().unwrap();
        let program = Program::parse(source);
        for render in case["renders"].as_array().unwrap() {
            renders += 1;
            let variables = render["variables"].as_object().unwrap();
            let variables =
                variables.iter().map(|(name, json)| (&*name.clone().leak(), value(json))).collect();
            let found = program.as_ref().ok().and_then(|program| program.render(variables, &BOUNDS).ok());
            assert_eq!(found.as_deref(), render["expected"].as_str(), "{source}\n{}", render["variables"]);
        }
    }
    assert!(cases.len() > 200 && renders > 300, "{} templates, {renders} renders", cases.len());
}

#[test]
fn time_is_formatted() {
    let program =
        Program::parse("{{ strftime_now('%Y') | int > 2024 }} {{ strftime_now('%d %b %Y') | length }}");
    let written = program.unwrap().render(Vec::new(), &BOUNDS).unwrap();
    assert_eq!(written, "True 11");
}

#[test]
fn generation_blocks_are_transparent() {
    let program = Program::parse("a{% generation %}{% set x = 1 %}b{% endgeneration %}{{ x }}");
    assert_eq!(program.unwrap().render(Vec::new(), &BOUNDS).unwrap(), "ab1");
}

#[test]
fn carriage_returns_are_line_ends() {
    let program = Program::parse("{% if true %}\r\na\r\n{% endif %}\r\nb\r\n");
    assert_eq!(program.unwrap().render(Vec::new(), &BOUNDS).unwrap(), "a\nb");
}
