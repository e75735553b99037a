//! Labels of an export, from `id2label` in config.json.

use std::collections::BTreeSet;

use anyhow::bail;
use infer_engine::text::{QUOTE_BYTES, excerpt, has_controls};
use serde_json::Value;

use crate::limits::{MAX_LABEL_BYTES, MAX_LABELS};

/// Returns the labels in the order of their indices; `None` if the file has none.
///
/// # Errors
///
/// If an index is missing, or a label is not a text for one line.
pub(super) fn read(config: &Value) -> anyhow::Result<Option<Vec<String>>> {
    let Some(names) = config["id2label"].as_object().filter(|names| !names.is_empty()) else {
        return Ok(None);
    };
    let count = names.len();
    let mut labels = Vec::with_capacity(count.min(MAX_LABELS));
    for index in 0..count {
        let label = match names.get(&index.to_string()) {
            Some(Value::String(label)) => label.clone(),
            Some(Value::Number(label)) => label.to_string(),
            Some(_) => bail!("config.json: label {index} is not a string"),
            None => bail!(
                "config.json: `id2label` has {count} labels but no index `{index}`, expected 0 to {}",
                count - 1
            ),
        };
        labels.push(label);
        if count > MAX_LABELS {
            break;
        }
    }
    check(&labels, count)?;
    Ok(Some(labels))
}

/// Checks `labels`, the first of `count`.
///
/// # Errors
///
/// If there are too many, or one is not a text for one line.
pub(super) fn check(labels: &[String], count: usize) -> anyhow::Result<()> {
    if count > MAX_LABELS {
        bail!("config.json: `id2label` has {count} labels, expected at most {MAX_LABELS}");
    }
    let mut seen = BTreeSet::new();
    for (index, label) in labels.iter().enumerate() {
        let shown = excerpt(label, QUOTE_BYTES);
        if label.trim().is_empty() || label.len() > MAX_LABEL_BYTES || has_controls(label) {
            bail!(
                "config.json: label {index} is `{shown}`, expected 1 to {MAX_LABEL_BYTES} bytes on one line, \
                 without control characters"
            );
        }
        if !seen.insert(label) {
            bail!("config.json: `id2label` has the label `{shown}` twice, expected different labels");
        }
    }
    Ok(())
}

/// True for a label that a training left at its default, such as `LABEL_0`.
pub(super) fn is_unnamed(label: &str) -> bool {
    label.strip_prefix("LABEL_").unwrap_or(label).parse::<u32>().is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_have_the_order_of_their_indices() {
        let names: serde_json::Map<_, _> = (0..12).map(|i| (i.to_string(), json!(format!("l{i}")))).collect();
        let labels = read(&json!({ "id2label": names })).unwrap().unwrap();
        assert_eq!(labels, (0..12).map(|i| format!("l{i}")).collect::<Vec<_>>());
        assert_eq!(read(&json!({})).unwrap(), None);
        assert!(is_unnamed("LABEL_0") && is_unnamed("7") && !is_unnamed("toxic"));
    }

    #[test]
    fn unusable_labels_are_named() {
        let many: serde_json::Map<_, _> =
            (0..100_000).map(|i| (i.to_string(), json!(format!("l{i}")))).collect();
        for (labels, expected) in [
            (json!(many), "has 100000 labels, expected at most 1024"),
            (json!({ "0": "a\nb" }), "label 0 is `a\\nb`, expected 1 to 256 bytes on one line"),
            (json!({ "0": "\u{1b}[2J" }), "without control characters"),
            (json!({ "0": "a", "1": "a" }), "has the label `a` twice"),
            (json!({ "0": "a", "2": "b" }), "has 2 labels but no index `1`, expected 0 to 1"),
            (json!({ "0": [] }), "label 0 is not a string"),
            (json!({ "0": " " }), "label 0 is ` `"),
            (json!({ "0": "x".repeat(300) }), "expected 1 to 256 bytes"),
        ] {
            let error = read(&json!({ "id2label": labels })).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
