//! A dataset: a JSON Lines file of requests, with optional labels.

use std::mem;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use infer_engine::text::names;
use infer_engine::{Card, Message, files};
use infer_train::Lines;
use serde::Deserialize;
use serde_json::Value;

use crate::args::BenchTask;
use crate::item::{Example, Item, Label};
use crate::limits::{MAX_DATASET_BYTES, MAX_DATASET_LINES};
use crate::random::seeded;
use crate::work;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    image: Option<std::path::PathBuf>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    choices: Option<Vec<String>>,
    label: Option<Value>,
    category: Option<String>,
    /// Accepted and ignored: users number their examples.
    #[serde(rename = "id")]
    _id: Option<Value>,
}

/// Reads the examples of `path` for `task`, shuffled by `seed`. `card` belongs to the measured
/// model, if it is known.
///
/// # Errors
///
/// If the file cannot be read or is empty, or for the first invalid line.
pub(super) fn read(
    path: &Path,
    task: BenchTask,
    card: Option<&Card>,
    seed: u64,
) -> anyhow::Result<Vec<Example>> {
    let name = path.display();
    let mut lines = Lines::open(path).with_context(|| format!("cannot read the dataset `{name}`"))?;
    let mut examples = Vec::new();
    let mut kind_of_labels = None;
    let mut bytes_read = 0;
    while let Some((number, line)) = lines.next_line()? {
        if line.trim().is_empty() {
            continue;
        }
        let example = example(line, task, card, path).with_context(|| format!("{name}:{number}"))?;
        if let Some(label) = &example.label {
            let kind = *kind_of_labels.get_or_insert(mem::discriminant(label));
            ensure!(
                kind == mem::discriminant(label),
                "{name}:{number}: `label` is of another kind than those before; expected only names, or only true and false"
            );
        }
        bytes_read += line.len() + if let Item::Image(image) = &example.item { image.len() } else { 0 };
        examples.push(example);
        ensure!(
            examples.len() <= MAX_DATASET_LINES && bytes_read <= MAX_DATASET_BYTES,
            "{name}:{number}: more than {MAX_DATASET_LINES} lines or {MAX_DATASET_BYTES} bytes; split it"
        );
    }
    ensure!(!examples.is_empty(), "the dataset `{name}` is empty; expected one JSON object per line");
    // Files are often sorted by label; a run that stops early should see all labels.
    seeded(seed, u64::MAX).shuffle(&mut examples);
    Ok(examples)
}

fn example(line: &str, task: BenchTask, card: Option<&Card>, dataset: &Path) -> anyhow::Result<Example> {
    let Line { text, image, prompt, messages, choices, label, category, .. } = serde_json::from_str(line)?;
    let image = image.map(|image| -> anyhow::Result<Item> {
        let place = dataset.parent().unwrap_or(Path::new("")).join(image);
        let bytes = files::read(&place, MAX_DATASET_BYTES as u64);
        let bytes = bytes.with_context(|| format!("cannot read `{}`", place.display()))?;
        Ok(Item::Image(Arc::from(bytes)))
    });
    let prompt = messages
        .map(|messages| Item::Prompt { messages, choices: choices.clone(), prefix_messages: None })
        .or_else(|| prompt.map(|prompt| work::prompt(&prompt, choices.clone())));
    let text_model = card.filter(|card| card.takes_texts());
    let item = match task {
        BenchTask::Moderate => {
            text.map(Item::Text).map(Ok).or(image).context("no `text` and no `image`")??
        }
        BenchTask::Classify => image.context("no `image`: expected the path of a file")??,
        BenchTask::Score => {
            ensure!(choices.is_some(), "no `choices`: expected an array of strings");
            prompt.context("no `prompt` and no `messages`")?
        }
        BenchTask::Generate => {
            ensure!(choices.is_none(), "`choices` is for the task score");
            prompt.context("no `prompt` and no `messages`")?
        }
        BenchTask::Tensor if text_model.is_some() => {
            work::text_tensor(&text.context("no `text`: expected the text to judge")?)
        }
        BenchTask::Tensor => bail!(
            "the task tensor accepts a dataset only for a model with a tokenizer; other tensors are generated from the card"
        ),
    };
    let label = match (label, task) {
        (None | Some(Value::Null), _) => None,
        (Some(label), BenchTask::Moderate) => Some(Label::Flagged(truth(&label)?)),
        (Some(Value::String(class)), BenchTask::Classify) => Some(Label::Class(class)),
        (Some(label), BenchTask::Score) => {
            let index = choices.iter().flatten().position(|choice| Some(choice.as_str()) == label.as_str());
            Some(Label::Choice(
                index.with_context(|| format!("`label` is {label}, expected one of the choices"))?,
            ))
        }
        (Some(label), BenchTask::Tensor) => {
            let labels = text_model.map_or(&[][..], |card| &card.labels);
            Some(label_of_text(&label, category.as_deref(), labels)?)
        }
        (Some(label), _) => bail!("`label` is {label}, which an answer of {task} cannot be compared with"),
    };
    Ok(Example { item, label, category })
}

/// The label of a text whose answer is a score for each of `labels`: one of their names, or with
/// `category`, one of them too, whether it applies.
fn label_of_text(label: &Value, category: Option<&str>, labels: &[String]) -> anyhow::Result<Label> {
    ensure!(!labels.is_empty(), "`label` is {label}, but the model has no labels; remove it");
    let known = |name: &str| labels.iter().any(|label| label == name);
    let names = names(labels);
    match (label, category) {
        (Value::String(name), None) => {
            ensure!(known(name), "`label` is \"{name}\", expected one of {names}");
            Ok(Label::Class(name.clone()))
        }
        (Value::String(name), Some(_)) => {
            bail!("`label` is \"{name}\" beside a `category`; expected true or false, or no `category`")
        }
        (_, Some(category)) => {
            ensure!(known(category), "`category` is \"{category}\", expected one of {names}");
            Ok(Label::Flagged(truth(label)?))
        }
        (_, None) => bail!(
            "`label` is {label} without a `category`; expected one of {names}, or true or false with one of them as `category`"
        ),
    }
}

fn truth(label: &Value) -> anyhow::Result<bool> {
    match label {
        Value::Bool(truth) => Ok(*truth),
        Value::Number(number) if number.as_f64() == Some(0.0) => Ok(false),
        Value::Number(number) if number.as_f64() == Some(1.0) => Ok(true),
        _ => bail!("`label` is {label}, expected true or 1 for flagged content, else false or 0"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str, task: BenchTask) -> anyhow::Result<Vec<Example>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.jpg"), "an image").unwrap();
        let path = folder.path().join("d.jsonl");
        std::fs::write(&path, text).unwrap();
        read(&path, task, None, 1)
    }

    #[test]
    fn lines_become_examples_in_random_order() {
        let text: String = (0..50)
            .map(|index| format!("{{\"text\": \"t{index}\", \"label\": {}}}\n\n", index < 25))
            .collect();
        let examples = read_text(&text, BenchTask::Moderate).unwrap();
        assert_eq!(examples.len(), 50);
        let flagged =
            examples[..10].iter().filter(|example| example.label == Some(Label::Flagged(true))).count();
        assert!((1..10).contains(&flagged), "{flagged}");
        let scored = r#"{"prompt": "2+2?", "choices": ["5", "4"], "label": "4", "id": 7}"#;
        assert_eq!(read_text(scored, BenchTask::Score).unwrap()[0].label, Some(Label::Choice(1)));
        let classified = r#"{"image": "a.jpg", "label": "espresso"}"#;
        assert_eq!(
            read_text(classified, BenchTask::Classify).unwrap()[0].label,
            Some(Label::Class("espresso".to_owned()))
        );
    }

    #[test]
    fn invalid_line_is_named() {
        use BenchTask::{Classify, Generate, Moderate, Score, Tensor};
        let cases = [
            (Moderate, "{\"text\": \"a\"}\n{\"txt\": 1}", "d.jsonl:2: unknown field `txt`"),
            (Moderate, "{\"prompt\": \"a\"}", "d.jsonl:1: no `text` and no `image`"),
            (Moderate, "{\"text\": \"a\", \"label\": \"bad\"}", "`label` is \"bad\", expected true or 1"),
            (Moderate, "{\"image\": \"b.jpg\"}", "b.jpg`"),
            (Moderate, "\n\n", "is empty"),
            (Classify, "{\"image\": \"a.jpg\", \"label\": 3}", "`label` is 3, which an answer of classify"),
            (Score, "{\"prompt\": \"a\"}", "no `choices`"),
            (
                Score,
                "{\"prompt\": \"a\", \"choices\": [\"b\"], \"label\": \"c\"}",
                "expected one of the choices",
            ),
            (Generate, "{\"text\": \"a\"}", "no `prompt` and no `messages`"),
            (Generate, "{\"prompt\": \"a\", \"label\": \"b\"}", "an answer of generate cannot be compared"),
            (Tensor, "{}", "only for a model with a tokenizer"),
        ];
        for (task, text, words) in cases {
            let Err(error) = read_text(text, task) else { panic!("{text} is taken") };
            assert!(format!("{error:#}").contains(words), "{text}: {error:#}");
        }
        assert!(read_text(&"x".repeat((1 << 20) + 1), Moderate).is_err());
    }
}
