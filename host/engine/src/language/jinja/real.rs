//! Templates render as in Jinja2. `tests/data/templates/make.py` and
//! `tests/scripts/chat_templates.py` wrote the cases.

use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::{Bounds, Cause, Program, Value};

const CASES: &str = include_str!("../../../tests/data/templates/cases.json");

const BOUNDS: Bounds = Bounds { steps: 50_000, bytes: 1 << 20, output: 1 << 20 };

/// 2026-03-07 09:05:02.
const NOW: i64 = 1_772_874_302;

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
            let variables = variables(&render["variables"]);
            let found =
                program.as_ref().ok().and_then(|program| program.render(variables, NOW, &BOUNDS).ok());
            assert_eq!(found.as_deref(), render["expected"].as_str(), "{source}\n{}", render["variables"]);
        }
    }
    assert!(cases.len() > 200 && renders > 300, "{} templates, {renders} renders", cases.len());
}

/// The variables of a case.
fn variables(json: &Json) -> Vec<(&str, Value)> {
    json.as_object().unwrap().iter().map(|(name, json)| (name.as_str(), value(json))).collect()
}

/// Differences from Jinja2 for each chat of a template: the chat, and the found result.
fn differences(source: &str, chats: &Json, renders: &Json, now: i64) -> Vec<String> {
    let program = Program::parse(source);
    let mut differences = Vec::new();
    for (chat, expected) in renders.as_object().unwrap() {
        let found = match &program {
            Ok(program) => program.render(variables(&chats[chat]), now, &BOUNDS),
            Err(error) => {
                differences.push(format!("{chat}: {error:?}"));
                continue;
            }
        };
        let is_equal = match (&found, expected) {
            (Ok(text), Json::String(expected)) => text == expected,
            (Err(error), Json::Object(refused)) => {
                matches!(&error.cause, Cause::Refused(message) if refused["refused"] == **message)
            }
            (Err(error), Json::Null) => matches!(error.cause, Cause::Failed(_)),
            _ => false,
        };
        if !is_equal {
            differences.push(format!("{chat}: expected {expected}\n found {found:?}"));
        }
    }
    differences
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates").join(name)
}

fn cases(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn templates_of_families_render_like_jinja2() {
    let cases = cases(&data("families.json"));
    assert_eq!(cases["now"], NOW);
    let templates = cases["templates"].as_array().unwrap();
    for case in templates {
        let name = case["name"].as_str().unwrap();
        let source = std::fs::read_to_string(data("families").join(name)).unwrap();
        let differences = differences(&source, &cases["chats"], &case["renders"], NOW);
        assert_eq!(differences, [""; 0], "{name}");
    }
    assert!(templates.len() >= 20, "{}", templates.len());
}

/// Adds escapes to texts next to `safe`, as Jinja2 does for HTML. The model was trained without.
const ESCAPES: &str = "meetkai-functionary-medium-v3.1.jinja";

#[test]
#[ignore = "needs TEMPLATES, the cases that tests/scripts/chat_templates.py --archive writes"]
fn published_templates_render_like_jinja2() {
    let cases = cases(std::env::var("TEMPLATES").expect("TEMPLATES is a path").as_ref());
    let templates = cases["templates"].as_array().unwrap();
    let (mut equal, mut chats) = (0, 0);
    for case in templates {
        let source = case["template"].as_str().unwrap();
        // Jinja2 fails on some chats that work here, such as a generator written as JSON.
        let mut renders = case["renders"].as_object().unwrap().clone();
        renders.retain(|_, expected| !expected.is_null());
        chats += renders.len();
        let differences = differences(source, &cases["chats"], &renders.into(), NOW);
        differences.iter().for_each(|difference| println!("{}: {difference}", case["name"]));
        equal += usize::from(differences.is_empty() || case["name"] == ESCAPES);
    }
    println!("{equal} of {} templates render the same text for {chats} chats", templates.len());
    assert_eq!(equal, templates.len());
}

#[test]
fn time_is_that_of_the_caller() {
    let program = Program::parse("{{ strftime_now('%A, %-d %b %Y, %H:%M:%S') }}").unwrap();
    assert_eq!(program.render(Vec::new(), NOW, &BOUNDS).unwrap(), "Saturday, 7 Mar 2026, 09:05:02");
}

#[test]
fn generation_blocks_are_transparent() {
    let program = Program::parse("a{% generation %}{% set x = 1 %}b{% endgeneration %}{{ x }}");
    assert_eq!(program.unwrap().render(Vec::new(), NOW, &BOUNDS).unwrap(), "ab1");
}

#[test]
fn carriage_returns_are_line_ends() {
    let program = Program::parse("{% if true %}\r\na\r\n{% endif %}\r\nb\r\n");
    assert_eq!(program.unwrap().render(Vec::new(), NOW, &BOUNDS).unwrap(), "a\nb");
}
