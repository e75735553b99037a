//! Interfaces that others rely on, compared with the files of tests/snapshots. CONTRIBUTING.md says
//! how to accept a change.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::Arc;

use infer_config::keys::KeyHash;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, answer, infer, load, photo, repository};

fn assert_snapshot(name: &str, found: &str) {
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(repository().join("tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, found));
}

/// Output of `infer` with `arguments`, in a terminal of 100 columns.
fn help(arguments: &[&str]) -> String {
    let mut command = infer(&repository());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("INFER_") {
            command.env_remove(variable);
        }
    }
    let output = command.args(arguments).env("COLUMNS", "100").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // Editors remove trailing spaces, which mean nothing here.
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let (list, _) = list.split_once("\n\n").unwrap();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn help_is_unchanged() {
    let mut pending = vec![Vec::new()];
    let mut count = 0;
    while let Some(command) = pending.pop() {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = help(&arguments);
        let name = std::iter::once("help").chain(command.iter().map(String::as_str));
        assert_snapshot(&name.collect::<Vec<_>>().join("-"), &help);
        pending.extend(commands(&help).into_iter().map(|name| [&command[..], &[name]].concat()));
        count += 1;
    }
    assert!(count > 15, "{count} commands");
}

/// Names, types and labels of `metrics`, without their values.
fn families(metrics: &str) -> String {
    let mut families: BTreeMap<&str, (&str, BTreeSet<String>)> = BTreeMap::new();
    let mut name = "";
    for line in metrics.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (family, kind) = family.split_once(' ').unwrap();
            name = family;
            families.insert(family, (kind, BTreeSet::new()));
        } else if !line.starts_with('#') {
            let (sample, labels) = line.split_once(['{', ' ']).unwrap();
            let labels: Vec<_> =
                labels.split("=\"").map(|part| part.rsplit([',', '"']).next().unwrap()).collect();
            let names = labels[..labels.len() - 1].join(" ");
            families.get_mut(name).unwrap().1.insert(format!("    {sample} {names}").trim_end().to_owned());
        }
    }
    let print = |(name, (kind, samples)): (&str, (&str, BTreeSet<String>))| {
        [format!("{name} {kind}\n"), samples.iter().map(|sample| format!("{sample}\n")).collect()].concat()
    };
    families.into_iter().map(print).collect()
}

#[tokio::test]
async fn metrics_are_unchanged() {
    let config = infer_config::CONFIG.to_owned()
        + "\n[models.tiny]\nsource = \"tests/data/language/qwen2-q6_k.gguf\"\n";
    let server = Server::start(Arc::new(load(&config))).await;
    assert_eq!(server.moderate(&json!({ "input": "hello" })).await.0, StatusCode::OK);
    assert_eq!(server.classify("", photo("coffee.jpg")).await.0, StatusCode::OK);
    assert_eq!(server.get("/nothing").send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let metrics = server.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert_snapshot("metrics", &families(&metrics));
}

/// Adds a line for each part of `other` that `one` does not have, with its path.
fn additions(path: &str, one: &Value, other: &Value, lines: &mut String) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            assert!(one.keys().all(|key| other.contains_key(key)), "{path} has lost a part");
            for (key, value) in other {
                let none = Value::Null;
                additions(&format!("{path}/{key}"), one.get(key).unwrap_or(&none), value, lines);
            }
        }
        _ if one != other => *lines += &format!("{path}: {other}\n"),
        _ => {}
    }
}

#[tokio::test]
async fn openapi_document_is_unchanged() {
    let (_, document) = answer(Server::builtin().await.get("/openapi.json")).await;
    assert_snapshot("openapi", &serde_json::to_string_pretty(&document).unwrap());
    let keyed = format!("{}\n[keys.alice]\nhash = \"{}\"\n", infer_config::CONFIG, KeyHash::of("secret"));
    let server = Server::start(Arc::new(load(&keyed))).await;
    let (_, with_keys) = answer(server.get("/openapi.json").bearer_auth("secret")).await;
    let mut lines = String::new();
    additions("", &document, &with_keys, &mut lines);
    assert_snapshot("openapi-with-keys", &lines);
}
