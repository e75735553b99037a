//! Checks of a card beyond its syntax: its parts must be consistent.

use super::axis::Axis;
use super::download::Download;
use super::file::Role;
use super::question;
use super::schema::{Card, Format, Task};
use super::self_test::{Expected, SelfTest};
use super::text::{Emoji, TextSpec};
use crate::encoder::language::languages;
use crate::language::gguf::parts::following;
use crate::limits::{MAX_CARD_TESTS, MAX_CATEGORIES, MAX_CATEGORY_NAME_BYTES, MAX_ROWS, MAX_WINDOW_TOKENS};
use crate::text::names;

/// Checks a card whose labels are in the file `labels`.
///
/// # Errors
///
/// A message about the first inconsistency.
pub(super) fn card(card: &Card, labels: Option<&str>) -> Result<(), String> {
    once("files", card.files.iter().map(|file| file.path.as_str()))?;
    match card.format {
        Format::Onnx => {
            if card.task == Task::TextGeneration {
                return Err("`task` is `text-generation`, expected `format` to be `gguf`".to_owned());
            }
            once("inputs", card.inputs.iter().map(|input| input.name.as_str()))?;
            once("outputs", card.outputs.iter().map(|output| output.name.as_str()))?;
            if !card.questions.is_empty() {
                return Err("`questions` is for `format` = `gguf`, and this is `onnx`; remove it".to_owned());
            }
        }
        Format::Gguf => language(card, labels)?,
    }
    batch_axis(card)?;
    bounds(card)?;
    card.download.check()?;
    if card.download.convert.is_some() && card.format != Format::Onnx {
        return Err(format!(
            "`download.convert` is not allowed with `format` = `{}`; remove it",
            card.format
        ));
    }
    tests(card)?;
    let models = card.files.iter().filter(|file| file.role == Role::Model).count();
    if models != 1 {
        return Err(format!("`files` has {models} entries with role `model`, expected exactly one"));
    }
    if card.format == Format::Gguf {
        parts(card)?;
    }
    if let Some(labels) = labels {
        listed(card, "labels", labels, Role::Labels)?;
    }
    match &card.text {
        Some(spec) => text(spec, card)?,
        None if matches!(card.task, Task::TextEmbedding | Task::TokenClassification) => {
            return Err(format!("`text` is missing, expected it for `task` = `{}`", card.task));
        }
        None => {}
    }
    question::check(&card.questions)?;
    categories(card)?;
    let has_heads = heads(card, labels)?;
    if !card.questions.is_empty() {
        category_labels(card)?;
    } else if labels.is_none() && !has_heads && !card.categories.is_empty() {
        return Err("`labels` is missing, expected the file of the labels that `categories` uses".to_owned());
    }
    for input in &card.inputs {
        if let Some(spec) = &input.image {
            spec.check(input.dtype, input.layout.as_deref(), &input.shape)
                .map_err(|message| format!("input `{}`: {message}", input.name))?;
        }
    }
    Ok(())
}

fn lists_heads(card: &Card) -> bool {
    card.files.iter().any(|file| file.role == Role::Head)
}

/// Returns true if the card lists heads.
///
/// # Errors
///
/// A message if the rest of the card does not fit them.
fn heads(card: &Card, labels: Option<&str>) -> Result<bool, String> {
    let has_heads = lists_heads(card);
    if has_heads && (card.text.is_none() || card.task != Task::TextClassification) {
        return Err("`files` has a head, expected `task` = `text-classification` and `text`".to_owned());
    }
    if has_heads && labels.is_some() {
        return Err("`labels` is not allowed with heads, which have the labels; remove it".to_owned());
    }
    Ok(has_heads)
}

/// Checks that the data files of a language model are the parts that follow its file.
fn parts(card: &Card) -> Result<(), String> {
    let model = &card.model_file().path;
    let expected = following(model).map_err(|error| format!("`{model}`: {error}"))?;
    let found = card.files.iter().filter(|file| file.role == Role::Data).map(|file| &file.path);
    if found.clone().eq(&expected) {
        return sources_of_parts(card, model, expected.len());
    }
    let list = |parts: Vec<&String>| if parts.is_empty() { "none".to_owned() } else { names(parts) };
    let (found, expected) = (list(found.collect()), list(expected.iter().collect()));
    Err(format!("`files` has the data files {found}, expected the parts that follow `{model}`: {expected}"))
}

/// Checks that the sources of a model in several files have files of these names.
fn sources_of_parts(card: &Card, model: &str, parts: usize) -> Result<(), String> {
    match &card.download {
        Download { hub: Some(hub), .. } if parts > 0 && hub.file != model => Err(format!(
            "`download.hub.file` is `{}`, expected `{model}`, since the other parts are beside it",
            hub.file
        )),
        Download { pip: Some(_), .. } if parts > 0 => {
            Err("`download.pip` is not allowed for a model in several files; use `download.hub`".to_owned())
        }
        _ => Ok(()),
    }
}

/// Checks a card of a language model, whose tensors are fixed by a convention.
fn language(card: &Card, labels: Option<&str>) -> Result<(), String> {
    let (task, reason) = match card.questions.is_empty() {
        true => (Task::TextGeneration, "`format` = `gguf`"),
        false => (Task::TextClassification, "a card with `questions`"),
    };
    if card.task != task {
        return Err(format!("`task` is `{}`, expected `{task}` for {reason}", card.task));
    }
    let keys = [
        ("inputs", card.inputs.is_empty()),
        ("outputs", card.outputs.is_empty()),
        ("labels", labels.is_none()),
        ("categories", card.categories.is_empty() || !card.questions.is_empty()),
        ("batch_axis", card.batch_axis.is_none()),
    ];
    match keys.into_iter().find(|(_, absent)| !absent) {
        Some((key, _)) => {
            Err(format!("`{key}` is not allowed with `format` = `gguf`, whose tensors are fixed; remove it"))
        }
        None => Ok(()),
    }
}

/// Checks the section `text` against the rest of its card.
fn text(spec: &TextSpec, card: &Card) -> Result<(), String> {
    let tasks = [Task::TextClassification, Task::TextEmbedding, Task::TokenClassification];
    if card.format != Format::Onnx || !tasks.contains(&card.task) {
        return Err(format!(
            "`text` is not allowed with `task` = `{}` and `format` = `{}`; remove it",
            card.task, card.format
        ));
    }
    let tokenizers = card.files.iter().filter(|file| file.role == Role::Tokenizer).count();
    if tokenizers != 1 {
        return Err(format!(
            "`files` has {tokenizers} entries with role `tokenizer`, expected exactly one for `text`"
        ));
    }
    let number = |key: &str, found: usize, min: usize, max: usize| {
        if (min..=max).contains(&found) {
            return Ok(());
        }
        Err(format!("`text.{key}` is {found}, expected {min} to {max}"))
    };
    number("max_tokens", spec.max_tokens, 1, MAX_WINDOW_TOKENS)?;
    number("max_windows", spec.max_windows, 1, MAX_ROWS)?;
    languages(&spec.languages)?;
    if let Some(stride) = spec.stride {
        number("stride", stride, 0, spec.max_tokens - 1)?;
    }
    if spec.canonical && card.task != Task::TextClassification {
        return Err(format!(
            "`text.canonical` is true, which gives a text several readings, but `task` is `{}`; remove it",
            card.task
        ));
    }
    if spec.emoji == Emoji::Words && !spec.canonical {
        return Err(
            "`text.emoji` is `words`, which is part of the canonical form; set `text.canonical` to true"
                .to_owned(),
        );
    }
    if spec.drop_unknown && card.task == Task::TokenClassification {
        return Err("`text.drop_unknown` is true, which loses the offsets of spans; remove it".to_owned());
    }
    match (card.task, spec.pooling) {
        (Task::TextEmbedding, _) if spec.stride.is_some() => {
            Err("`text.stride` is set, but an embedding has one window; remove it".to_owned())
        }
        (Task::TextEmbedding, _) => Ok(()),
        (Task::TextClassification, Some(_)) if lists_heads(card) => Ok(()),
        (task, Some(_)) => {
            Err(format!("`text.pooling` is for `task` = `text-embedding`, and this is `{task}`; remove it"))
        }
        (_, None) => Ok(()),
    }
}

/// Checks the names of the categories of `card`.
///
/// # Errors
///
/// A message about the first invalid name.
fn categories(card: &Card) -> Result<(), String> {
    MAX_CATEGORIES.check("`categories`", card.categories.len())?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-/".contains(&byte);
    for name in card.categories.keys() {
        if name.is_empty() || name.len() > MAX_CATEGORY_NAME_BYTES || !name.bytes().all(plain) {
            return Err(format!(
                "`categories` has the name `{name}`, expected 1 to {MAX_CATEGORY_NAME_BYTES} lower-case \
                 letters, digits, `-` and `/`"
            ));
        }
    }
    Ok(())
}

/// Checks that the card's labels include those of its categories.
///
/// # Errors
///
/// A message about the first unknown label.
fn category_labels(card: &Card) -> Result<(), String> {
    for (name, category) in &card.categories {
        let unknown = category.rule.labels().iter().find(|label| !card.labels.contains(label));
        if let Some(label) = unknown {
            let known = card.labels.join("`, `");
            return Err(format!("category `{name}` uses the label `{label}`, expected one of `{known}`"));
        }
    }
    Ok(())
}

/// Checks that the first axis of every tensor varies, because a batch grows along it.
fn batch_axis(card: &Card) -> Result<(), String> {
    let Some(axis) = card.batch_axis else { return Ok(()) };
    if axis != 0 {
        return Err(format!("`batch_axis` is {axis}, expected 0: only the first axis can be a batch axis"));
    }
    let inputs = card.inputs.iter().map(|input| ("input", &input.name, &input.shape));
    let outputs = card.outputs.iter().map(|output| ("output", &output.name, &output.shape));
    for (kind, name, shape) in inputs.chain(outputs) {
        let found = match shape.first() {
            Some(Axis::Dynamic { max: Some(max), .. }) if *max > MAX_ROWS => {
                return Err(format!(
                    "{kind} `{name}`: `max` of axis 0 is {max}, expected at most {MAX_ROWS} for `batch_axis`"
                ));
            }
            Some(Axis::Dynamic { .. }) => continue,
            Some(Axis::Fixed(size)) => format!("is always {size}"),
            None => "does not exist".to_owned(),
        };
        return Err(format!(
            "`batch_axis` is 0, but axis 0 of {kind} `{name}` {found}; expected a varying axis, or no `batch_axis`"
        ));
    }
    Ok(())
}

/// Checks that only inputs have limits, because callers choose only their sizes.
fn bounds(card: &Card) -> Result<(), String> {
    let bounded = |axis: &Axis| matches!(axis, Axis::Dynamic { max: Some(_), .. });
    match card.outputs.iter().find(|output| output.shape.iter().any(bounded)) {
        Some(output) => {
            Err(format!("output `{}` has an axis with `max`, which only inputs may have", output.name))
        }
        None => Ok(()),
    }
}

/// Checks that there is one label per score.
///
/// # Errors
///
/// A message with both numbers.
pub(crate) fn labels(card: &Card) -> Result<(), String> {
    if !card.heads.is_empty() {
        return category_labels(card);
    }
    let scores = card.outputs.first().and_then(|output| Some((&output.name, output.shape.last()?)));
    if let Some((name, Axis::Fixed(scores))) = scores
        && card.task != Task::TextEmbedding
        && *scores != card.labels.len()
    {
        let found = card.labels.len();
        return Err(format!("found {found} labels, one per line, expected {scores} as in output `{name}`"));
    }
    category_labels(card)
}

/// Checks that the names are unique and that there is at least one.
fn once<'a>(key: &str, mut names: impl Iterator<Item = &'a str> + Clone) -> Result<(), String> {
    match question::repeated(names.clone()) {
        Some(name) => Err(format!("`{key}` lists `{name}` twice")),
        None if names.next().is_none() => Err(format!("`{key}` is empty, expected at least one")),
        None => Ok(()),
    }
}

fn listed(card: &Card, key: &str, name: &str, role: Role) -> Result<(), String> {
    match card.files.iter().find(|file| file.path == name) {
        Some(file) if file.role == role => Ok(()),
        Some(file) => {
            Err(format!("`{key}` is `{name}`, which `files` lists as `{}`, expected `{role}`", file.role))
        }
        None => Err(format!("`{key}` is `{name}`, which `files` does not list; add it with role `{role}`")),
    }
}

/// Checks the self-tests of `card`.
///
/// # Errors
///
/// A message about the first inconsistency.
fn tests(card: &Card) -> Result<(), String> {
    MAX_CARD_TESTS.check("`tests`", card.tests.len())?;
    for (index, test) in card.tests.iter().enumerate() {
        self_test(card, test).map_err(|message| format!("`tests[{index}]`: {message}"))?;
    }
    Ok(())
}

fn self_test(card: &Card, test: &SelfTest) -> Result<(), String> {
    if !(test.tolerance.is_finite() && test.tolerance >= 0.0) {
        return Err(format!("`tolerance` is {}, expected a number of at least 0", test.tolerance));
    }
    if test.outputs.is_empty() {
        return Err("`outputs` is empty, expected at least one output".to_owned());
    }
    for (name, expected) in &test.outputs {
        if let Expected::At(places) = expected
            && let Some(place) = places.keys().find(|place| place.parse::<usize>().is_err())
        {
            return Err(format!(
                "output `{name}`: `{place}` is not an index, expected an integer of at least 0"
            ));
        }
    }
    if card.format == Format::Onnx && !card.takes_texts() {
        let known = |name: &str| card.inputs.iter().any(|input| input.name == name);
        if let Some(name) = test.inputs.keys().find(|name| !known(name)) {
            return Err(format!("input `{name}` is not in the card's `inputs`"));
        }
        for input in &card.inputs {
            let value = test.inputs.get(&input.name);
            let value = value.ok_or_else(|| format!("input `{}` is missing", input.name))?;
            value.tensor(&input.name, Some(input))?;
        }
        let known = |name: &str| card.outputs.iter().any(|output| output.name == name);
        if let Some(name) = test.outputs.keys().find(|name| !known(name)) {
            return Err(format!("output `{name}` is not in the card's `outputs`"));
        }
    }
    Ok(())
}
