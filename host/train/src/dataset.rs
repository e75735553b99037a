//! Labelled texts: a JSON Lines file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use infer_engine::text::{QUOTE_BYTES, excerpt};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::limits::{MAX_DATA_BYTES, MAX_DATA_LINES};
use crate::lines::Lines;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: String,
    label: Option<Value>,
    labels: Option<BTreeMap<String, Value>>,
    category: Option<String>,
    id: Option<Value>,
    group: Option<Value>,
    split: Option<String>,
    language: Option<String>,
    labelled_by: Option<String>,
    score: Option<f64>,
}

/// Part of the data that an example belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Fitted to.
    Train,
    /// Reported only.
    Dev,
    /// Reported only.
    Test,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Its number, from 1.
    pub line: usize,
    /// The text.
    pub text: String,
    /// Labels by category. A `label` without a category is under the name that was asked for.
    pub labels: BTreeMap<String, bool>,
    /// Key of the examples that belong together, if one is given.
    pub group: Option<String>,
    /// Part of the data, if it is given.
    pub split: Option<Split>,
    /// Language of the text, if it is given.
    pub language: Option<String>,
    /// Answer of a language model, if one was asked.
    pub answer: Option<Answer>,
}

/// Answer of a language model about a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Identity of the model and its policy.
    pub by: String,
    /// Probability that the text is positive.
    pub score: f64,
}

/// All lines of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    /// Name of the file without its folder.
    pub name: String,
    /// SHA-256 of the file, in 64 hexadecimal digits.
    pub sha256: String,
    /// The examples in the order of the lines.
    pub examples: Vec<Example>,
    /// Names that stood for a label other than the asked category, and count as negative.
    pub other_labels: BTreeSet<String>,
}

impl Example {
    /// The example as a line that [`Dataset::read`] reads.
    pub fn to_json(&self) -> String {
        let mut line = serde_json::Map::new();
        line.insert("text".to_owned(), self.text.as_str().into());
        if !self.labels.is_empty() {
            line.insert(
                "labels".to_owned(),
                self.labels.iter().map(|(name, label)| (name.clone(), Value::from(*label))).collect(),
            );
        }
        let split = self.split.and_then(|split| serde_json::to_value(split).ok());
        let text = |text: &Option<String>| text.as_deref().map(Value::from);
        for (name, value) in
            [("group", text(&self.group)), ("split", split), ("language", text(&self.language))]
        {
            line.extend(value.map(|value| (name.to_owned(), value)));
        }
        if let Some(Answer { by, score }) = &self.answer {
            line.insert("labelled_by".to_owned(), by.as_str().into());
            line.insert("score".to_owned(), (*score).into());
        }
        Value::from(line).to_string()
    }
}

impl Dataset {
    /// Reads the file at `path`. A `label` without a `category` is that of `category`; without one,
    /// such lines are rejected.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or is empty, or for the first invalid line.
    pub fn read(path: &Path, category: Option<&str>) -> anyhow::Result<Dataset> {
        let name = path.display();
        let mut lines = Lines::open(path).with_context(|| format!("cannot read the data `{name}`"))?;
        let mut hash = Sha256::new();
        let (mut examples, mut other_labels) = (Vec::new(), BTreeSet::new());
        let mut bytes_read = 0;
        while let Some((number, line)) = lines.next_line()? {
            hash.update(line);
            bytes_read += line.len() as u64;
            ensure!(
                number <= MAX_DATA_LINES && bytes_read <= MAX_DATA_BYTES,
                "{name}:{number}: more than {MAX_DATA_LINES} lines or {MAX_DATA_BYTES} bytes; take a sample of it"
            );
            if line.trim().is_empty() {
                continue;
            }
            let example = example(line, number, category, &mut other_labels);
            examples.push(example.with_context(|| format!("{name}:{number}"))?);
        }
        ensure!(!examples.is_empty(), "the data `{name}` are empty; expected one JSON object per line");
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Dataset { name, sha256, examples, other_labels })
    }
}

fn example(
    line: &str,
    number: usize,
    category: Option<&str>,
    others: &mut BTreeSet<String>,
) -> anyhow::Result<Example> {
    let line: Line = serde_json::from_str(line)?;
    let mut labels = BTreeMap::new();
    for (name, label) in line.labels.into_iter().flatten() {
        let label = truth(&label, None).with_context(|| format!("`labels`: `{}`", shown(&name)))?;
        labels.insert(name, label);
    }
    if let Some(label) = line.label.filter(|label| !label.is_null()) {
        let Some(category) = line.category.as_deref().or(category) else {
            bail!(
                "`label` without a `category`: expected `\"labels\": {{\"CATEGORY\": true}}`, or the option `--category`"
            );
        };
        let truth = truth(&label, Some(category)).context("`label`")?;
        ensure!(
            labels.insert(category.to_owned(), truth).is_none_or(|other| other == truth),
            "`label` and `labels` disagree on `{}`; remove one of the two",
            shown(category)
        );
        if let Value::String(name) = label
            && name != category
        {
            others.insert(name);
        }
    }
    let key = |member: &str, value: Value| match value {
        Value::String(key) => Ok(Some(key)),
        Value::Number(key) => Ok(Some(key.to_string())),
        Value::Null => Ok(None),
        other => bail!("`{member}` is {}, expected a string or a number", shown(&other.to_string())),
    };
    let id = line.id.map_or(Ok(None), |id| key("id", id))?;
    let group = line.group.map_or(Ok(None), |group| key("group", group))?;
    let split = match line.split.as_deref() {
        None => None,
        Some("train") => Some(Split::Train),
        Some("dev" | "validation") => Some(Split::Dev),
        Some("test") => Some(Split::Test),
        Some(other) => {
            bail!("`split` is `{}`, expected `train`, `dev`, `validation` or `test`", shown(other))
        }
    };
    let language = line.language.filter(|language| !language.is_empty());
    let answer = match (line.labelled_by, line.score) {
        (Some(by), Some(score)) if (0.0..=1.0).contains(&score) => Some(Answer { by, score }),
        (None, None) => None,
        _ => bail!("expected both `labelled_by` and a `score` from 0 to 1, or none of the two"),
    };
    Ok(Example { line: number, text: line.text, labels, group: group.or(id), split, language, answer })
}

/// The label as true or false. The name of the category counts as true, and any other as false.
fn truth(label: &Value, category: Option<&str>) -> anyhow::Result<bool> {
    match (label, category) {
        (Value::Bool(truth), _) => Ok(*truth),
        (Value::Number(number), _) if number.as_f64() == Some(0.0) => Ok(false),
        (Value::Number(number), _) if number.as_f64() == Some(1.0) => Ok(true),
        (Value::String(name), Some(category)) if !name.is_empty() => Ok(name == category),
        (_, Some(category)) => bail!(
            "found {}, expected true or 1, false or 0, or the name of a label such as \"{category}\"",
            shown(&label.to_string())
        ),
        (_, None) => bail!("found {}, expected true or 1, or false or 0", shown(&label.to_string())),
    }
}

fn shown(text: &str) -> std::borrow::Cow<'_, str> {
    excerpt(text, QUOTE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MAX_LINE_BYTES;

    fn read(text: impl AsRef<[u8]>, category: Option<&str>) -> anyhow::Result<Dataset> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("posts.jsonl");
        std::fs::write(&path, text).unwrap();
        Dataset::read(&path, category)
    }

    #[test]
    fn labels_of_every_form_are_read() {
        let lines = [
            r#"{"text": "a", "label": true, "id": 7}"#,
            r#"{"text": "b", "label": 0, "group": "x", "id": 8, "split": "test"}"#,
            "",
            r#"{"text": "c", "label": "spam", "language": "en"}"#,
            r#"{"text": "d", "label": "ham", "split": "validation"}"#,
            r#"{"text": "e", "labels": {"spam": 1, "hate": false}}"#,
            r#"{"text": "f", "label": null}"#,
            r#"{"text": "g", "label": true, "category": "hate"}"#,
        ];
        let data = read(lines.join("\n"), Some("spam")).unwrap();
        let spam: Vec<_> = data.examples.iter().map(|one| one.labels.get("spam").copied()).collect();
        assert_eq!(spam, [Some(true), Some(false), Some(true), Some(false), Some(true), None, None]);
        let groups: Vec<_> = data.examples.iter().map(|one| one.group.as_deref()).collect();
        assert_eq!(groups[..3], [Some("7"), Some("x"), None]);
        assert_eq!((data.examples[1].split, data.examples[3].split), (Some(Split::Test), Some(Split::Dev)));
        assert_eq!((data.examples[2].line, data.examples[2].language.as_deref()), (4, Some("en")));
        assert!(data.examples[6].labels["hate"]);
        assert_eq!(data.other_labels, BTreeSet::from(["ham".to_owned()]));
        assert_eq!((data.name.as_str(), data.sha256.len()), ("posts.jsonl", 64));
    }

    #[test]
    fn invalid_line_is_named() {
        let good = r#"{"text": "a", "label": true}"#;
        let cases = [
            ("{\"text\": 1}", "posts.jsonl:2: invalid type: integer `1`"),
            ("{\"label\": true}", "missing field `text`"),
            ("{\"text\": \"a\", \"lable\": true}", "unknown field `lable`"),
            ("{\"text\": \"a\", \"label\": NaN}", "posts.jsonl:2: expected value"),
            ("{\"text\": \"a\", \"label\": 0.5}", "found 0.5, expected true or 1, false or 0, or the name"),
            ("{\"text\": \"a\", \"label\": [1]}", "found [1], expected"),
            ("{\"text\": \"a\", \"label\": \"\"}", "found \"\", expected"),
            ("{\"text\": \"a\", \"labels\": {\"spam\": \"yes\"}}", "`labels`: `spam`: found \"yes\""),
            (
                "{\"text\": \"a\", \"label\": true, \"labels\": {\"spam\": false}}",
                "disagree on `spam`; remove one",
            ),
            ("{\"text\": \"a\", \"split\": \"eval\"}", "`split` is `eval`, expected `train`"),
            ("{\"text\": \"a\", \"group\": {}}", "`group` is {}, expected a string or a number"),
            ("{\"text\": \"a\", \"text\": \"b\"}", "duplicate field `text`"),
            ("{\"text\": \"a\", \"score\": 0.5}", "expected both `labelled_by` and a `score`"),
            ("{\"text\": \"a\", \"score\": 2, \"labelled_by\": \"m\"}", "expected both `labelled_by`"),
            ("[\"a\"]", "posts.jsonl:2"),
        ];
        for (line, words) in cases {
            let error = read(format!("{good}\n{line}\n"), Some("spam")).unwrap_err();
            assert!(format!("{error:#}").contains(words), "{line}: {error:#}");
        }
        let error = read(good, None).unwrap_err();
        assert!(format!("{error:#}").contains("the option `--category`"), "{error:#}");
    }

    #[test]
    fn written_lines_are_read_again() {
        let line = r#"{"text":"a \"b\"","labels":{"hate":false,"spam":true},"group":"x","split":"dev","language":"en","labelled_by":"m","score":0.75}"#;
        let data = read(line, None).unwrap();
        assert_eq!(data.examples[0].to_json(), line);
        let plain = read(r#"{"text":"a"}"#, None).unwrap();
        assert_eq!(plain.examples[0].to_json(), r#"{"text":"a"}"#);
    }

    #[test]
    fn hostile_files_are_rejected() {
        let long = format!("{{\"text\": \"{}\"}}", "x".repeat(MAX_LINE_BYTES as usize));
        let cases: [(&[u8], &str); 4] = [
            (long.as_bytes(), "posts.jsonl:1: longer than"),
            (b"\n \n", "are empty"),
            (b"{\"text\": \"\xff\"}", "posts.jsonl:1: not a line of UTF-8 text"),
            (&[b'['; 100_000], "posts.jsonl:1"),
        ];
        for (bytes, words) in cases {
            let error = format!("{:#}", read(bytes, Some("spam")).unwrap_err());
            assert!(error.contains(words) && error.len() < 1_000, "{error}");
        }
    }
}
